"""How far the quantized, simulated and encrypted results are from the float model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherlearn.circuit import allowed_results, simulate
from cipherlearn.engines import DEFAULT_P_ERROR
from cipherlearn.engines.execution import run_circuit
from cipherlearn.errors import InvalidParameterError, InvalidShapeError, InvalidTypeError
from cipherlearn.quantization.calibration import (
    as_array,
    as_tuple,
    check_real_arrays,
    clipped_by,
)

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
        Accuracy (several outputs) or R2 (one output) against the labels; None without labels.
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
    labels = None if y is None else _checked_labels(y, rows)
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
    table = _Table(module, reference, labels)
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
        labels: np.ndarray | None,
    ) -> None:
        self.module = module
        self.reference = reference
        self.labels = labels
        self.rows: list[AgreementRow] = []
        self.measure = "accuracy"

    def add(self, name: str, outputs: Sequence[np.ndarray], **counts: int) -> None:
        count = len(outputs[0])
        self.measure = "accuracy" if is_classifier(outputs[0]) else "R2"
        score, close = None, None
        if self.labels is not None:
            score = score_against_labels(outputs[0], self.labels[:count])
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


def is_classifier(outputs: np.ndarray) -> bool:
    """Whether outputs are read as scores of several classes."""
    return outputs.ndim > 1 and outputs.shape[-1] > 1


def agreement_score(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Share of rows with the same largest output; R2 where there is one output only.

    Parameters
    ----------
    outputs, reference : numpy.ndarray of shape (rows, ...)
    """
    if is_classifier(reference):
        return float(np.mean(outputs.argmax(-1) == reference.argmax(-1)))
    return _r2(outputs.reshape(-1), reference.reshape(-1))


def score_against_labels(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of scores of several classes, or of one for the second of two; R2 of other values.

    One score is taken for a probability if it lies from 0 to 1, and for a logit otherwise.
    """
    if is_classifier(outputs) and labels.ndim == 1:
        return float(np.mean(outputs.argmax(-1) == labels))
    if outputs.size != labels.size:
        raise InvalidShapeError(
            f"labels of shape {labels.shape} do not fit outputs of shape {outputs.shape}"
        )
    if labels.dtype.kind in "iub" and set(np.unique(labels)) <= {0, 1}:
        is_probability = bool(((outputs >= 0) & (outputs <= 1)).all())
        found = outputs.reshape(-1) > (0.5 if is_probability else 0.0)
        return float(np.mean(found == labels.reshape(-1)))
    return _r2(outputs.reshape(-1), labels.reshape(-1).astype(np.float64))


def _r2(values: np.ndarray, truth: np.ndarray) -> float:
    spread = float(((truth - truth.mean()) ** 2).sum())
    residual = float(((values - truth) ** 2).sum())
    if spread == 0.0:
        return 1.0 if residual == 0.0 else 0.0
    return 1.0 - residual / spread


def _float_outputs(
    module: QuantizedModule, arrays: tuple[Any, ...]
) -> tuple[np.ndarray, ...] | None:
    if module.numpy_model is None:
        return None
    outputs = module.numpy_model.numpy_forward(*map(as_array, arrays))
    return tuple(np.asarray(output, dtype=np.float64) for output in outputs)


def _checked_labels(y: Any, rows: int) -> np.ndarray:
    """Labels as numbers, one a row (or as many as there are outputs)."""
    labels = np.asarray(y)
    if labels.dtype.kind not in "iufb":
        raise InvalidTypeError(
            f"labels have dtype {labels.dtype}; give numbers (for classes, those of the outputs)"
        )
    if labels.ndim == 0 or len(labels) != rows:
        raise InvalidShapeError(f"{rows} rows were given with labels of shape {labels.shape}")
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _rows_where(masks: list[np.ndarray]) -> int:
    flat = [mask.reshape(len(mask), -1).any(axis=1) for mask in masks]
    return int(np.count_nonzero(np.logical_or.reduce(flat)))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
