"""Import of models that declare their grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from cipherlearn.errors import CalibrationWarning, InvalidParameterError, UnquantizedTensorError
from cipherlearn.ops import qonnx
from cipherlearn.quantization import PostTrainingQATImporter, QuantizedModule
from cipherlearn.torch import NumpyModule
from tests.onnx_models import make_model, node, weights
from tests.quantization.quantize import check_integers_agree, normal, quantize

X = normal(150, 4)


class Graph:
    """Nodes and constants of a model under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def quant(
        self, source: str, output: str, scale: Any, bits: int, zero: int = 0, **options: Any
    ) -> str:
        names = [f"{output}_{part}" for part in ("scale", "zero", "bits")]
        values = (scale, zero, bits)
        self.constants.update(zip(names, map(np.float32, values), strict=True))
        attributes = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **options}
        inputs = [source, *names]
        quant = helper.make_node("Quant", inputs, [output], domain=qonnx.DOMAIN, **attributes)
        self.nodes.append(quant)
        return output

    def weight(self, name: str, value: np.ndarray, scale: Any, bits: int, **options: Any) -> str:
        self.constants[name] = value
        return self.quant(name, f"{name}_q", scale, bits, **options)

    def add(self, op: str, inputs: list[str], output: str, **options: Any) -> str:
        self.nodes.append(node(op, inputs, output, **options))
        return output

    def model(self, output: str, width: int = 4) -> onnx.ModelProto:
        return make_model(
            self.nodes, {"x": ["N", width]}, [output], self.constants, domains=[qonnx.DOMAIN]
        )


def imported(model: onnx.ModelProto, n_bits: Any = None, **options: Any) -> QuantizedModule:
    options = {"bounds": "proved", **options}
    return PostTrainingQATImporter(n_bits, NumpyModule(model), **options).quantize_module(X)


def check_exact(module: QuantizedModule, data: np.ndarray = X) -> None:
    """The module gives what the model gives, to the precision of its floats."""
    truth = module.numpy_model.forward(data.astype(np.float64))
    np.testing.assert_allclose(module.forward(data), truth, rtol=1e-5, atol=1e-5)


@given(
    bits=st.tuples(*[st.integers(2, 5)] * 4),
    zero=st.integers(-2, 2),
    signed=st.booleans(),
    narrow=st.booleans(),
    per_channel=st.booleans(),
    exponent=st.integers(-4, 0),
    function=st.sampled_from(["Relu", "Tanh", "Sigmoid", "Identity", "Abs"]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_grids_are_taken_over_whatever_they_are(
    bits: tuple[int, ...],
    zero: int,
    signed: bool,
    narrow: bool,
    per_channel: bool,
    exponent: int,
    function: str,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    step = 2.0**exponent * rng.uniform(0.5, 1.0)
    steps = rng.uniform(0.1, 0.4, (1, 3)) if per_channel else 0.2
    graph = Graph()
    graph.quant("x", "x_q", step, bits[0], zero)
    graph.weight("w", rng.normal(size=(4, 3)).astype(np.float32), steps, bits[1], narrow=1)
    graph.constants["b"] = rng.normal(size=3).astype(np.float32)
    graph.add("Gemm", ["x_q", "w_q", "b"], "h")
    graph.add(function, ["h"], "a")
    graph.quant("a", "a_q", step, bits[2], zero, signed=int(signed), narrow=int(narrow))
    graph.weight("v", rng.normal(size=(3, 2)).astype(np.float32), 0.3, bits[3])
    graph.add("MatMul", ["a_q", "v_q"], "y")
    module = imported(graph.model("y"))
    check_exact(module, normal(100, 4, seed=seed))
    first = module.quant_layers_dict["h"][1].constant_inputs[1]
    wanted = np.clip(
        np.rint(graph.constants["w"] / np.float32(steps)),
        1 - 2 ** (bits[1] - 1),
        2 ** (bits[1] - 1) - 1,
    )
    np.testing.assert_array_equal(first.qvalues, wanted)
    assert first.n_bits == bits[1]


def test_chains_of_functions_and_grids_are_one_table() -> None:
    graph = Graph()
    graph.quant("x", "x_q", 0.2, 4)
    graph.weight("w", weights(4, 3), 0.1, 3)
    graph.add("MatMul", ["x_q", "w_q"], "h")
    graph.quant("h", "h_q", 0.1, 4)
    graph.add("Tanh", ["h_q"], "t")
    graph.quant("t", "t_q", 0.25, 3)
    graph.weight("v", weights(3, 2), 0.1, 3)
    graph.add("MatMul", ["t_q", "v_q"], "y")
    module = imported(graph.model("y"))
    check_exact(module)
    check_integers_agree(module, X)
    from cipherlearn.circuit import count_lookups

    assert count_lookups(module.circuit).total == 3


def test_weights_that_were_quantized_before_need_no_quantizer() -> None:
    graph = Graph()
    graph.quant("x", "x_q", 0.2, 4)
    graph.constants["w"] = (0.125 * np.rint(3 * weights(4, 3))).astype(np.float32)
    module = imported(graph.model(graph.add("MatMul", ["x_q", "w"], "y")))
    check_exact(module)
    held = module.quant_layers_dict["y"][1].constant_inputs[1]
    np.testing.assert_array_equal(held.qvalues * 0.125, graph.constants["w"])


def two_branches(first: float, second: float, op: str = "Add") -> Graph:
    graph = Graph()
    # Steps that divide each other would put values halfway between two integers.
    graph.quant("x", "x_q", 0.217, 4)
    for name, step in (("a", first), ("b", second)):
        graph.weight(f"w{name}", weights(4, 3, seed=ord(name)), 0.1, 3)
        graph.add("MatMul", ["x_q", f"w{name}_q"], f"h{name}")
        graph.quant(f"h{name}", name, step, 4)
    graph.add(op, ["a", "b"], "s", **({"axis": 1} if op == "Concat" else {}))
    graph.weight("v", weights(6 if op == "Concat" else 3, 2), 0.1, 3)
    graph.add("MatMul", ["s", "v_q"], "y")
    return graph


@pytest.mark.parametrize("second", [0.1, 0.4, 0.15, 0.025])
@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_sums_are_exact_where_steps_have_a_common_part(op: str, second: float) -> None:
    module = imported(two_branches(0.1, second, op).model("y"))
    check_exact(module)
    check_integers_agree(module, X)
    # What is added are the integers of both, and nothing quantizes the sum.
    from cipherlearn.circuit import count_lookups

    assert count_lookups(module.circuit).total == 6


@pytest.mark.parametrize(
    ("function", "keeps"), [("Relu", True), ("Abs", False), ("Neg", False), ("Sign", False)]
)
def test_functions_that_keep_a_grid_need_no_other(function: str, keeps: bool) -> None:
    graph = Graph()
    graph.quant("x", "x_q", 0.2, 3)
    graph.add(function, ["x_q"], "f")
    graph.weight("w", weights(4, 2), 0.1, 3)
    model = graph.model(graph.add("MatMul", ["f", "w_q"], "y"))
    if keeps:
        check_exact(imported(model))
        return
    # The lowest integer has no counterpart, and 1 is no multiple of the step.
    with pytest.raises(UnquantizedTensorError, match=r"f\. Quantize"):
        imported(model)


def test_sums_of_steps_without_a_common_part_are_told() -> None:
    with pytest.warns(CalibrationWarning, match=r"adds a, b, whose steps have no common part.*off"):
        module = imported(two_branches(0.1, 0.1 * np.pi).model("y"))
    truth = module.numpy_model.forward(X)
    assert np.abs(module.forward(X) - truth).max() < 0.1


@pytest.mark.parametrize("op", ["Concat", "Max"])
def test_what_stands_side_by_side_needs_one_grid(op: str) -> None:
    check_exact(imported(two_branches(0.1, 0.1, op).model("y")))
    with pytest.raises(UnquantizedTensorError, match=f"{op}.*joins a, b, which have different"):
        imported(two_branches(0.1, 0.2, op).model("y"))


def test_everything_that_is_wrong_is_told_at_once() -> None:
    graph = Graph()
    graph.quant("x", "x_q", 0.2, 4)
    graph.weight("w", weights(4, 3), 0.1 + np.arange(4.0).reshape(4, 1), 3)
    graph.constants["v"] = weights(3, 3)
    graph.add("MatMul", ["x_q", "w_q"], "h")
    graph.add("Relu", ["h"], "r")
    graph.add("MatMul", ["r", "v"], "g")
    graph.quant("g", "g_q", np.float32([[0.1, 0.2, 0.3]]), 4)
    graph.weight("u", weights(3, 2), 0.1, 3)
    graph.add("MatMul", ["g_q", "u_q"], "y")
    with pytest.raises(UnquantizedTensorError) as caught:
        imported(graph.model("y"))
    for text in ("quantized: v, r.", "the weights 'w_q'", "(4, 1)", "'g_q' have one scale a chan"):
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("second", "options", "message"),
    [
        (None, {}, "'x' is read by '.*' \\(MatMul\\).*QuantIdentity"),
        (0.3, {}, "quantized to several grids"),
        (0.2, {"rounding_mode": "FLOOR"}, "does not round to the nearest"),
    ],
)
def test_inputs_need_one_quantizer(second: Any, options: Any, message: str) -> None:
    graph = Graph()
    graph.quant("x", "x_q", 0.2, 4, **options)
    graph.weight("w", weights(4, 3), 0.1, 3)
    other = "x" if second is None else graph.quant("x", "x_p", second, 4, **options)
    graph.add("MatMul", ["x_q", "w_q"], "a")
    graph.add("MatMul", [other, "w_q"], "b")
    graph.quant("a", "a_q", 0.1, 4)
    graph.quant("b", "b_q", 0.1, 4)
    graph.add("Add", ["a_q", "b_q"], "y")
    with pytest.raises(UnquantizedTensorError, match=message):
        imported(graph.model("y"))


@pytest.mark.parametrize(
    ("n_bits", "message"),
    [
        (4, "op_weights is 4"),
        ({"op_inputs": 8, "op_weights": 3}, None),
        ({"op_inputs": 8, "op_weights": 3, "model_inputs": 5}, "'x_q' has 4 bits, model_inputs is"),
    ],
)
def test_other_bits_are_refused(n_bits: Any, message: str | None) -> None:
    graph = Graph()
    graph.quant("x", "x_q", 0.2, 4)
    graph.weight("w", weights(4, 3), 0.1, 3)
    model = graph.model(graph.add("MatMul", ["x_q", "w_q"], "y"))
    if message is None:
        imported(model, n_bits)
        return
    with pytest.raises(InvalidParameterError, match=message):
        imported(model, n_bits)


def test_declared_grids_are_functions_for_who_quantizes_anew() -> None:
    module = quantize(two_branches(0.1, 0.2).model("y"), X, n_bits=6)
    check_integers_agree(module, X)
    truth = module.numpy_model.forward(X)
    assert np.corrcoef(module.forward(X).ravel(), truth.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("activations", "held"),
    # Of other widths than 8 it writes operators of a domain of its own.
    [("QUInt8", "QInt8"), ("QInt8", "QInt8"), ("QUInt4", "QInt4"), ("QUInt16", "QInt16")],
)
def test_static_quantization_of_onnxruntime_is_taken_over(
    activations: str, held: str, per_channel: bool, tmp_path: Path
) -> None:
    graph = Graph()
    graph.constants.update(w=weights(4, 6), b=weights(6), v=weights(6, 3, seed=1))
    graph.add("Gemm", ["x", "w", "b"], "h")
    graph.add("Relu", ["h"], "r")
    model = graph.model(graph.add("MatMul", ["r", "v"], "y"))
    model.ir_version = 10
    onnx.save(model, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "q.onnx",
        Rows(),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType[activations],
        weight_type=QuantType[held],
    )
    module = imported(onnx.load(tmp_path / "q.onnx"))
    assert [n.op_type for n in module.onnx_model.graph.node].count("Quant") >= 6
    check_exact(module)
    # Optimized, the 4 bits lose their Relu (onnxruntime 1.31): what the file says counts.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "q.onnx", options)
    (theirs,) = session.run(None, {"x": X})
    step = module.output_quantizers[0].scale
    away = np.abs(module.forward(X) - theirs) / step
    # 24 bits of precision do not always tell which of two steps a value is nearer to.
    assert (away > 0.01).mean() <= 0.01
    assert away.max() < 1.01


class Rows(CalibrationDataReader):  # type: ignore[misc]
    """The rows, once."""

    def __init__(self) -> None:
        self._rows = iter([{"x": X}])

    def get_next(self) -> Any:
        return next(self._rows, None)
