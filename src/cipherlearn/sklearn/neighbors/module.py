"""A selection of references as a model that can be encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cipherlearn.circuit import Builder, Circuit, count_lookups
from cipherlearn.circuit.values import IntValue
from cipherlearn.engines import CompileOptions, Engine, Program
from cipherlearn.engines.estimate import warn_of_cost
from cipherlearn.engines.execution import FheMode
from cipherlearn.quantization.calibration import report_clipped
from cipherlearn.quantization.circuit_model import CircuitModel
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
    quantizer_of_results,
)
from cipherlearn.sklearn.linear.module import Box
from cipherlearn.sklearn.neighbors.distances import Grid
from cipherlearn.sklearn.neighbors.selection import Selection

#: Names of the input and of the result.
BITS, COUNTS = "bits", "counts"

#: Rows whose bits are in memory at once, in the clear.
CHUNK_ROWS = 1024

_BIT = UniformQuantizer(
    QuantizationOptions(1),
    MinMaxQuantizationStats(1.0, 0.0),
    UniformQuantizationParameters(1.0, 0, 0),
)

#: Of features from 0 to 1, for counting those beyond.
_UNIT = UniformQuantizer(
    QuantizationOptions(8),
    MinMaxQuantizationStats(1.0, 0.0),
    UniformQuantizationParameters(1.0 / 255, 0, 0),
)


class SelectionModule(CircuitModel):
    """Counts of what the selected references are, from the unary bits that the client sends.

    Parameters
    ----------
    grid : Grid
    selection : Selection
    kinds : numpy.ndarray of int64, shape (references, counts)
        1 where a reference belongs to what is counted, 0 elsewhere.
    """

    def __init__(self, grid: Grid, selection: Selection, kinds: np.ndarray) -> None:
        super().__init__((BITS,), (COUNTS,))
        self.grid, self.selection, self.kinds = grid, selection, kinds
        self.input_shapes = ((1, grid.n_bits),)
        self.input_quantizers = [_BIT]
        interval = self.circuit.output_nodes[0].interval
        self.output_quantizers = [quantizer_of_results(interval, np.ones(kinds.shape[1]))]

    @property
    def is_constant(self) -> bool:
        """Whether the counts are the same for all rows: no engine computes that."""
        return bool(self.circuit.output_nodes[0].interval.is_constant)

    @property
    def box(self) -> Box:
        """Ranges of the features."""
        return self.grid.box

    def _build_circuit(self) -> Circuit:
        builder = Builder()
        bits = builder.input(BITS, (1, self.grid.n_bits), 0, 1)
        with builder.scope("selection"):
            mask = self.selection.mask(bits)
        with builder.scope("counts"):
            counts: IntValue = mask @ self.kinds
        return builder.finish([counts], [COUNTS])

    def _compiled(self, engine: Engine, options: CompileOptions) -> Program:
        program = super()._compiled(engine, options)
        warn_of_cost(
            f"{self.selection.n_references} references",
            count_lookups(self.circuit).total,
            program.complexity,
            "Fewer references (a sample of the rows, or centers of them) need fewer; "
            "reveal='distances' needs none, and tells the client the distances",
        )
        return program

    def quantize_input(self, *x: Any, dtype: Any = np.int64) -> Any:
        """The unary bits of rows, as the client encrypts them.

        Parameters
        ----------
        *x : numpy.ndarray of float, shape (rows, features)
            One array.
        dtype : numpy dtype, default=int64

        Returns
        -------
        numpy.ndarray of shape (rows, unary bits)
        """
        (rows,) = self._checked_reals(x)
        return self.grid.code(np.asarray(rows)).astype(dtype, copy=False)

    def _rows(self, inputs: Sequence[Any]) -> tuple[np.ndarray, ...]:
        # Bits take a byte each: there are many of them.
        return (self.quantize_input(*inputs, dtype=np.int8),)

    def forward(self, *x: np.ndarray, fhe: str | FheMode = "disable") -> Any:
        """Counts of rows: see `CircuitModel.forward`."""
        mode = FheMode.of(fhe)
        if mode is not FheMode.DISABLE or len(x) != 1 or len(x[0]) <= CHUNK_ROWS:
            return super().forward(*x, fhe=mode)
        starts = range(0, len(x[0]), CHUNK_ROWS)
        parts = [super(SelectionModule, self).forward(x[0][a : a + CHUNK_ROWS]) for a in starts]
        return np.concatenate(parts)

    def without(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Exact counts of rows as if each had one reference less: (rows, counts).

        Parameters
        ----------
        rows : numpy.ndarray of float64, shape (rows, features)
        places : numpy.ndarray of int64, shape (rows,)
            The reference that each row is without; -1 for none.
        """
        found = []
        for start in range(0, len(rows), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            mask = self.selection.mask_without(self.grid.code(rows[part]), places[part])
            found.append(mask @ self.kinds)
        return np.concatenate(found)

    def _count_clipped(self, x: Sequence[Any]) -> None:
        self.clipped_count += count_beyond(self.box, x)


def count_beyond(box: Box, x: Sequence[Any]) -> int:
    """Count the features of rows that lie beyond their ranges, and warn of many."""
    units = [box.units(np.asarray(array)) for array in x]
    return report_clipped(("features",), units, [_UNIT])
