"""Prices and scores of candidates, on calibration data that is cut into parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cipherlearn.circuit import count_lookups, simulate
from cipherlearn.engines import CompileOptions, get_engine
from cipherlearn.engines.estimate import estimate_cost
from cipherlearn.errors import (
    CompilationError,
    InvalidParameterError,
    LookupWidthError,
)
from cipherlearn.onnx import Graph
from cipherlearn.quantization.calibration import check_calibration_data
from cipherlearn.quantization.post_training import ONNXConverter
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.scoring import Labels, agreement_score
from cipherlearn.quantization.search.result import Point
from cipherlearn.quantization.search.space import Candidate

#: Parts that the calibration rows are cut into: each is scored by what the others gave.
FOLDS = 3

#: Simulated executions that a score is the mean of: errors of rounding are random.
DRAWS = 2

#: Samples of the rows that the uncertainty of a score is taken from.
RESAMPLES = 50


@dataclass(frozen=True)
class Price:
    """What a candidate costs, before it is scored.

    Parameters
    ----------
    complexity, seconds
        As for `Point`; infinite if it cannot be compiled.
    layers, operands
        As for `Point`.
    module : QuantizedModule or None
        Quantized on all parts but the first.
    reason : str
        Why it cannot be compiled.
    """

    complexity: float
    seconds: float
    layers: Mapping[str, tuple[bool, bool]]
    module: QuantizedModule | None
    reason: str = ""
    operands: frozenset[str] = frozenset()


class Trial:
    """Measures candidates.

    Parameters
    ----------
    numpy_model : NumpyModule
    data : sequence of numpy.ndarray
    labels : array-like or None
    options : CompileOptions
    random_state : int
    converter : callable
        The quantizer of a candidate.

    Raises
    ------
    InvalidShapeError
        If there are not as many labels as rows.
    InvalidParameterError
        If there are too few rows to cut.
    """

    def __init__(
        self,
        numpy_model: Any,
        data: Sequence[np.ndarray],
        labels: Any,
        options: CompileOptions,
        random_state: int,
        converter: Callable[[Candidate], ONNXConverter],
    ) -> None:
        self.numpy_model = numpy_model
        self.data = check_calibration_data(Graph.from_model(numpy_model.onnx_model), data)
        self.options = options
        self.random_state = random_state
        self.converter = converter
        rows = len(self.data[0])
        if rows < 2 * FOLDS:
            raise InvalidParameterError(
                f"choosing bits needs {2 * FOLDS} calibration rows at least, to calibrate on some "
                f"and score on others; {rows} were given. Give more rows, or n_bits as a number"
            )
        order = np.random.default_rng(random_state).permutation(rows)
        self.parts = np.array_split(order, FOLDS)
        self.labels = None if labels is None else Labels.of(labels, self.outputs[0])

    @cached_property
    def outputs(self) -> tuple[np.ndarray, ...]:
        """The float model's outputs."""
        found = self.numpy_model.numpy_forward(*self.data)
        return tuple(np.asarray(output, dtype=np.float64) for output in found)

    @cached_property
    def reference(self) -> float:
        """Score of the float model."""
        return 1.0 if self.labels is None else self.labels.score(self.outputs[0])

    def price(self, candidate: Candidate) -> Price:
        """What a candidate costs."""
        try:
            module = self._without(candidate, 0)
            program = get_engine().compile(module.circuit, self.options)
        except (CompilationError, LookupWidthError) as error:
            return Price(np.inf, np.inf, {}, None, f"{candidate}: {error}")
        cost = estimate_cost(module.circuit, program)
        return Price(
            cost.complexity,
            cost.estimated_seconds,
            module.weight_layers(),
            module,
            operands=module.operand_layers(),
        )

    def score(self, candidate: Candidate, price: Price) -> Point:
        """How good a candidate is that can be compiled: every row is scored by the other parts."""
        draws = [[np.empty_like(output) for output in self.outputs] for _ in range(DRAWS)]
        for number, part in enumerate(self.parts):
            known = None if number else price.module
            module = self._without(candidate, number) if known is None else known
            samples = module.samples(*(array[part] for array in self.data))
            p_error = self.options.p_error_of(count_lookups(module.circuit).total)
            for draw, outputs in enumerate(draws):
                state = self.random_state + draw
                noisy = simulate(module.circuit, *samples, p_error=p_error, random_state=state)
                for output, found in zip(outputs, module.real_outputs(noisy.outputs), strict=True):
                    output[part] = found
        rows = np.arange(len(self.data[0]))
        pairs = [list(zip(outputs, self.outputs, strict=True)) for outputs in draws]
        return Point(
            candidate,
            price.complexity,
            price.seconds,
            float(np.mean([self._score(outputs, rows) for outputs in draws])),
            float(np.mean([[_loss(f, w) for f, w in pair] for pair in pairs])),
            self._uncertainty(draws),
            price.layers,
            price.operands,
        )

    def _uncertainty(self, draws: Sequence[Sequence[np.ndarray]]) -> float:
        """Standard error of what is lost against the float model, from resampled rows."""
        random = np.random.default_rng(self.random_state)
        drops = []
        for _ in range(RESAMPLES):
            rows = random.integers(0, len(self.data[0]), len(self.data[0]))
            score = np.mean([self._score(outputs, rows) for outputs in draws])
            drops.append(self._score(self.outputs, rows) - score)
        return float(np.std(drops))

    def _without(self, candidate: Candidate, left_out: int) -> QuantizedModule:
        known = np.concatenate([part for i, part in enumerate(self.parts) if i != left_out])
        rows = (array[known] for array in self.data)
        return self.converter(candidate).quantize_module(*rows, keep_onnx=False)

    def _score(self, found: Sequence[np.ndarray], rows: np.ndarray) -> float:
        if self.labels is not None:
            return self.labels.score(found[0][rows], rows)
        pairs = zip(found, self.outputs, strict=True)
        return min(agreement_score(f[rows], w[rows]) for f, w in pairs)


def _loss(found: np.ndarray, wanted: np.ndarray) -> float:
    variance = float(wanted.var())
    return float(np.square(found - wanted).mean()) / (variance if variance > 0 else 1.0)
