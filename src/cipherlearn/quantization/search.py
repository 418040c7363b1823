"""Finding the bits of every layer: the cheapest circuit that is accurate enough.

Candidates are measured, not predicted: each is quantized on a part of the calibration rows, scored
on the others with the errors of its encrypted execution, and priced by the engine. First all layers
are treated alike, from cheap to dear. From the first candidate that is good enough, single layers
are then made cheaper, the one first that saves most for the accuracy it costs, as long as the whole
stays good enough (greedy descent on measured sensitivity, after HAWQ-V3, arXiv 2011.10680).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from cipherlearn.circuit import count_lookups, simulate
from cipherlearn.engines import CompileOptions, get_engine
from cipherlearn.engines.estimate import estimate_cost
from cipherlearn.engines.progress import bar
from cipherlearn.errors import (
    CalibrationWarning,
    CompilationError,
    InvalidParameterError,
    InvalidShapeError,
    LookupWidthError,
    warn,
)
from cipherlearn.quantization.agreement import agreement_score, score_against_labels
from cipherlearn.quantization.lookup_aware import PostTrainingLookupQuantization
from cipherlearn.quantization.n_bits import LayerBits
from cipherlearn.quantization.quantized_module import QuantizedModule

#: Bits of all layers alike, from cheap to dear: kept by rounding, weights, activations.
LADDER = (
    (3, 3, 3),
    (3, 4, 4),
    (4, 3, 3),
    (4, 4, 4),
    (5, 4, 4),
    (5, 5, 5),
    (6, 5, 5),
    (6, 6, 6),
    (7, 6, 7),
    (8, 6, 8),
)

#: Bits of the model's inputs. They meet no look-up before the first rounding, so they are free.
INPUT_BITS = 6

#: Parts that the calibration rows are cut into: each is scored by what the others gave.
FOLDS = 3

#: Simulated executions that a score is the mean of: errors of rounding are random.
DRAWS = 2

#: Candidates that are measured at most.
MOST_CANDIDATES = 48

#: Complexities that differ by less than this factor are the same.
SAME_PRICE = 1.001

#: Candidates are not measured further where one takes so many times the seconds allowed.
FAR_TOO_LONG = 4

#: What scores differ by although they are the same.
ROUNDING_ERROR = 1e-9

_FEWEST = {"kept": 3, "weights": 2, "inputs": 2}


@dataclass(frozen=True)
class Candidate:
    """Bits of all layers.

    Parameters
    ----------
    common : LayerBits
    single : tuple of (str, LayerBits)
        Layers that differ, by the name of their node.
    """

    common: LayerBits
    single: tuple[tuple[str, LayerBits], ...] = ()

    def of(self, layer: str) -> LayerBits:
        """Bits of one layer."""
        return dict(self.single).get(layer, self.common)

    def with_layer(self, layer: str, bits: LayerBits) -> Candidate:
        """The same, but for one layer."""
        single = {**dict(self.single), layer: bits}
        return Candidate(self.common, tuple(sorted(single.items())))

    def __str__(self) -> str:
        rest = "".join(f"; {name}: {bits}" for name, bits in self.single)
        return f"{self.common}{rest}"


@dataclass(frozen=True)
class Point:
    """A candidate that was measured.

    Parameters
    ----------
    candidate : Candidate
    complexity : float
        The engine's figure for one prediction; infinite if it cannot be compiled.
    seconds : float
        Estimated time of one prediction on this machine.
    score : float
        Accuracy or R2 on rows that were not calibrated on, against labels, or else against the
        float model.
    loss : float
        Mean squared error of the outputs, as a share of their variance.
    layers : mapping of str to (bool, bool)
        For each layer with chosen weights: whether it comes after a look-up, and before one.
    """

    candidate: Candidate
    complexity: float
    seconds: float
    score: float
    loss: float
    layers: Mapping[str, tuple[bool, bool]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class SearchResult:
    """What `search_bits` saw; prints as a table of its Pareto front.

    Parameters
    ----------
    chosen : Point
    points : tuple of Point
        Everything that was measured, in order.
    reference : float
        Score of the float model.
    max_drop : float
    max_seconds : float or None
    """

    chosen: Point
    points: tuple[Point, ...]
    reference: float
    max_drop: float
    max_seconds: float | None = None

    @property
    def front(self) -> tuple[Point, ...]:
        """The candidates that no other one beats, from cheap to dear."""
        best, front = -np.inf, []
        for point in sorted(self.points, key=lambda p: (p.complexity, -p.score, p.loss)):
            if np.isfinite(point.complexity) and point.score > best:
                front.append(point)
                best = point.score
        return tuple(front)

    @property
    def missed_by(self) -> float:
        """How much more than `max_drop` the chosen candidate loses; 0 if it does not."""
        missed = self.reference - self.chosen.score - self.max_drop
        return missed if missed > ROUNDING_ERROR else 0.0

    def __str__(self) -> str:
        lines = [f"float model: {self.reference:.4f}", "complexity  seconds   score  bits"]
        for point in self.front:
            mark = "*" if point is self.chosen else " "
            numbers = f"{point.complexity:10.3g} {point.seconds:8.3g}  {point.score:6.4f}"
            lines.append(f"{numbers} {mark} {point.candidate}")
        return "\n".join(lines)


def search_bits(
    numpy_model: Any,
    *calibration_data: np.ndarray,
    labels: Any = None,
    max_drop: float = 0.01,
    max_seconds: float | None = None,
    exact: bool = False,
    options: CompileOptions | None = None,
    random_state: int = 0,
    keep_onnx: bool = True,
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
        Classes or targets of the rows. Default: results are compared with the float model's.
    max_drop : float, default=0.01
        Accuracy (or R2) that may be lost against the float model.
    max_seconds : float, optional
        Longest estimated time of a prediction on this machine. Where it is given, the most accurate
        candidate within it is taken, and ``max_drop`` does not stop the search.
    exact : bool, default=False
        Whether accumulators are rounded exactly (dearer) instead of approximately.
    options : CompileOptions, optional
        Error probability that candidates are priced and simulated for.
    random_state : int, default=0
        Seed of the parts and of simulated errors.
    keep_onnx : bool, default=True
        Whether the module keeps the float model.

    Returns
    -------
    QuantizedModule
        Quantized on all rows; its ``search`` attribute is a `SearchResult`.

    Raises
    ------
    InvalidParameterError
        If ``max_drop`` is no share, ``max_seconds`` is not positive, or no candidate can be
        compiled at all.
    """
    if not 0 <= max_drop <= 1:
        raise InvalidParameterError(f"max_drop is a share from 0 to 1, not {max_drop!r}")
    if max_seconds is not None and not max_seconds > 0:
        raise InvalidParameterError(f"max_seconds must be positive, not {max_seconds!r}")
    trial = _Trial(
        numpy_model, calibration_data, labels, options or CompileOptions.of(), random_state
    )
    search = _Search(trial, max_drop, max_seconds, exact)
    result = search.run()
    module = _quantize(numpy_model, result.chosen.candidate, calibration_data, keep_onnx)
    module.search = result
    return module


def _quantize(
    numpy_model: Any, candidate: Candidate, data: Sequence[np.ndarray], keep_onnx: bool
) -> QuantizedModule:
    converter = PostTrainingLookupQuantization.of_layers(
        numpy_model, candidate.common, dict(candidate.single), INPUT_BITS
    )
    return converter.quantize_module(*data, keep_onnx=keep_onnx)


class _Search:
    """One search over a trial's candidates."""

    def __init__(
        self, trial: _Trial, max_drop: float, max_seconds: float | None, exact: bool
    ) -> None:
        self.trial = trial
        self.max_drop = max_drop
        self.max_seconds = max_seconds
        self.exact = exact
        self.points: dict[Candidate, Point] = {}

    def run(self) -> SearchResult:
        with warnings.catch_warnings():
            # Candidates are meant to fail; the chosen one is quantized again, and warns.
            warnings.simplefilter("ignore", CalibrationWarning)
            chosen = self._best(self._descend(self._first()))
        reference = self.trial.reference
        result = SearchResult(
            chosen, tuple(self.points.values()), reference, self.max_drop, self.max_seconds
        )
        if self.max_seconds is None and result.missed_by:
            warn(
                f"no candidate loses at most {self.max_drop:g} against the float model "
                f"({reference:.4f}); the best found scores {chosen.score:.4f}, which misses it by "
                f"{result.missed_by:.4f}. Allow a larger max_drop, or give more calibration data",
                CalibrationWarning,
            )
        if self.max_seconds is not None and chosen.seconds > self.max_seconds:
            warn(
                f"no candidate takes at most {self.max_seconds:g} s; the cheapest one is estimated "
                f"at {chosen.seconds:.3g} s. Make the model smaller (fewer neurons or channels)",
                CalibrationWarning,
            )
        return result

    def _measure(self, candidate: Candidate) -> Point:
        if candidate not in self.points:
            self.points[candidate] = self.trial.measure(candidate)
        return self.points[candidate]

    def _is_good(self, point: Point) -> bool:
        if not np.isfinite(point.complexity):
            return False
        if self.max_seconds is not None:
            return point.seconds <= self.max_seconds
        return self.trial.reference - point.score <= self.max_drop + ROUNDING_ERROR

    def _best(self, found: Point) -> Point:
        """The most accurate of the good candidates that cost the same as one."""
        if self.max_seconds is not None or not self._is_good(found):
            return found
        good = [point for point in self.points.values() if self._is_good(point)]
        alike = [point for point in good if point.complexity <= SAME_PRICE * found.complexity]
        return max(alike, key=_merit)

    def _rungs(self) -> Iterator[Point]:
        """Candidates with all layers alike, measured one by one."""
        for kept, weights, inputs in bar(LADDER, "trying bits"):
            yield self._measure(Candidate(LayerBits(weights, inputs, kept, self.exact)))

    def _first(self) -> Point:
        """The cheapest good candidate with all layers alike; the best one if none is good."""
        if self.max_seconds is not None:
            return self._best_within(self.max_seconds)
        first: Point | None = None
        for point in self._rungs():
            # The next ones are as good a choice if they cost the same.
            if first is not None and point.complexity > SAME_PRICE * first.complexity:
                break
            if first is None and self._is_good(point):
                first = point
        return max(self._possible(), key=_merit) if first is None else self._best(first)

    def _best_within(self, seconds: float) -> Point:
        for point in self._rungs():
            if np.isfinite(point.seconds) and point.seconds > FAR_TOO_LONG * seconds:
                break
        good = [point for point in self._possible() if self._is_good(point)]
        if good:
            return max(good, key=_merit)
        return min(self._possible(), key=lambda point: point.complexity)

    def _possible(self) -> list[Point]:
        """What can be compiled at all, of what was measured."""
        possible = [point for point in self.points.values() if np.isfinite(point.complexity)]
        if not possible:
            raise InvalidParameterError(
                "no candidate can be compiled: see the error that compile() gives for n_bits=4, "
                "rounding_threshold_bits=4"
            )
        return possible

    def _descend(self, start: Point) -> Point:
        """Make single layers cheaper, or, within a budget of seconds, better."""
        current = start
        if not self._is_good(start):
            return start
        while len(self.points) < MOST_CANDIDATES:
            moves = [self._measure(candidate) for candidate in self._moves(current)]
            good = [point for point in moves if self._is_good(point)]
            if self.max_seconds is not None:
                better = [point for point in good if _merit(point) > _merit(current)]
                if not better:
                    break
                current = max(better, key=_merit)
                continue
            limit = current.complexity / SAME_PRICE
            cheaper = [point for point in good if point.complexity < limit]
            if not cheaper:
                break
            now = current
            current = max(
                cheaper,
                key=lambda p: (now.complexity - p.complexity) / max(p.loss - now.loss, 1e-9),
            )
        return current

    def _moves(self, point: Point) -> Iterator[Candidate]:
        """Candidates in which one layer has one bit less; one more, within a budget."""
        step = -1 if self.max_seconds is None else 1
        for layer, (follows, feeds) in point.layers.items():
            bits = point.candidate.of(layer)
            names = ["kept"] * feeds + ["weights", "inputs"] * follows
            for name in names:
                changed = getattr(bits, name) + step
                if _FEWEST[name] <= changed <= 8:
                    yield point.candidate.with_layer(layer, replace(bits, **{name: changed}))


class _Trial:
    """Measures candidates on calibration data that is cut into parts."""

    def __init__(
        self,
        numpy_model: Any,
        data: Sequence[np.ndarray],
        labels: Any,
        options: CompileOptions,
        random_state: int,
    ) -> None:
        self.numpy_model = numpy_model
        self.data = [np.asarray(array) for array in data]
        self.options = options
        self.random_state = random_state
        rows = len(self.data[0])
        self.labels = None if labels is None else np.asarray(labels)
        if self.labels is not None and len(self.labels) != rows:
            raise InvalidShapeError(
                f"{rows} rows were given with labels of shape {self.labels.shape}"
            )
        if rows < 2 * FOLDS:
            raise InvalidParameterError(
                f"n_bits='auto' needs {2 * FOLDS} calibration rows at least, to calibrate on some "
                f"and score on others; {rows} were given"
            )
        order = np.random.default_rng(random_state).permutation(rows)
        self.parts = np.array_split(order, FOLDS)

    @cached_property
    def outputs(self) -> tuple[np.ndarray, ...]:
        """The float model's outputs."""
        found = self.numpy_model.numpy_forward(*self.data)
        return tuple(np.asarray(output, dtype=np.float64) for output in found)

    @cached_property
    def reference(self) -> float:
        """Score of the float model."""
        return 1.0 if self.labels is None else score_against_labels(self.outputs[0], self.labels)

    def measure(self, candidate: Candidate) -> Point:
        """Score and price of a candidate."""
        complexity, seconds, layers = np.inf, np.inf, {}
        scores, losses, sizes = [], [], []
        for number, part in enumerate(self.parts):
            known = np.concatenate([p for i, p in enumerate(self.parts) if i != number])
            try:
                module = _quantize(
                    self.numpy_model, candidate, [array[known] for array in self.data], False
                )
                if not number:
                    program = get_engine().compile(module.circuit, self.options)
                    cost = estimate_cost(module.circuit, program)
                    complexity, seconds = cost.complexity, cost.estimated_seconds
                    layers = module.chosen_layers()
            except (CompilationError, LookupWidthError):
                return Point(candidate, np.inf, np.inf, -np.inf, np.inf)
            score, loss = self._score(module, part)
            scores.append(score)
            losses.append(loss)
            sizes.append(len(part))
        weights = np.array(sizes) / sum(sizes)
        return Point(
            candidate, complexity, seconds, float(weights @ scores), float(weights @ losses), layers
        )

    def _score(self, module: QuantizedModule, part: np.ndarray) -> tuple[float, float]:
        samples = module.samples(*(array[part] for array in self.data))
        wanted = [output[part] for output in self.outputs]
        scores, losses = [], []
        for draw in range(DRAWS):
            noisy = simulate(
                module.circuit,
                *samples,
                p_error=self.options.p_error_of(count_lookups(module.circuit).total),
                random_state=self.random_state + draw,
            )
            found = module.real_outputs(noisy.outputs)
            losses.append(np.mean([_loss(f, w) for f, w in zip(found, wanted, strict=True)]))
            scores.append(self._score_of(found, wanted, part))
        return float(np.mean(scores)), float(np.mean(losses))

    def _score_of(
        self, found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], part: np.ndarray
    ) -> float:
        if self.labels is not None:
            return score_against_labels(found[0], self.labels[part])
        return min(agreement_score(f, w) for f, w in zip(found, wanted, strict=True))


def _merit(point: Point) -> tuple[float, float]:
    """What candidates are ordered by where their price does not decide."""
    return point.score, -point.loss


def _loss(found: np.ndarray, wanted: np.ndarray) -> float:
    variance = float(wanted.var())
    return float(np.square(found - wanted).mean()) / (variance if variance > 0 else 1.0)
