"""How far the quantized, simulated and encrypted results are from the float model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherlearn.circuit import allowed_results, simulate
from cipherlearn.engines import DEFAULT_P_ERROR
from cipherlearn.engines.execution import run_circuit
from cipherlearn.errors import InvalidParameterError, InvalidShapeError
from cipherlearn.quantization.calibration import (
    as_array,
    as_tuple,
    check_real_arrays,
    clipped_by,
)
from cipherlearn.quantization.scoring import Labels, agreement_score, is_classifier

if TYPE_CHECKING:
    from cipherlearn.quantization.quantized_module import QuantizedModule


@dataclass(frozen=True)
class AgreementRow:
    """One way of computing, on the same data.

    Parameters
    ----------
    name : str
        ``float``, ``quantized``, ``simulated`` or ``FHE``.
    rows : int
        Rows that were computed.
    score : float or None
        Accuracy or R2 against the labels (`cipherlearn.quantization.scoring.Labels`); None without.
    as_float : float or None
        The same measure against the float model's outputs, the worst of them if there are several;
        None if the float model is not kept.
    mismatches : int or None
        Rows whose integers differ from the quantized model's.
    wrong : int or None
        Rows whose integers no correct engine may return (FHE only).
    """

    name: str
    rows: int
    score: float | None = None
    as_float: float | None = None
    mismatches: int | None = None
    wrong: int | None = None


@dataclass(frozen=True)
class Agreement:
    """Results of `QuantizedModule.agreement`; prints as a table.

    Parameters
    ----------
    rows : tuple of AgreementRow
    measure : str
        ``accuracy`` or ``R2``.
    overflows : int
        Values that left the range observed in calibration.
    outside_calibration : int
        Input values outside of the range of the calibration data by more than half a step (clipped
        to it).
    """

    rows: tuple[AgreementRow, ...]
    measure: str
    overflows: int
    outside_calibration: int

    def __getitem__(self, name: str) -> AgreementRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise InvalidParameterError(
            f"no row {name!r}; there are {', '.join(row.name for row in self.rows)}"
        )

    def __str__(self) -> str:
        head = ("", "rows", self.measure, "as float", "differ", "wrong")
        body = [
            (
                r.name,
                str(r.rows),
                _share(r.score),
                _share(r.as_float),
                _count(r.mismatches),
                _count(r.wrong),
            )
            for r in self.rows
        ]
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in (head, *body)
        ]
        notes = (
            f"accumulator overflows: {self.overflows}, "
            f"input values outside of calibration: {self.outside_calibration}"
        )
        return "\n".join([*lines, notes])


def measure_agreement(
    module: QuantizedModule, X: Any, y: Any = None, n_fhe: Any = 0, random_state: int = 0
) -> Agreement:
    """Compare a module's ways of computing: see `QuantizedModule.agreement`."""
    names = module.ordered_module_input_names
    inputs = as_tuple(X)
    arrays = check_real_arrays(names, module.pre_processing(*inputs))
    rows = arrays[0].shape[0]
    if not rows:
        raise InvalidShapeError("agreement needs at least one row")
    if (
        isinstance(n_fhe, bool)
        or not isinstance(n_fhe, (int, np.integer))
        or not 0 <= n_fhe <= rows
    ):
        raise InvalidParameterError(
            f"n_fhe must be an integer from 0 to {rows} (the rows), not {n_fhe!r}"
        )
    samples = module.samples(*inputs)
    exact = run_circuit(module.circuit, None, *samples)
    reference = _float_outputs(module, inputs)
    known = module.real_outputs(exact.outputs) if reference is None else reference
    table = _Table(module, reference, None if y is None else Labels.of(y, known[0]))
    if reference is not None:
        table.add("float", reference)
    table.add_integers("quantized", exact.outputs, exact.outputs)
    p_error = DEFAULT_P_ERROR if module.fhe_circuit is None else module.fhe_circuit.p_error
    noisy = simulate(module.circuit, *samples, p_error=p_error, random_state=random_state)
    table.add_integers("simulated", noisy.outputs, exact.outputs)
    if n_fhe:
        first = [sample[:n_fhe] for sample in samples]
        executed = run_circuit(module.circuit, module.fhe_circuit, *first, fhe="execute")
        table.add_integers(
            "FHE", executed.outputs, exact.outputs, allowed_results(module.circuit, *first)
        )
    pairs = zip(arrays, module.input_quantizers, strict=True)
    outside = sum(int(np.count_nonzero(clipped_by(array, q))) for array, q in pairs)
    return Agreement(tuple(table.rows), table.measure, exact.overflow_count, outside)


class _Table:
    """Collects the rows, each measured against labels and float outputs."""

    def __init__(
        self,
        module: QuantizedModule,
        reference: tuple[np.ndarray, ...] | None,
        labels: Labels | None,
    ) -> None:
        self.module = module
        self.reference = reference
        self.labels = labels
        self.rows: list[AgreementRow] = []
        self.measure = "accuracy"

    def add(self, name: str, outputs: Sequence[np.ndarray], **counts: int) -> None:
        count = len(outputs[0])
        score, close = None, None
        if self.labels is None:
            self.measure = "accuracy" if is_classifier(outputs[0]) else "R2"
        else:
            self.measure = self.labels.measure
            score = self.labels.score(outputs[0], slice(count))
        if self.reference is not None:
            pairs = zip(outputs, self.reference, strict=True)
            close = min(agreement_score(output, known[:count]) for output, known in pairs)
        self.rows.append(AgreementRow(name, count, score, close, **counts))

    def add_integers(
        self,
        name: str,
        integers: Sequence[np.ndarray],
        exact: Sequence[np.ndarray],
        allowed: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        count = len(integers[0])
        differ = _rows_where([a != b[:count] for a, b in zip(integers, exact, strict=True)])
        counts = {"mismatches": differ}
        if allowed is not None:
            outside = [(a < lo) | (a > hi) for a, (lo, hi) in zip(integers, allowed, strict=True)]
            counts["wrong"] = _rows_where(outside)
        self.add(name, self.module.real_outputs(integers), **counts)


def _float_outputs(
    module: QuantizedModule, arrays: tuple[Any, ...]
) -> tuple[np.ndarray, ...] | None:
    if module.numpy_model is None:
        return None
    outputs = module.numpy_model.numpy_forward(*map(as_array, arrays))
    return tuple(np.asarray(output, dtype=np.float64) for output in outputs)


def _rows_where(masks: list[np.ndarray]) -> int:
    flat = [mask.reshape(len(mask), -1).any(axis=1) for mask in masks]
    return int(np.count_nonzero(np.logical_or.reduce(flat)))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
