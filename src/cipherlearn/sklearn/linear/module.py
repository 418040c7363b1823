"""An affine function as a circuit: one product of integers, and what the client adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.circuit import Builder, Circuit, Evaluation
from cipherlearn.circuit.values import IntValue
from cipherlearn.engines import CompileOptions, Engine, Program
from cipherlearn.engines.execution import FheMode, run_circuit
from cipherlearn.errors import InvalidParameterError, NotCompiledError
from cipherlearn.quantization.circuit_model import CircuitModel
from cipherlearn.quantization.n_bits import bits_by_key
from cipherlearn.quantization.quantizers import (
    MAXIMUM_BITS,
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
    check_bits,
    quantizer_of_results,
)
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.maps import FeatureMap, Plain

#: Names of the input and of the result.
FEATURES, SCORES = "features", "scores"

#: Most bits of features, and of weights.
MOST_BITS = 16

#: Most rows that are encrypted together.
BATCH_ROWS = 64


@dataclass(frozen=True)
class LinearBits:
    """Bits of features and of weights.

    Parameters
    ----------
    inputs, weights : int
    """

    inputs: int
    weights: int

    @classmethod
    def of(cls, n_bits: Any) -> LinearBits:
        """Bits as users give them: one number, or a dictionary.

        Raises
        ------
        InvalidParameterError, UnknownKeyError
            If it is neither, a number is out of range, or a key is missing or unknown.
        """
        keys = ("op_inputs", "op_weights")
        if not isinstance(n_bits, dict):
            bits = check_bits(n_bits, "n_bits", MOST_BITS)
            return cls(bits, bits)
        given = bits_by_key(n_bits, dict.fromkeys(keys, (1, MOST_BITS)), keys)
        return cls(*(given[key] for key in keys))

    @property
    def as_dict(self) -> dict[str, int]:
        """As `of` takes them."""
        return {"op_inputs": self.inputs, "op_weights": self.weights}


@dataclass(frozen=True, eq=False)
class Box:
    """Ranges of features: the client brings each to [0, 1] before it quantizes.

    Parameters
    ----------
    low, span : numpy.ndarray of float64, shape (features,)
        What does not vary has a span of zero, and no weight: it is part of the constant.
    """

    low: np.ndarray
    span: np.ndarray

    @classmethod
    def around(cls, rows: np.ndarray, known: Box | None = None) -> Box:
        """The smallest box around rows, and around another box."""
        low, high = rows.min(axis=0), rows.max(axis=0)
        if known is not None:
            low, high = np.minimum(low, known.low), np.maximum(high, known.low + known.span)
        return cls(low, high - low)

    @classmethod
    def unit(cls, n_features: int) -> Box:
        """Of features from 0 to 1."""
        return cls(np.zeros(n_features), np.ones(n_features))

    def units(self, rows: np.ndarray) -> np.ndarray:
        """Rows with features from 0 to 1."""
        return np.asarray((rows - self.low) / np.where(self.span > 0, self.span, 1.0))

    def in_units(self, affine: Affine) -> Affine:
        """The same function of `units`."""
        return Affine(affine.weights * self.span[:, None], affine(self.low[None])[0])


class LinearModule(CircuitModel):
    """An affine function between the integers that the client encrypts and those it decrypts.

    Each feature is quantized over its own range, and each output's weights, in units of these
    ranges, over theirs: a weight is as fine as it matters. What remains constant is added by the
    client.

    Parameters
    ----------
    affine : Affine
        Of mapped features.
    box : Box
        Of mapped features.
    bits : LinearBits
    mapped : FeatureMap, optional
        What the client computes of its features. Default: nothing.

    Attributes
    ----------
    weights : numpy.ndarray of int64, shape (features, outputs)
    """

    def __init__(
        self, affine: Affine, box: Box, bits: LinearBits, mapped: FeatureMap | None = None
    ) -> None:
        super().__init__((FEATURES,), (SCORES,))
        self.affine, self.box, self.bits = affine, box, bits
        self.mapped = mapped or Plain.around(np.zeros((1, affine.n_features)))
        in_units = box.in_units(affine)
        largest = np.abs(in_units.weights).max(axis=0, initial=0.0)
        step = np.where(largest > 0, largest, 1.0) / max(2 ** (bits.weights - 1) - 1, 1)
        self.weights = np.rint(in_units.weights / step).astype(np.int64)
        self.constant = in_units.constant
        self.input_shapes = ((1, affine.n_features),)
        top = 2**bits.inputs - 1
        unit = UniformQuantizationParameters(1.0 / top, 0, 0)
        stats = MinMaxQuantizationStats(1.0, 0.0)
        self.input_quantizers = [UniformQuantizer(QuantizationOptions(bits.inputs), stats, unit)]
        self.output_quantizers = [self._result_quantizer(step / top)]
        self._batched: dict[int, Program] = {}
        self._engine: Engine | None = None
        self._options: CompileOptions | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_batched": {}, "_engine": None, "_options": None}

    def _result_quantizer(self, scale: np.ndarray) -> UniformQuantizer:
        interval = self.circuit.output_nodes[0].interval
        if interval.width > MAXIMUM_BITS:
            n_features = len(self.weights)
            fitting = (MAXIMUM_BITS - (n_features - 1).bit_length()) // 2
            raise InvalidParameterError(
                f"n_bits: {n_features} features of {self.bits.inputs} bits (op_inputs) times "
                f"weights of {self.bits.weights} bits (op_weights) add up to {interval.width} "
                f"bits, and an encrypted result has {MAXIMUM_BITS} at most. With so many features, "
                f"n_bits={fitting} fits whatever the weights are"
            )
        return quantizer_of_results(interval, scale)

    def _build_circuit(self) -> Circuit:
        return self._circuit_of(1)

    def _circuit_of(self, rows: int) -> Circuit:
        """The circuit for so many rows at once."""
        builder = Builder()
        features = builder.input(FEATURES, (rows, len(self.weights)), 0, 2**self.bits.inputs - 1)
        with builder.scope("linear"):
            # No engine computes a constant: the client leaves this one out.
            weights = self.weights if self.weights.any() else np.ones_like(self.weights)
            scores: IntValue = features @ weights
        return builder.finish([scores], [SCORES])

    def pre_processing(self, *values: Any) -> tuple[Any, ...]:
        """Mapped features, from 0 to 1."""
        return tuple(None if v is None else self.box.units(self.mapped(v)) for v in values)

    def post_processing(self, *values: np.ndarray) -> np.ndarray:
        """Scores, of shape (rows, outputs)."""
        return np.asarray(values[0] * self.weights.any(axis=0) + self.constant)

    def _compiled(self, engine: Engine, options: CompileOptions) -> Program:
        self._batched = {}
        self._engine, self._options = engine, options
        return super()._compiled(engine, options)

    def _discard_circuit(self) -> None:
        super()._discard_circuit()
        self._batched = {}

    def _evaluated(self, q_x: Any, mode: FheMode) -> Evaluation:
        """As for all models; encrypted rows are run many at a time."""
        (rows,) = q_x
        if mode is not FheMode.EXECUTE or len(rows) < 2 or self.fhe_circuit is None:
            return super()._evaluated(q_x, mode)
        program = self.batch_program(len(rows))
        size = program.circuit.inputs[0].shape[0]
        padded = np.concatenate([rows, np.zeros((-len(rows) % size, *rows.shape[1:]), rows.dtype)])
        batches = padded.reshape(-1, size, *rows.shape[1:])
        found = run_circuit(program.circuit, program, batches, fhe=mode)
        results = tuple(of.reshape(-1, 1, of.shape[-1])[: len(rows)] for of in found.outputs)
        return Evaluation(results, found.overflows)

    def batch_program(self, rows: int) -> Program:
        """The program for so many rows, or for as many of them as are encrypted together.

        Parameters
        ----------
        rows : int

        Returns
        -------
        Program
            Its input has shape (size, features): a power of 2, at most `BATCH_ROWS`.

        Raises
        ------
        NotCompiledError
            If the model is not compiled.
        """
        size = min(BATCH_ROWS, 2 ** (rows - 1).bit_length())
        if size not in self._batched:
            if self._engine is None:
                raise NotCompiledError("the model is not compiled: call compile() first")
            self._batched[size] = self._engine.compile(self._circuit_of(size), self._options)
        return self._batched[size]
