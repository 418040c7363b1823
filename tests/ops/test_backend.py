"""The conformance cases that ONNX ships, operator by operator."""

from __future__ import annotations

import warnings

import pytest

from cipherlearn import ops
from cipherlearn.onnx import attribute_value
from tests.backend_cases import EXCLUDED_NAMES, EXCLUDED_TYPES, Case, all_cases, cases_of


def run(case: Case, operator: str) -> None:
    (node,) = case.model.graph.node
    attributes = {item.name: attribute_value(item) for item in node.attribute}
    opset = max(case.opset, ops.OLDEST_OPSET)
    for inputs, expected in case.data:
        remaining = iter(inputs)
        operands = [next(remaining) if name else None for name in node.input]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outputs = ops.get(operator).numpy(*operands, opset=opset, **attributes)
        case.check(outputs, expected)


@pytest.mark.parametrize("operator", [name for name in ops.names() if "." not in name])
def test_cases_of_onnx_pass(operator: str) -> None:
    cases = cases_of(operator)
    print(f"{operator}: {len(cases)} cases")  # noqa: T201  (seen with pytest -s)
    assert cases, f"onnx has no case for {operator}"
    for case in cases:
        run(case, operator)


def test_exclusions_are_few_and_all_used() -> None:
    single = [case for case in all_cases() if len(case.model.graph.node) == 1]
    ours = [case for case in single if case.operators <= set(ops.names())]
    reasons = [reason for case in ours if (reason := case.exclusion()) is not None]
    assert len(ours) - len(reasons) >= 300
    known = {*EXCLUDED_TYPES.values(), *EXCLUDED_NAMES.values()}
    assert set(EXCLUDED_NAMES.values()) <= set(reasons)
    other = [reason for reason in reasons if reason not in known]
    assert len(other) <= 4, other
