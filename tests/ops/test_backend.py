"""The conformance cases that ONNX ships, operator by operator."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from cipherlearn import ops
from cipherlearn.onnx import OnnxRuntimeModel, attribute_value
from cipherlearn.ops import qonnx
from cipherlearn.ops.seen_range import SEEN_RANGE
from tests.backend_cases import (
    EXCLUDED_NAMES,
    EXCLUDED_TYPES,
    Case,
    all_cases,
    cases_of,
    summarize,
)


def run(case: Case, operator: str) -> None:
    (node,) = case.model.graph.node
    attributes = {item.name: attribute_value(item) for item in node.attribute}
    if operator == "Split" and case.opset < 18:
        attributes["num_outputs"] = len(node.output)
    opset = max(case.opset, ops.OLDEST_OPSET)
    for inputs, expected in case.data:
        remaining = iter(inputs)
        operands = [next(remaining) if name else None for name in node.input]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outputs = ops.get(operator).numpy(*operands, opset=opset, **attributes)
        case.check(outputs, expected)


# Operators that onnx has no case for. Other tests compare them with what they mean.
NO_CASES = {name for name in ops.names() if "." in name and not cases_of(name)}


@pytest.mark.parametrize("operator", sorted(set(ops.names()) - NO_CASES))
def test_cases_of_onnx_pass(operator: str) -> None:
    cases = cases_of(operator)
    print(f"{operator}: {len(cases)} cases")  # noqa: T201  (seen with pytest -s)
    assert cases, f"onnx has no case for {operator}"
    for case in cases:
        run(case, operator)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_where_onnx_and_onnxruntime_disagree_the_latter_counts(mode: str) -> None:
    name = f"test_resize_downsample_scales_{mode}_align_corners"
    (case,) = (one for one in all_cases() if one.name == name)
    assert case.exclusion() is not None
    runner = OnnxRuntimeModel(case.current())
    assert runner.uses_onnxruntime
    ((inputs, expected),) = case.data
    # One input is the image, the other one the scales.
    wanted = runner(*inputs)
    with pytest.raises(AssertionError):
        case.check(tuple(wanted), expected)
    (node,) = case.model.graph.node
    attributes = {item.name: attribute_value(item) for item in node.attribute}
    (found,) = ops.get("Resize").numpy(inputs[0], None, *inputs[1:], **attributes)
    np.testing.assert_allclose(found, wanted[0], rtol=1e-5)


def test_each_case_runs_or_is_left_out_for_a_reason() -> None:
    summary = summarize()
    print(summary.text())  # noqa: T201
    assert summary.run + sum(summary.left_out.values()) == summary.known
    assert summary.run >= 840
    assert sum(len(cases_of(name)) for name in ops.names()) == summary.run
    reasons = set(summary.left_out)
    known = {*EXCLUDED_TYPES.values(), *EXCLUDED_NAMES.values()}
    assert set(EXCLUDED_NAMES.values()) <= reasons
    other = {reason: summary.left_out[reason] for reason in reasons - known}
    assert sum(other.values()) <= 4, other


def test_only_operators_of_other_domains_have_no_case() -> None:
    assert len(NO_CASES - qonnx.GRID_OPERATORS - {SEEN_RANGE}) == 10
