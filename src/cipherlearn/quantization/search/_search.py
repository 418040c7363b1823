"""The search for bits.

Candidates are measured, not predicted: each is quantized on a part of the calibration rows, priced
by the engine, and scored on the other rows with the errors of its encrypted execution. First all
layers are treated alike, from cheap to dear. From the first candidate that is good enough, single
layers are then made cheaper: every change is measured on its own (its sensitivity), and those are
kept, the one first that saves most for the accuracy it costs, that leave the whole good enough
(after HAWQ-V3, arXiv 2011.10680, with measured scores instead of a Hessian).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np

from cipherlearn.engines import CompileOptions
from cipherlearn.engines.progress import bar
from cipherlearn.errors import CalibrationWarning, CompilationError, InvalidParameterError, warn
from cipherlearn.quantization.lookup_aware import PostTrainingLookupQuantization
from cipherlearn.quantization.post_training import ONNXConverter
from cipherlearn.quantization.qat import PostTrainingQATImporter
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.search.result import ROUNDING_ERROR, Point, SearchResult
from cipherlearn.quantization.search.space import (
    FASTEST,
    INPUT_BITS,
    LADDER,
    Candidate,
    Move,
    SearchSpace,
)
from cipherlearn.quantization.search.trial import FOLDS, Price, Trial

#: Quantizations that a search makes at most; a candidate that is scored takes one for each part.
MOST_QUANTIZATIONS = 150

#: Standard errors that a score is taken to be worse: who picks the cheapest of many candidates that
#: just pass picks lucky ones.
CAUTION = 0.5

#: Complexities that differ by less than this factor are the same.
SAME_PRICE = 1.001

#: Candidates are not measured further where one takes so many times the seconds allowed.
FAR_TOO_LONG = 4


def search_bits(
    numpy_model: Any,
    *calibration_data: np.ndarray,
    labels: Any = None,
    max_drop: float = 0.01,
    max_seconds: float | None = None,
    space: SearchSpace | None = None,
    bounds: str = "observed",
    import_qat: bool = False,
    options: CompileOptions | None = None,
    random_state: int = 0,
    keep_onnx: bool = True,
    bypass: str = "hidden",
) -> QuantizedModule:
    """Quantize a model with the bits that cost least for the accuracy that is asked for.

    Parameters
    ----------
    numpy_model : NumpyModule
        The float model.
    *calibration_data : numpy.ndarray of float, each of shape (rows, *shape)
        One array an input of the model. A few hundred rows: what is kept apart to score on decides
        how finely accuracy can be told.
    labels : array-like of shape (rows,) or (rows, outputs), optional
        Classes or targets of the rows, for the first output. Default: results are compared with
        the float model's, and the output that agrees least counts.
    max_drop : float, default=0.01
        Accuracy (or R2) that may be lost against the float model.
    max_seconds : float, optional
        Longest estimated time of a prediction on this machine. Where it is given, the most accurate
        candidate within it is taken, and ``max_drop`` does not stop the search.
    space : SearchSpace, optional
        Bits that are not to be chosen. Default: everything is.
    bounds : {"observed", "proved"}, default="observed"
        Ranges of accumulators: see `PostTrainingLookupQuantization`.
    import_qat : bool, default=False
        Take over the grids that the model was trained with (`PostTrainingQATImporter`); the space
        must give their bits, and only rounding is chosen.
    options : CompileOptions, optional
        Error probability that candidates are priced and simulated for.
    random_state : int, default=0
        Seed of the parts and of simulated errors.
    keep_onnx : bool, default=True
        Whether the module keeps the float model.
    bypass : {"hidden", "none", "outputs"}, default="hidden"
        What goes around look-ups: see `PostTrainingLookupQuantization`.

    Returns
    -------
    QuantizedModule
        Quantized on all rows; its ``search`` attribute is a `SearchResult`.

    Raises
    ------
    InvalidParameterError
        If ``max_drop`` is no share, ``max_seconds`` is not positive, or there are too few rows.
    CompilationError
        If no candidate can be compiled; the message says why.
    """
    converter, result = find_bits(
        numpy_model,
        calibration_data,
        labels,
        max_drop,
        max_seconds,
        space or SearchSpace(),
        bounds,
        import_qat,
        options or CompileOptions.of(),
        random_state,
        bypass,
    )
    module = converter.quantize_module(*calibration_data, keep_onnx=keep_onnx)
    module.search = result
    return module


def find_bits(
    numpy_model: Any,
    calibration_data: Sequence[np.ndarray],
    labels: Any,
    max_drop: float,
    max_seconds: float | None,
    space: SearchSpace,
    bounds: str,
    import_qat: bool,
    options: CompileOptions,
    random_state: int = 0,
    bypass: str = "hidden",
) -> tuple[ONNXConverter, SearchResult]:
    """What `search_bits` quantizes with, and what it saw; parameters and errors are those of it."""
    check_goal(max_drop, max_seconds)
    if import_qat and (space.weights is None or space.inputs is None):
        raise InvalidParameterError(
            "import_qat=True takes over the bits that the model was trained for: give them as "
            "SearchSpace(weights=..., inputs=...)"
        )
    converter = partial(_converter, numpy_model, space, bounds, import_qat, bypass)
    trial = Trial(numpy_model, calibration_data, labels, options, random_state, converter)
    search = (
        _Cheapest(trial, space, max_drop)
        if max_seconds is None
        else _Best(trial, space, max_drop, max_seconds)
    )
    result = search.run()
    return converter(result.chosen.candidate), result


def check_goal(max_drop: Any, max_seconds: Any) -> None:
    """Raise `InvalidParameterError` if the goal of a search is none."""
    if not _is_number(max_drop) or not 0 <= max_drop <= 1:
        raise InvalidParameterError(f"max_drop is a share from 0 to 1, not {max_drop!r}")
    if max_seconds is not None and not (_is_number(max_seconds) and max_seconds > 0):
        raise InvalidParameterError(f"max_seconds must be positive, not {max_seconds!r}")


def _is_number(given: Any) -> bool:
    return isinstance(given, Real) and not isinstance(given, bool)


def _converter(
    numpy_model: Any,
    space: SearchSpace,
    bounds: str,
    import_qat: bool,
    bypass: str,
    candidate: Candidate,
) -> ONNXConverter:
    """The quantizer of a candidate."""
    common, layers = candidate.common, dict(candidate.single)
    inputs = space.model_inputs or max(INPUT_BITS, common.inputs)
    if not import_qat:
        return PostTrainingLookupQuantization.of_layers(
            numpy_model, common, layers, inputs, bounds, bypass
        )
    n_bits = {"model_inputs": inputs, "op_inputs": common.inputs, "op_weights": common.weights}
    importer = PostTrainingQATImporter(n_bits, numpy_model, common.rounding, bounds)
    importer.layers = layers
    # A model that declares its bits has these, whatever grids are looked for in others.
    importer.asked = {}
    return importer


class _Search(ABC):
    """What both searches share: measuring, and changing layers one by one."""

    #: Bits that a layer gets more in one change.
    step: int
    #: What all layers alike are tried with first.
    rungs: tuple[tuple[int, int, int], ...] = LADDER
    max_seconds: float | None = None

    def __init__(self, trial: Trial, space: SearchSpace, max_drop: float) -> None:
        self.trial = trial
        self.space = space
        self.max_drop = max_drop
        self.ladder = space.ladder(self.rungs)
        self.points: dict[Candidate, Point] = {}
        self.prices: dict[Candidate, Price] = {}
        self.left = MOST_QUANTIZATIONS
        self.reason = ""

    def run(self) -> SearchResult:
        """Search, and warn if nothing that was asked for was found."""
        with warnings.catch_warnings():
            # Candidates are meant to fail; the chosen one is quantized again, and warns.
            warnings.simplefilter("ignore", CalibrationWarning)
            chosen = self._last_choice(self._descend(self._first()))
        result = SearchResult(
            chosen,
            tuple(self.points.values()),
            self.trial.reference,
            self.max_drop,
            self.max_seconds,
        )
        self._warn(result)
        return result

    @abstractmethod
    def _first(self) -> Point:
        """The best candidate with all layers alike."""

    @abstractmethod
    def _is_good(self, point: Point) -> bool:
        """Whether a candidate is what is asked for."""

    @abstractmethod
    def _is_worth(self, price: Price, current: Point) -> bool:
        """Whether a candidate of this price, near to the current one, is to be scored."""

    @abstractmethod
    def _gain(self, point: Point, current: Point) -> float:
        """How much better a candidate is than the current one; not if it is 0 or less."""

    def _last_choice(self, found: Point) -> Point:
        """What is taken in the end."""
        return found

    @abstractmethod
    def _warn(self, result: SearchResult) -> None:
        """Warn if nothing that was asked for was found."""

    def _measure(self, candidate: Candidate, current: Point | None = None) -> Point | None:
        """Price and score; None if it cannot be compiled or is not worth to be scored."""
        if candidate in self.points:
            return self.points[candidate]
        if self.left < FOLDS or not self._may_be_worth(self.prices.get(candidate), current):
            return None
        self.left -= 1
        price = self.trial.price(candidate)
        self.prices[candidate] = replace(price, module=None)
        self.reason = price.reason or self.reason
        if not self._may_be_worth(price, current):
            return None
        self.left -= FOLDS - 1
        self.points[candidate] = self.trial.score(candidate, price)
        return self.points[candidate]

    def _may_be_worth(self, price: Price | None, current: Point | None) -> bool:
        """Whether a candidate is to be scored, as far as its price is known."""
        if price is None:
            return True
        return price.reason == "" and (current is None or self._is_worth(price, current))

    def _rungs(self) -> Iterator[Point]:
        """Candidates with all layers alike, measured one by one."""
        for candidate in bar(self.ladder, "trying bits"):
            point = self._measure(candidate)
            if point is not None:
                yield point

    def _best_of(self, points: list[Point]) -> Point:
        """The point of most merit."""
        if not points:
            raise CompilationError(f"no bits were found that can be compiled; {self.reason}")
        return max(points, key=lambda point: point.merit)

    def _descend(self, current: Point) -> Point:
        """Change single layers as long as something is gained."""
        before = None
        while self._is_good(current) and current is not before:
            before = current
            moves = list(self.space.moves(current.layers, self.step, current.operands))
            gains = {move: self._gained(move, before) for move in bar(moves, "changing layers")}
            for move in sorted(gains, key=lambda m: -gains[m]):
                if gains[move] > 0 and self._gained(move, current) > 0:
                    current = self.points[_applied(move, current)]
        return current

    def _gained(self, move: Move, current: Point) -> float:
        """What a move brings; 0 if it leads to nothing good."""
        candidate = move.of(current.candidate)
        point = None if candidate is None else self._measure(candidate, current)
        if point is None or not self._is_good(point):
            return 0.0
        return self._gain(point, current)


def _applied(move: Move, point: Point) -> Candidate:
    candidate = move.of(point.candidate)
    return point.candidate if candidate is None else candidate


class _Cheapest(_Search):
    """The cheapest candidate that loses no more than is allowed."""

    step = -1

    def _is_good(self, point: Point) -> bool:
        drop = self.trial.reference - point.score + CAUTION * point.uncertainty
        return drop <= self.max_drop + ROUNDING_ERROR

    def _is_worth(self, price: Price, current: Point) -> bool:
        return price.complexity < current.complexity / SAME_PRICE

    def _gain(self, point: Point, current: Point) -> float:
        if point.complexity >= current.complexity / SAME_PRICE:
            return 0.0
        return (current.complexity - point.complexity) / max(point.loss - current.loss, 1e-9)

    def _first(self) -> Point:
        first: Point | None = None
        for point in self._rungs():
            # The next ones are as good a choice if they cost the same.
            if first is not None and point.complexity > SAME_PRICE * first.complexity:
                break
            if first is None and self._is_good(point):
                first = point
        found = list(self.points.values())
        return self._best_of(found) if first is None else self._last_choice(first)

    def _last_choice(self, found: Point) -> Point:
        """The one nearest to the float model of the good candidates that cost the same.

        Their scores differ by a few rows; how far outputs are off tells more.
        """
        if not self._is_good(found):
            return found
        limit = SAME_PRICE * found.complexity
        good = [p for p in self.points.values() if self._is_good(p) and p.complexity <= limit]
        return min(good, key=lambda point: point.loss)

    def _warn(self, result: SearchResult) -> None:
        if result.missed_by:
            warn(
                f"no candidate loses at most {self.max_drop:g} against the float model "
                f"({result.reference:.4f}); the best found scores {result.chosen.score:.4f}, which "
                f"misses it by {result.missed_by:.4f}. Allow a larger max_drop, or give more "
                "calibration data",
                CalibrationWarning,
            )


class _Best(_Search):
    """The most accurate candidate within a number of seconds."""

    step = 1
    rungs = (*FASTEST, *LADDER)

    def __init__(
        self, trial: Trial, space: SearchSpace, max_drop: float, max_seconds: float
    ) -> None:
        super().__init__(trial, space, max_drop)
        self.max_seconds: float = max_seconds

    def _is_good(self, point: Point) -> bool:
        return point.seconds <= self.max_seconds

    def _is_worth(self, price: Price, current: Point) -> bool:
        del current
        return price.seconds <= self.max_seconds

    def _gain(self, point: Point, current: Point) -> float:
        if point.merit <= current.merit:
            return 0.0
        # Scores are shares of rows: equal ones are told apart by what outputs lose.
        return max(point.score - current.score, 0.0) + max(current.loss - point.loss, 1e-9)

    def _first(self) -> Point:
        for point in self._rungs():
            if point.seconds > FAR_TOO_LONG * self.max_seconds:
                break
        found = list(self.points.values())
        good = [point for point in found if self._is_good(point)]
        return self._best_of(good or _cheapest(found))

    def _warn(self, result: SearchResult) -> None:
        if not self._is_good(result.chosen):
            warn(
                f"no candidate takes at most {self.max_seconds:g} s; the fastest one is estimated "
                f"at {result.chosen.seconds:.3g} s. Make the model smaller (fewer neurons or "
                "channels)",
                CalibrationWarning,
            )


def _cheapest(points: list[Point]) -> list[Point]:
    least = min((point.complexity for point in points), default=0.0)
    return [point for point in points if point.complexity <= least]
