"""What estimators of nearest references share: reading, quantizing, and who selects."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any, ClassVar

import numpy as np

from cipherlearn.errors import InvalidParameterError
from cipherlearn.quantization.circuit_model import CircuitModel
from cipherlearn.quantization.n_bits import bits_by_key
from cipherlearn.quantization.quantizers import check_bits
from cipherlearn.sklearn._base import check_choice
from cipherlearn.sklearn._wrapping import WrappingEstimator
from cipherlearn.sklearn.linear.module import Box, LinearBits
from cipherlearn.sklearn.neighbors.distances import Grid, Metric, References
from cipherlearn.sklearn.neighbors.module import SelectionModule
from cipherlearn.sklearn.neighbors.revealed import SquaredDistances, distance_module
from cipherlearn.sklearn.neighbors.selection import Selection

#: Who selects the nearest: the server, under encryption; the client, who is told all distances.
REVEALED = ("selection", "distances")

#: Most bits of features in unary code, and those of a rounded difference: least, usual, most.
MOST_BITS, LEAST_DISTANCE_BITS, USUAL_DISTANCE_BITS, MOST_DISTANCE_BITS = 8, 2, 4, 8


@dataclass(frozen=True)
class SelectionBits:
    """Bits of features, and of the differences of distances that are looked up.

    Parameters
    ----------
    inputs, distances : int
    """

    inputs: int
    distances: int = USUAL_DISTANCE_BITS

    @classmethod
    def of(cls, n_bits: Any) -> SelectionBits:
        """Bits as users give them: of features, or a dictionary.

        Raises
        ------
        InvalidParameterError, UnknownKeyError
            If it is neither, a number is out of range, or a key is missing or unknown.
        """
        if not isinstance(n_bits, dict):
            return cls(check_bits(n_bits, "n_bits", MOST_BITS))
        ranges = {
            "op_inputs": (1, MOST_BITS),
            "op_distances": (LEAST_DISTANCE_BITS, MOST_DISTANCE_BITS),
        }
        given = bits_by_key(n_bits, ranges, ["op_inputs"])
        return cls(given["op_inputs"], given.get("op_distances", USUAL_DISTANCE_BITS))

    @property
    def as_dict(self) -> dict[str, int]:
        """As `of` takes them."""
        return {"op_inputs": self.inputs, "op_distances": self.distances}


class Revealed(property):
    """A method that there is with ``reveal="distances"`` only."""

    def __init__(self, method: Callable[..., Any]) -> None:
        name = method.__name__

        def bound(self: Any) -> Any:
            if self.reveal != "distances":
                raise AttributeError(
                    f"{name} needs the distances, and the client gets the selection only: set "
                    "reveal='distances' (it tells the client where the references are)"
                )
            return MethodType(method, self)

        super().__init__(bound, doc=method.__doc__)


class NeighborsEstimator(WrappingEstimator):
    """A model that answers by which references are the nearest.

    Parameters
    ----------
    n_bits : int or dict, default=5
        Bits of features (``op_inputs``, at most 8), and of the differences of distances that are
        looked up (``op_distances``, 2 to 8, default 4). With ``reveal="distances"``, bits of
        features and weights as linear models have them (``op_inputs`` and ``op_weights``, at most
        16): there is no look-up, so take 8 or more.
    reveal : {"selection", "distances"}, default="selection"
        What the client gets: counts of what the nearest references are; or **all distances**, from
        which it selects by itself. That takes no look-up, and distances of known rows **tell where
        the references are**.

    The other parameters are those of the float class, in its installed version.

    Attributes
    ----------
    sklearn_model : object
        The float model.
    n_bits_ : dict
        ``op_inputs``, and ``op_distances`` or ``op_weights``.
    module_ : SelectionModule or DistanceModule
    """

    own_parameters: ClassVar[Mapping[str, Any]] = {"n_bits": 5, "reveal": "selection"}

    ways_to_agree: ClassVar[tuple[str, ...]] = (
        "more n_bits (both 'op_inputs' and 'op_distances')",
        "reveal='distances'",
    )

    reveal: str

    @classmethod
    @abstractmethod
    def read(cls, model: Any) -> References:
        """The references of a fitted float model."""

    @classmethod
    def _offsets(cls, model: Any) -> np.ndarray | None:
        """What is added to the sums of a fitted float model's references."""
        del cls, model
        return None

    @abstractmethod
    def _selection(self, model: Any, grid: Grid, rows: np.ndarray, bits: int) -> Selection:
        """Which references of a float model are selected, for rows like those given."""

    @abstractmethod
    def _counted(self, model: Any) -> np.ndarray:
        """What is counted of the selected references: (references, counts)."""

    def _metric(self) -> Metric:
        """The metric that parameters name."""
        return Metric.of(self)

    @property
    def client_learns(self) -> str:
        """What whoever encrypts rows, and gets the answers, learns of the training data."""
        if self._reveals:
            return "ranges of the features, and by distances where the references are"
        return "ranges of the features, and in answers how many references of which kind are near"

    def _options(self) -> SelectionBits | LinearBits:
        check_choice(self.reveal, "reveal", REVEALED)
        self._metric()
        return LinearBits.of(self.n_bits) if self._reveals else SelectionBits.of(self.n_bits)

    @property
    def _reveals(self) -> bool:
        return bool(self.reveal == "distances")

    def _quantized(self, model: Any, rows: np.ndarray, options: Any, before: Any) -> CircuitModel:
        self.n_bits_ = options.as_dict
        references = self.read(model)
        known = None if before is None else before.box
        box = Box.around(np.concatenate([rows, references.points]), known)
        if isinstance(options, LinearBits):
            return distance_module(references, box, options, self._offsets(model))
        grid = Grid(box, options.inputs)
        selection = self._selection(model, grid, rows, options.distances)
        return SelectionModule(grid, selection, self._counted(model))

    def post_processing(self, *values: np.ndarray) -> Any:
        """Predictions, or probabilities, of dequantized results.

        Raises
        ------
        InvalidParameterError
            If the distances themselves are needed, and not only their order: results are without
            what depends on the row alone.
        """
        self.check_model_is_fitted()
        if self._needs_distances and isinstance(self.module_, SquaredDistances):
            raise InvalidParameterError(
                "decrypted results are squared distances less the squared length of the row, and a "
                f"{type(self).__name__} with these parameters needs the distances: use "
                "predict(X, fhe='execute'), or add module_.lengths(X) to the results of "
                "module_.post_processing"
            )
        return self._answered(self.module_.post_processing(*values))

    @property
    def _needs_distances(self) -> bool:
        """Whether the order of distances is not enough."""
        return False

    def _answered(self, scores: np.ndarray) -> Any:
        """What `post_processing` makes of whole results."""
        return self._predictions(scores)
