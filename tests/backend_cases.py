"""The conformance cases that ONNX ships for its operators, as data for our tests."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from cipherlearn.ops import NEWEST_OPSET, OLDEST_OPSET, names, qualified_name

# Why a case of a supported operator is left out, by the element type of an input or output.
EXCLUDED_TYPES = {
    "STRING": "strings are no numbers",
    "COMPLEX64": "complex numbers are not quantized",
    "COMPLEX128": "complex numbers are not quantized",
    "BFLOAT16": "NumPy has no bfloat16",
    "FLOAT8E4M3FN": "NumPy has no 8-bit floats",
    "FLOAT8E4M3FNUZ": "NumPy has no 8-bit floats",
    "FLOAT8E5M2": "NumPy has no 8-bit floats",
    "FLOAT8E5M2FNUZ": "NumPy has no 8-bit floats",
    "FLOAT8E8M0": "NumPy has no 8-bit floats",
    "FLOAT4E2M1": "NumPy has no 4-bit floats",
    "INT4": "NumPy has no 4-bit integers",
    "UINT4": "NumPy has no 4-bit integers",
    "INT2": "NumPy has no 2-bit integers",
    "UINT2": "NumPy has no 2-bit integers",
}
# ... and by the words its name contains.
EXCLUDED_NAMES = {
    "training_dropout": "random numbers have no meaning on encrypted data",
    **dict.fromkeys(
        ("downsample_scales_linear_align_corners", "downsample_scales_cubic_align_corners"),
        "computed with sizes that are not whole; onnxruntime and PyTorch take those of the result",
    ),
    "_training_mode": "training uses statistics of the batch, whose rows are encrypted apart",
}


@dataclass(frozen=True)
class Case:
    """A model, and what it must answer."""

    name: str
    model: onnx.ModelProto
    data: tuple[tuple[list[Any], list[Any]], ...]
    rtol: float
    atol: float

    @property
    def operators(self) -> frozenset[str]:
        return frozenset(qualified_name(n.domain, n.op_type) for n in self.model.graph.node)

    @property
    def opset(self) -> int:
        return max(
            (entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")),
            default=NEWEST_OPSET,  # operators of other domains only
        )

    def exclusion(self) -> str | None:
        """Why the case is left out; None when it counts."""
        for word, reason in EXCLUDED_NAMES.items():
            if word in self.name:
                return reason
        if self.opset < OLDEST_OPSET and not self.means_the_same_today():
            return "an operator whose meaning changed before the oldest operator set"
        for value in (*self.model.graph.input, *self.model.graph.output):
            if not value.type.HasField("tensor_type"):
                return "sequences and optional values are no tensors"
            element = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            if element in EXCLUDED_TYPES:
                return EXCLUDED_TYPES[element]
        return None

    def means_the_same_today(self) -> bool:
        """Whether the operators of an old case are defined as at the oldest operator set."""
        return all(
            onnx.defs.get_schema(name, self.opset, "").since_version
            == onnx.defs.get_schema(name, OLDEST_OPSET, "").since_version
            for name in self.operators
        )

    def current(self) -> onnx.ModelProto:
        """The model, at least at the oldest operator set."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for entry in model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = max(entry.version, OLDEST_OPSET)
        model.ir_version = max(model.ir_version, 7)
        return model

    def check(self, outputs: tuple[np.ndarray, ...], expected: list[np.ndarray]) -> None:
        for output, wanted in zip(outputs, expected, strict=False):
            assert output.dtype == wanted.dtype, self.name
            assert output.shape == wanted.shape, self.name
            np.testing.assert_allclose(
                output, wanted, rtol=self.rtol, atol=self.atol, err_msg=self.name
            )


@cache
def all_cases() -> tuple[Case, ...]:
    return tuple(_load())


def _load() -> Iterator[Case]:
    state = np.random.get_state()  # noqa: NPY002
    with warnings.catch_warnings():
        # The cases compute their expected values with infinities.
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    np.random.set_state(state)  # noqa: NPY002
    for case in found:
        if case.model is None:
            continue
        data = tuple(
            (_arrays(inputs), _arrays(outputs)) for inputs, outputs in case.data_sets or ()
        )
        yield Case(case.name, case.model, data, case.rtol, case.atol)


def _arrays(values: Sequence[Any]) -> list[Any]:
    is_proto = onnx.TensorProto
    return [numpy_helper.to_array(v) if isinstance(v, is_proto) else v for v in values]


@cache
def cases_of(operator: str) -> tuple[Case, ...]:
    """Cases whose model is one node of an operator, exclusions left out."""
    return tuple(
        case
        for case in all_cases()
        if len(case.model.graph.node) == 1
        and case.operators == {operator}
        and case.exclusion() is None
    )


@dataclass(frozen=True)
class Summary:
    """How many cases there are for the operators that are supported."""

    operators: int
    known: int
    run: int
    left_out: Counter[str]

    def text(self) -> str:
        lines = [
            f"{self.known} cases of one node, of {self.operators} supported operators",
            f"{self.run} run",
            *(f"{count} left out: {reason}" for reason, count in self.left_out.most_common()),
        ]
        return "\n".join(lines)


def summarize() -> Summary:
    """Count the cases of supported operators, and those left out by their reason."""
    supported = set(names())
    single = [case for case in all_cases() if len(case.model.graph.node) == 1]
    ours = [case for case in single if case.operators <= supported]
    reasons = [case.exclusion() for case in ours]
    left_out = Counter(reason for reason in reasons if reason is not None)
    operators = len(frozenset().union(*(case.operators for case in ours)))
    return Summary(operators, len(ours), reasons.count(None), left_out)


if __name__ == "__main__":
    print(summarize().text())  # noqa: T201  (run as `python -m tests.backend_cases`)
