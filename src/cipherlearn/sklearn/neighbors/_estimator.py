"""What estimators of nearest references share: reading, quantizing, and who selects."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.quantization.circuit_model import CircuitModel
from cipherlearn.quantization.n_bits import bits_by_key
from cipherlearn.quantization.quantizers import check_bits
from cipherlearn.sklearn._base import check_choice
from cipherlearn.sklearn._wrapping import WrappingEstimator
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.module import Box, LinearBits, LinearModule
from cipherlearn.sklearn.neighbors.distances import Grid, Metric, References
from cipherlearn.sklearn.neighbors.module import SelectionModule
from cipherlearn.sklearn.neighbors.revealed import Distances, SquaredDistances, distance_module
from cipherlearn.sklearn.neighbors.selection import Selection

if TYPE_CHECKING:
    from cipherlearn.engines import Program

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
    """A method that there is with ``reveal="distances"`` only, and where the float model has it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        name = method.__name__

        def bound(self: Any) -> Any:
            if self.reveal != "distances":
                raise AttributeError(
                    f"{name} needs the distances, and the client gets the selection only: set "
                    "reveal='distances' (it tells the client where the references are), and fit"
                )
            model = self.sklearn_model
            if not hasattr(self._unfitted() if model is None else model, name):
                raise AttributeError(
                    f"a {self.float_class.__name__} with these parameters has no {name}"
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
    module_ : SelectionModule, Distances or LinearModule
        The last one of counts that are the same for all rows.
    """

    own_parameters: ClassVar[Mapping[str, Any]] = {"n_bits": 5, "reveal": "selection"}

    ways_to_agree: ClassVar[tuple[str, ...]] = (
        "more n_bits (both 'op_inputs' and 'op_distances')",
        "reveal='distances'",
    )

    #: Parameters that scikit-learn predicts by, and that the module is built with.
    built_with: ClassVar[tuple[str, ...]] = ()

    takes_steps: ClassVar[bool] = True

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

    @classmethod
    def _revealed(cls, model: Any) -> tuple[References, np.ndarray | None]:
        """What the client is told the distances of, and what is added to the sums."""
        return cls.read(model), cls._offsets(model)

    @abstractmethod
    def _selection(self, model: Any, grid: Grid, bits: int) -> Selection | None:
        """Which references of a float model are selected; None for all of them."""

    @abstractmethod
    def _counted(self, model: Any) -> np.ndarray:
        """What is counted of the selected references: (references, counts)."""

    def _metric(self) -> Metric:
        """The metric that parameters name."""
        return Metric.of(self)

    @property
    @abstractmethod
    def _told(self) -> tuple[str, str, str]:
        """What the client learns: before it encrypts, by a selection, by distances."""

    @property
    def client_learns(self) -> str:
        """What whoever encrypts rows, and gets the answers, learns of the training data."""
        self.check_model_is_fitted()
        before, selection, distances = self._told
        if self._folded:
            before = f"{before}, and by the points between how the steps move them"
        return f"{before}; {distances if self._reveals else selection}"

    def _options(self) -> SelectionBits | LinearBits:
        check_choice(self.reveal, "reveal", REVEALED)
        self._metric()
        reveals = self.reveal == "distances"
        return LinearBits.of(self.n_bits) if reveals else SelectionBits.of(self.n_bits)

    @property
    def _reveals(self) -> bool:
        """Whether the client gets the distances: the fitted module decides, whatever is set."""
        return isinstance(self.module_, Distances)

    def _built_with(self) -> tuple[str, ...]:
        """Parameters that must not change once the model is fitted."""
        return self.built_with

    def _check_parameters(self) -> None:
        """Raise an error if what the module is built with was set after `fit`."""
        known = {name: getattr(self.sklearn_model, name) for name in self._built_with()}
        known["reveal"] = "distances" if self._reveals else "selection"
        for name, value in known.items():
            given = getattr(self, name)
            if not _is_same(given, value):
                raise InvalidParameterError(
                    f"{name}={given!r} was set after fit, and the model was built with "
                    f"{name}={value!r}: call fit again, or set it back"
                )

    def _quantized(self, model: Any, rows: np.ndarray, options: Any, before: Any) -> CircuitModel:
        self.n_bits_ = options.as_dict
        known = None if before is None else before.box
        box = self._box(model, self._taken(rows), known, options.inputs)
        if isinstance(options, LinearBits):
            if self._folded:
                raise ModelError("with reveal='distances' the client computes with its features")
            references, offsets = self._revealed(model)
            return distance_module(references, box, options, offsets)
        grid, counted = Grid(box, options.inputs), self._counted(model)
        selection = self._selection(model, grid, options.distances)
        if self._folded:
            grid = grid.before(self._taken, rows)
            box = grid.box
        if selection is None:
            return _constant_module(box, options.inputs, counted.sum(axis=0))
        module = SelectionModule(grid, selection, counted)
        if module.is_constant:
            return _constant_module(box, options.inputs, module.forward(box.low[None])[0])
        return module

    def _box(self, model: Any, rows: np.ndarray, known: Box | None, bits: int) -> Box:
        """Ranges of the features."""
        del bits
        return Box.around(np.concatenate([rows, self.read(model).points]), known)

    def _raw(self, X: Any, fhe: Any) -> np.ndarray:
        self.check_model_is_fitted()
        self._check_parameters()
        return super()._raw(X, fhe)

    def compile(self, X: Any = None, **options: Any) -> Program:
        """Compile the model, as it was fitted: see `EncryptedEstimator.compile`."""
        self.check_model_is_fitted()
        self._check_parameters()
        return super().compile(X, **options)

    def post_processing(self, *values: np.ndarray) -> Any:
        """Predictions, or probabilities, of dequantized results.

        Raises
        ------
        InvalidParameterError
            If the distances themselves are needed, and not only their order: results are without
            what depends on the row alone.
        """
        self.check_model_is_fitted()
        self._check_parameters()
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


def _constant_module(box: Box, bits: int, counts: np.ndarray) -> LinearModule:
    """The module of counts that are the same for all rows: the client knows them."""
    affine = Affine(np.zeros((len(box.low), len(counts))), counts.astype(np.float64))
    return LinearModule(affine, box, LinearBits(bits, 1))


def _is_same(given: Any, known: Any) -> bool:
    """Whether two values of a parameter are equal; arrays within dictionaries as well."""
    if isinstance(given, dict) and isinstance(known, dict):
        return given.keys() == known.keys() and all(_is_same(given[k], known[k]) for k in given)
    return given is known or bool(np.array_equal(given, known))
