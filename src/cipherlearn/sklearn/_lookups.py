"""What estimators with look-ups share: a word on what they cost, and on what they tell."""

from __future__ import annotations

from typing import Any, ClassVar

from cipherlearn.circuit import count_lookups
from cipherlearn.engines import Program
from cipherlearn.engines.estimate import warn_of_cost
from cipherlearn.sklearn._wrapping import WrappingEstimator


class WithLookups(WrappingEstimator):
    """A model whose neurons, or the like, are table look-ups."""

    #: What look-ups are for, and what makes them fewer.
    _looked_up: ClassVar[str]
    _fewer_lookups: ClassVar[str]

    @property
    def client_learns(self) -> str:
        """What whoever encrypts rows learns of the training data."""
        self.check_model_is_fitted()
        return "; ".join(self._told())

    def _told(self) -> list[str]:
        """What the client learns, one by one."""
        each = "" if self.answers_values else ", and the score itself instead of an answer alone"
        return ["ranges of the features", f"scale and constant of each score{each}"]

    def compile(self, X: Any = None, **options: Any) -> Program:
        """Compile the model: see `EncryptedEstimator.compile`.

        Warns
        -----
        CostWarning
            If there are so many look-ups that a prediction takes very long.
        """
        program = super().compile(X, **options)
        lookups = count_lookups(self.module_.circuit).total
        warn_of_cost(self._looked_up, lookups, program.complexity, self._fewer_lookups)
        return program
