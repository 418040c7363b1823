"""Float evaluation with onnxruntime."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest

from cipherlearn import ops
from cipherlearn.errors import ModelError
from cipherlearn.onnx import OnnxRuntimeModel, execute, run_with_onnxruntime, runtime
from cipherlearn.ops import NEWEST_OPSET
from tests.onnx_models import make_model, node, perceptron, weights


def test_the_results_are_those_of_the_interpreter() -> None:
    x = weights(5, 4)
    (found,) = run_with_onnxruntime(perceptron(), x)
    np.testing.assert_allclose(found, execute(perceptron(), x)[0], rtol=1e-5, atol=1e-6)


def test_a_session_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = OnnxRuntimeModel(perceptron())
    monkeypatch.setattr(runtime, "_new_session", None)
    first = runner(weights(5, 4))
    assert runner.uses_onnxruntime
    for _ in range(3):
        np.testing.assert_array_equal(runner(weights(5, 4)), first)


def test_float64_is_cast_to_what_the_model_takes() -> None:
    (y,) = run_with_onnxruntime(perceptron(), weights(2, 4).astype(np.float64))
    assert y.dtype == np.float32


def test_what_onnxruntime_does_not_know_is_computed_in_numpy() -> None:
    ops.register_numpy("test.Cube", lambda x, /: x**3)
    try:
        model = make_model(
            [node("Cube", ["x"], "y", domain="test")], {"x": ["N"]}, ["y"], domains=["test"]
        )
        runner = OnnxRuntimeModel(model)
        assert not runner.uses_onnxruntime
        assert runner(np.float32([2]))[0].tolist() == [8]
    finally:
        ops.unregister("test.Cube")


def test_the_newest_operator_set_runs_in_any_case() -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": ["N"]}, ["y"], opset=NEWEST_OPSET)
    assert run_with_onnxruntime(model, np.float32([-1, 2]))[0].tolist() == [0, 2]


def test_a_failing_run_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    model = make_model(
        [node("MatMul", ["x", "w"], "y")], {"x": [None, None]}, ["y"], {"w": weights(3, 2)}
    )
    with pytest.raises(ModelError, match="onnxruntime could not run the model"):
        run_with_onnxruntime(model, weights(1, 4))
    assert capfd.readouterr() == ("", "")


def test_nothing_global_is_changed() -> None:
    levels = {name: logging.getLogger(name).level for name in ("", "onnxruntime")}
    filters = list(warnings.filters)
    run_with_onnxruntime(perceptron(), weights(1, 4))
    assert levels == {name: logging.getLogger(name).level for name in levels}
    assert warnings.filters == filters


def test_large_models_are_run_by_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "MAX_MESSAGE_BYTES", 10)
    runner = OnnxRuntimeModel(perceptron())
    assert runner.uses_onnxruntime
    np.testing.assert_allclose(
        runner(weights(2, 4))[0], execute(perceptron(), weights(2, 4))[0], rtol=1e-5, atol=1e-6
    )
