"""What all estimators that are networks share: reading, quantizing for look-ups, the cost."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cipherlearn.engines.execution import FheMode
from cipherlearn.errors import InvalidParameterError
from cipherlearn.quantization.circuit_model import CircuitModel
from cipherlearn.quantization.n_bits import (
    ROUNDING_RANGE,
    Rounding,
    get_n_bits_dict,
    process_rounding_threshold_bits,
)
from cipherlearn.quantization.scoring import least_r2
from cipherlearn.sklearn._agreement import Agreement
from cipherlearn.sklearn._lookups import WithLookups
from cipherlearn.sklearn._reading import check_reading
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.maps import Plain
from cipherlearn.sklearn.linear.module import Box, LinearBits, LinearModule
from cipherlearn.sklearn.networks.likeness import Seen, rows_between
from cipherlearn.sklearn.networks.network import Network
from cipherlearn.sklearn.networks.steady import Precision, steadied

#: Most rows that networks are quantized on, and that a reading is checked on.
CALIBRATION_ROWS, _PROBES = 2000, 16

#: Bits of inputs, which meet no look-up before they are summed; and of what has no look-up at all.
FREE_BITS = 8

AUTO = "auto"

#: Bits that coefficients are prepared for where bits are to be found; the most that are tried, and
#: R2 from which on there are enough.
USUAL_BITS, _MOST_BITS, _LIKE_ENOUGH = 5, 8, 0.995


@dataclass(frozen=True)
class NetworkBits:
    """Bits as users ask for them.

    Parameters
    ----------
    n_bits : dict or None
        See `cipherlearn.quantization.get_n_bits_dict`; None where they are to be found.
    rounding : Rounding or None
        What look-ups read; None where that is to be found.
    """

    n_bits: Mapping[str, int] | None
    rounding: Rounding | None

    @classmethod
    def of(cls, n_bits: Any, rounding: Any) -> NetworkBits:
        """From the parameters of an estimator."""
        given = process_rounding_threshold_bits(rounding)
        if isinstance(n_bits, str) and n_bits == AUTO:
            return cls(None, given)
        bits = get_n_bits_dict(n_bits)
        if not isinstance(n_bits, Mapping) or "model_inputs" not in n_bits:
            bits["model_inputs"] = max(FREE_BITS, bits["op_inputs"])
        if given is None:
            given = Rounding(int(np.clip(bits["op_inputs"], *ROUNDING_RANGE)), exact=False)
        return cls(bits, given)

    @property
    def as_dict(self) -> dict[str, int]:
        """Bits as they were given; empty where they are to be found."""
        return dict(self.n_bits or {})

    @property
    def precision(self) -> Precision:
        """What look-ups read and give, or usually do."""
        kept = USUAL_BITS if self.rounding is None else self.rounding.n_bits
        given = self.as_dict.get("op_inputs", USUAL_BITS)
        return Precision(USUAL_BITS if isinstance(kept, str) else kept, given)

    @property
    def is_search(self) -> bool:
        """Whether something is to be found."""
        return self.n_bits is None or (self.rounding is not None and self.rounding.n_bits == AUTO)

    @property
    def options(self) -> dict[str, Any]:
        """As `cipherlearn.torch.build_quantized_module` takes them."""
        bits = AUTO if self.n_bits is None else dict(self.n_bits)
        return {"n_bits": bits, "rounding_threshold_bits": self.rounding}

    @property
    def linear(self) -> LinearBits:
        """Those of a model without look-ups, where they cost little."""
        known = self.as_dict
        return LinearBits(*(max(FREE_BITS, known.get(k, 0)) for k in ("op_inputs", "op_weights")))


class NetworkEstimator(WithLookups):
    """A model that is a small network with table look-ups.

    Parameters
    ----------
    n_bits : int, dict or "auto", default=5
        Bits of weights and activations: see `cipherlearn.quantization.get_n_bits_dict`. Inputs have
        8 where nothing else is said. ``"auto"`` finds the cheapest that give 99 % of the answers of
        the float model, which takes a minute or so.
    rounding_threshold_bits : None, int, dict or "auto", default=None
        Bits that look-ups read, as in `cipherlearn.torch.compile_torch_model`: they decide the
        cost. None for as many as activations have, rounded approximately.

    The other parameters are those of the float class, in its installed version.

    Attributes
    ----------
    sklearn_model : object
        The float model, trained in the clear on the values as they are.
    n_bits_ : dict
        Bits of weights and activations.
    module_ : QuantizedModule or LinearModule
        A model that turns out to be an affine function has no look-up.
    """

    own_parameters: ClassVar[Mapping[str, Any]] = {"n_bits": 5, "rounding_threshold_bits": None}

    takes_steps: ClassVar[bool] = True

    _looked_up = "the neurons"
    _fewer_lookups = "Smaller hidden layers (hidden_layer_sizes) need fewer"

    #: Parameters that the float model reads when it predicts, and that look-ups are made for.
    _built_for: ClassVar[tuple[str, ...]] = ()

    rounding_threshold_bits: Any

    #: What networks were quantized on so far, where training may go on.
    _seen: Seen | None

    @classmethod
    @abstractmethod
    def read(cls, model: Any, center: np.ndarray) -> Affine | Network:
        """The function that a fitted float model computes, before any link.

        Parameters
        ----------
        model : object
        center : numpy.ndarray, shape (features,)
            The mean of the rows of training.
        """

    def _options(self) -> NetworkBits:
        return NetworkBits.of(self.n_bits, self.rounding_threshold_bits)

    def _quantized(
        self, model: Any, rows: np.ndarray, options: NetworkBits, before: CircuitModel | None
    ) -> CircuitModel:
        if before is not None and self._seen is not None:
            rows = np.concatenate([self._seen.rows, rows])
        rows = _some(rows)
        self._seen = Seen(rows) if hasattr(self, "partial_fit") else None
        function = self._function(model, rows)
        rows = self._ranging(function, rows)
        probes = rows[:: -(-len(rows) // _PROBES)]
        what = (
            f"the {self.float_class.__name__} is not understood: this version of scikit-learn "
            "stores it in another way"
        )
        theirs = self._library_scores(model, self._taken(probes))
        check_reading(self._as_library(function(probes)), theirs, what)
        if isinstance(function, Affine):
            self.n_bits_ = options.linear.as_dict
            return LinearModule(function, Box.around(rows), options.linear)
        labels = {"labels": self._labels(function(rows))} if options.is_search else {}
        network = self._prepared(function, rows, options)
        module = network.quantized(rows, **options.options, **labels)
        self.n_bits_ = options.as_dict
        if module.search is not None:
            found = module.search.chosen.candidate.common
            self.n_bits_ |= {"op_inputs": found.inputs, "op_weights": found.weights}
        return module

    def _function(self, model: Any, rows: np.ndarray) -> Affine | Network:
        """What is computed of rows: affine steps before the model are part of its first layer."""
        taken = self._taken(rows)
        function = self.read(model, taken.mean(axis=0))
        if not self._folded:
            return function
        mapped = Plain.around(rows)
        steps = mapped.read(self._taken)
        steps.check(taken, rows)
        return function.after(steps)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if state.get("_seen") is not None:
            # Rows of training are nobody's business who is given a model; ranges are.
            state["_seen"] = state["_seen"].without_rows()
        return state

    def _ranging(self, function: Affine | Network, rows: np.ndarray) -> np.ndarray:
        """Rows that ranges are taken from, for those that were given."""
        del function
        return rows

    def _prepared(self, network: Network, rows: np.ndarray, options: NetworkBits) -> Network:
        """The network that is quantized for one that was read."""
        del rows, options
        return network

    def _raw(self, X: Any, fhe: str | FheMode) -> np.ndarray:
        self.check_model_is_fitted()
        for name in self._built_for:
            given, known = getattr(self, name), getattr(self.sklearn_model, name)
            if given != known:
                raise InvalidParameterError(
                    f"{name} was set to {given!r} after fit, and the look-ups are made for "
                    f"{known!r}: call fit again, or set it back"
                )
        return super()._raw(X, fhe)

    def _as_library(self, scores: np.ndarray) -> np.ndarray:
        """Scores as `_library_scores` gives them."""
        return scores

    def _labels(self, scores: np.ndarray) -> Any:
        """What bits are found for: classes, or values of all outputs.

        None for the value of a single output, or the largest of several.
        """
        return scores if self.answers_values and scores.shape[1] > 1 else None


class KernelMachine(NetworkEstimator):
    """A sum of kernels with points: one look-up each.

    Points are those that training found, or some of them: as few as hardly add to the error that
    look-ups have anyway. Their coefficients are fitted anew, so that they bear this error.

    Parameters
    ----------
    max_points : int, optional
        Points at most, for a lower cost.

    The others are those of `NetworkEstimator`.

    Attributes
    ----------
    agreement_ : float
        As for other estimators, but on rows that coefficients were not fitted on: halfway between
        each row (of training; or of those given to `from_model`, and points) and the nearest one.
    """

    own_parameters: ClassVar[Mapping[str, Any]] = {
        **NetworkEstimator.own_parameters,
        "max_points": None,
    }

    _looked_up = "the points of the kernels"
    _fewer_lookups = "A smaller max_points needs fewer"

    _built_for: ClassVar[tuple[str, ...]] = ("kernel", "degree", "coef0")

    max_points: Any

    def _told(self) -> list[str]:
        # Squared lengths are those from the mean, and limited.
        is_radial = getattr(self.module_, "head", None) is not None
        sphere = "mean of the rows, a radius around it, and the largest distance from it"
        return [*super()._told(), *([sphere] if is_radial else [])]

    def _options(self) -> NetworkBits:
        most = self.max_points
        if most is not None and (
            isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1
        ):
            raise InvalidParameterError(
                "max_points must be a whole number above 0, or None for as many points as are "
                f"needed, not {most!r}"
            )
        return super()._options()

    def _ranging(self, function: Affine | Network, rows: np.ndarray) -> np.ndarray:
        # Points are rows of training: there are some even if few rows are given.
        points = function.points if isinstance(function, Network) else None
        return rows if points is None else _some(np.concatenate([rows, points]))

    def _compared(self, module: CircuitModel, rows: np.ndarray) -> Agreement:
        # Coefficients were fitted on the rows, and training may know the answers by heart there.
        if not isinstance(module, LinearModule):
            rows = _some(rows)
            function = self.read(self.sklearn_model, rows.mean(axis=0))
            rows = rows_between(self._ranging(function, rows))
        counts = module.overflow_count, module.clipped_count
        found = super()._compared(module, rows)
        module.overflow_count, module.clipped_count = counts  # these are no rows of users
        return found

    def _prepared(self, network: Network, rows: np.ndarray, options: NetworkBits) -> Network:
        found = steadied(network, rows, options.precision, self.max_points)
        if options.n_bits is None:
            # What bears the errors of few bits may be another function, which more do not mend.
            wanted = network(rows)
            for bits in range(USUAL_BITS + 1, _MOST_BITS + 1):
                if least_r2(found(rows), wanted) >= _LIKE_ENOUGH:
                    break
                found = steadied(network, rows, Precision(bits, bits), self.max_points)
        return found


def _some(rows: np.ndarray) -> np.ndarray:
    """Different rows: not too many, and at least two, as a range needs.

    Their order and how often they are given change nothing, as in training.
    """
    rows = np.unique(rows, axis=0)
    found = rows[:: -(-len(rows) // CALIBRATION_ROWS)]
    return found if len(found) > 1 else np.repeat(found, 2, axis=0)
