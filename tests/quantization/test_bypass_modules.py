from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.networks import digits_mlp
from cipherlearn.circuit import count_lookups
from cipherlearn.engines import get_engine
from cipherlearn.errors import CalibrationWarning, InvalidParameterError
from cipherlearn.quantization import (
    PostTrainingLookupQuantization,
    QuantizedArray,
    QuantizedModule,
    SearchSpace,
    search_bits,
)
from cipherlearn.quantization.bypass import BYPASS
from cipherlearn.quantization.n_bits import LayerBits, Rounding
from cipherlearn.torch import NumpyModule, build_quantized_module
from tests.onnx_models import make_model, node, weights
from tests.quantization.quantize import check_integers_agree, normal
from tests.quantization.test_bypass import BITS, H, R, _Net, cnn, loss, mlp, quantized

APPROXIMATE = {"n_bits": 4, "method": "approximate"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")
def test_the_same_price_buys_more_accuracy() -> None:
    case = digits_mlp()
    net, losses = case.net, {}
    for bypass in BYPASS:
        module = build_quantized_module(
            net, case.calibration, n_bits=4, rounding_threshold_bits=APPROXIMATE, bypass=bypass
        )
        losses[bypass] = loss(module, case.x_test)
        assert count_lookups(module.circuit).total == 64
        assert get_engine().compile(module.circuit).complexity <= 1.0e10
        assert module.overflow_count / (450 * 64) < 2e-4
    assert losses["hidden"] < 0.8 * losses["none"]
    assert losses["outputs"] < 0.7 * losses["hidden"]


def test_outputs_are_split_only_if_asked_for() -> None:
    """Who decrypts two partial sums learns the linear part of the model from a few inputs."""
    model, x = mlp([8, 8], ["Relu", "Relu"]), normal(100, 6)
    for module in (quantized(model, x), quantized(model, x, bypass="none")):
        assert len(module.circuit.outputs) == 1
        assert module.tail is None
    revealing = quantized(model, x, bypass="outputs")
    assert len(revealing.circuit.outputs) == 3
    assert revealing.forward(x).shape == (100, 3)


@pytest.mark.parametrize("bypass", BYPASS)
def test_integers_are_the_same_everywhere(bypass: str) -> None:
    x = normal(100, 6)
    check_integers_agree(quantized(mlp([7, 6, 5], ["Relu", "Abs", "Tanh"]), x, bypass=bypass), x)
    images = normal(170, 2, 8, 8)
    check_integers_agree(quantized(cnn(2, 2, "Relu", True, 0), images, bypass=bypass), images)


def test_the_client_adds_before_what_it_computes_anyway() -> None:
    net = _Net(0)
    net.add("Gemm", (6, 8), (8,))
    net.add("Relu")
    net.add("Gemm", (8, 3), (3,))
    net.add("Softmax", axis=-1)
    x = normal(100, 6)
    module = quantized(net.model(6), x, bypass="outputs")
    found = module.forward(x)
    module.tail = None
    exponentials = np.exp(sum(module.forward(x)))
    np.testing.assert_allclose(found, exponentials / exponentials.sum(1, keepdims=True))


def test_a_loaded_module_still_adds() -> None:
    x = normal(100, 6)
    module = quantized(mlp([8, 8], ["Relu", "Relu"]), x, bypass="outputs")
    loaded = QuantizedModule.loads(module.dumps())
    np.testing.assert_array_equal(loaded.forward(x), module.forward(x))


def test_encrypted_results_are_exact_and_added_after_decryption() -> None:
    x = normal(100, 6)
    rounding = {"n_bits": 3, "method": "exact"}
    model = mlp([4], ["Relu"])
    module = quantized(model, x, n_bits=3, rounding_threshold_bits=rounding, bypass="outputs")
    program = module.compile()
    program.keygen()
    decrypted = program.decrypt(program.run(program.encrypt(module.quantize_input(x[:1]))))
    reals = module.dequantize_output(*decrypted)
    assert len(reals) == 2
    np.testing.assert_array_equal(module.post_processing(*reals), module.forward(x[:1]))


def test_encrypted_results_with_approximate_rounding_are_allowed_ones() -> None:
    x = normal(100, 6)
    module = quantized(mlp([4, 4], ["Relu", "Relu"]), x, n_bits=3)
    assert module.bypassed == {"t1": "hidden"}
    module.compile(x[:2], check=True)


def test_a_layer_says_how_many_bits_its_codes_have() -> None:
    x, model = normal(100, 6), NumpyModule(mlp([8, 8], ["Relu", "Relu"]))
    common = LayerBits(4, 4, 4, False)
    names = list(quantized(mlp([8, 8], ["Relu", "Relu"]), x).weight_layers())
    single = {names[1]: LayerBits(4, 2, 4, False)}
    converter = PostTrainingLookupQuantization.of_layers(model, common, single, 6)
    converter.quantize_module(x)
    _, codes = converter.quant_ops_dict["t1/codes"]
    assert codes.input_quant_opts.n_bits == 2
    assert converter.rounding_of(names[1]) == Rounding(4, exact=False)


@pytest.mark.parametrize("bypass", BYPASS)
def test_a_trace_compares_like_with_like(bypass: str) -> None:
    """No tensor keeps its name and holds a part of its value."""
    x = normal(200, 6)
    model = mlp([8, 8], ["Relu", "Relu"])
    rounding = {"n_bits": 8, "method": "approximate"}
    module = quantized(model, x, n_bits=8, rounding_threshold_bits=rounding, bypass=bypass)
    names = set()
    for tensor in module.trace(x[:50]):
        names.add(tensor.name)
        spread = np.ptp(tensor.float_values)
        assert tensor.largest_error <= 0.05 * spread, tensor.name
    (output,) = model.graph.output
    assert output.name in names
    annotated = {n.output[0]: n.doc_string for n in module.annotated_onnx().graph.node}
    assert ("by the client" in annotated[output.name]) == (bypass == "outputs")


def test_an_unknown_bypass_is_named() -> None:
    with pytest.raises(InvalidParameterError, match="bypass must be one of"):
        quantized(mlp([4], ["Relu"]), normal(50, 6), bypass="everything")


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("bypass", BYPASS)
def test_proved_bounds_hold_for_any_input(bypass: str, exact: bool) -> None:
    x = normal(200, 6)
    far = 1e6 * np.random.default_rng(0).choice([-1.0, 1.0], (500, 6)).astype(np.float32)
    rounding = {"n_bits": 4, "method": "exact" if exact else "approximate"}
    for n_bits, activations in ((4, ["Relu", "Tanh"]), (6, ["Relu"])):
        module = quantized(
            mlp([8] * len(activations), activations),
            x,
            n_bits=n_bits,
            rounding_threshold_bits=rounding,
            bypass="hidden" if exact and bypass == "outputs" else bypass,
            bounds="proved",
        )
        with pytest.warns(CalibrationWarning):
            module.forward(far)
        assert module.overflow_count == 0


@pytest.mark.parametrize("n_bits", [3, 4])
def test_hidden_parts_do_not_raise_the_price(n_bits: int) -> None:
    x, model = normal(200, 6), mlp([16, 16, 16], ["Relu"] * 3)
    for method in ("exact", "approximate"):
        rounding = {"n_bits": n_bits, "method": method}
        prices = {}
        for bypass in ("none", "hidden"):
            module = quantized(
                model, x, n_bits=n_bits, rounding_threshold_bits=rounding, bypass=bypass
            )
            prices[bypass] = get_engine().compile(module.circuit).complexity
        assert prices["hidden"] <= 1.01 * prices["none"]
        assert bool(module.bypassed) == (method == "approximate")


def test_outputs_that_cannot_be_split_are_told() -> None:
    x = normal(100, 5)
    nodes = [H, R, node("Add", ["r", "x"], "s"), node("MatMul", ["s", "w"], "y")]
    model = make_model(nodes, {"x": ["N", 5]}, ["y"], {"w": weights(5, 5)})
    with pytest.warns(CalibrationWarning, match="bypass='outputs' changes nothing"):
        module = quantized(model, x, bypass="outputs")
    assert module.bypassed == {}
    with pytest.raises(InvalidParameterError, match="bypass='outputs' would change nothing"):
        build_quantized_module(model, x, n_bits=6, bypass="outputs")


def test_a_module_tells_what_goes_around() -> None:
    x, model = normal(100, 6), mlp([8, 8], ["Relu", "Relu"])
    assert quantized(model, x).bypassed == {"t1": "hidden"}
    module = quantized(model, x, bypass="outputs")
    assert module.bypassed == {"t1": "hidden", "t3": "outputs"}
    assert QuantizedModule.loads(module.dumps()).bypassed == module.bypassed


def test_rows_are_enough_for_layers_that_are_as_narrow_as_before() -> None:
    """150 rows tell 64 inputs; that 128 more stand beside them is no reason to warn."""
    x = normal(150, 64)
    net = _Net(0)
    for _ in range(3):
        net.add("Gemm", (64, 64), (64,))
        net.add("Relu")
    net.add("Gemm", (64, 3), (3,))
    assert len(quantized(net.model(64), x).bypassed) == 2


def test_channels_of_images_keep_their_grids() -> None:
    images = normal(200, 2, 8, 8) * np.array([1.0, 100.0], np.float32).reshape(1, 2, 1, 1)
    for bypass in ("none", "hidden"):
        module = quantized(cnn(2, 2, "Relu", False, 0), images, bypass=bypass)
        assert np.shape(module.input_quantizers[0].scale) == (1, 2, 1, 1)


def test_codes_that_two_layers_read_have_the_bits_of_the_larger() -> None:
    nodes = [
        H,
        R,
        node("Gemm", ["r", "w"], "a", name="few"),
        node("Gemm", ["r", "v"], "b", name="many"),
        node("Relu", ["a"], "ra"),
        node("Relu", ["b"], "rb"),
        node("Gemm", ["ra", "w"], "u"),
        node("Gemm", ["rb", "w"], "z"),
    ]
    constants = {"w": weights(5, 5), "v": weights(5, 5, seed=1)}
    model = NumpyModule(make_model(nodes, {"x": ["N", 5]}, ["u", "z"], constants))
    single = {"few": replace(BITS, inputs=2), "many": replace(BITS, inputs=5)}
    converter = PostTrainingLookupQuantization.of_layers(model, BITS, single, 6)
    module = converter.quantize_module(normal(100, 5))
    _, codes = converter.quant_ops_dict["r/codes"]
    assert codes.input_quant_opts.n_bits == 5
    assert module.operand_layers() >= {"few", "many"}


def test_layers_whose_operands_have_a_grid_have_no_bits_to_choose() -> None:
    module = quantized(mlp([8, 8], ["Relu", "Relu"]), normal(100, 6), bypass="outputs")
    added = [name for name in module.weight_layers() if "around" in name]
    assert len(added) == 2
    operands = module.operand_layers()
    assert operands.isdisjoint(added)
    moves = list(SearchSpace().moves(module.weight_layers(), -1, operands))
    assert not [move for move in moves if move.name == "inputs" and move.layer in added]
    # The layer that reads codes still says how many bits they have.
    assert sum(move.name == "inputs" for move in moves) == 2


def test_a_search_finds_bits_with_every_bypass() -> None:
    x, model = normal(120, 6), NumpyModule(mlp([6, 6], ["Relu", "Relu"]))
    space = SearchSpace(weights=4, inputs=4, exact=False)
    for bypass in ("hidden", "outputs"):
        module = search_bits(model, x, max_drop=0.2, space=space, bypass=bypass)
        assert bypass in module.bypassed.values()


@pytest.mark.parametrize("bypass", BYPASS)
def test_other_grids_of_the_inputs_are_taken(bypass: str) -> None:
    x = normal(200, 6)
    module = quantized(mlp([8, 8], ["Relu", "Relu"]), x, n_bits=6, bypass=bypass)
    before = loss(module, x)
    grid = QuantizedArray(8, 1.3 * x.astype(np.float64)).quantizer
    module.set_inputs_quantization_parameters(grid)
    assert loss(module, x) <= 20 * before + 1e-3


def test_clear_inputs_stay_clear() -> None:
    nodes = [
        H,
        R,
        node("Gemm", ["z", "w"], "g"),
        node("Relu", ["g"], "s"),
        node("Gemm", ["r", "w"], "a"),
        node("Gemm", ["s", "w"], "b"),
        node("Relu", ["a"], "ra"),
        node("Relu", ["b"], "rb"),
        node("Gemm", ["ra", "w"], "u"),
        node("Gemm", ["rb", "w"], "v"),
        node("Add", ["u", "v"], "y"),
    ]
    model = make_model(nodes, {"x": ["N", 5], "z": ["N", 5]}, ["y"], {"w": weights(5, 5)})
    module = quantized(model, normal(100, 5), normal(100, 5, seed=1))
    assert set(module.bypassed) == {"r", "s"}
    module.compile(engine="clear", inputs_encryption_status=["encrypted", "clear"])
    rows = (normal(5, 5), normal(5, 5, seed=1))
    np.testing.assert_array_equal(module.forward(*rows, fhe="execute"), module.forward(*rows))


def test_operands_of_the_model_s_own_concat_share_a_grid() -> None:
    """Inception modules, dense blocks, skip connections: what is joined may meet any layer."""
    nodes = [
        node("Conv", ["x", "k1"], "a", pads=[1] * 4),
        node("Relu", ["a"], "ra"),
        node("Conv", ["x", "k2"], "b", pads=[1] * 4),
        node("Tanh", ["b"], "rb"),
        node("Concat", ["ra", "rb"], "c", axis=1),
        node("Conv", ["c", "k3"], "d", group=2),
        node("Relu", ["d"], "rd"),
        node("MatMul", ["rd", "batched"], "e"),
        node("Flatten", ["e"], "f", axis=1),
        node("MatMul", ["f", "w"], "y"),
    ]
    constants = {
        "k1": weights(4, 2, 3, 3),
        "k2": weights(2, 2, 3, 3, seed=1),
        "k3": weights(4, 3, 3, 3, seed=2),
        "batched": weights(4, 4, 2, seed=3),
        "w": weights(32, 3, seed=4),
    }
    x = normal(100, 2, 6, 6)
    model = make_model(nodes, {"x": ["N", 2, 6, 6]}, ["y"], constants)
    for bypass in BYPASS[:2]:
        module = quantized(model, x, n_bits=6, bypass=bypass)
        assert loss(module, x) < 0.1 * np.var(module.numpy_model.numpy_forward(x)[0])


@pytest.mark.parametrize("axis", [1, -1])
def test_an_axis_may_be_written_in_two_ways(axis: int) -> None:
    nodes = [H, R, node("Concat", ["r", "x"], "c", axis=axis), node("MatMul", ["c", "v"], "y")]
    constants = {"w": weights(5, 5), "v": weights(10, 3, seed=1)}
    x = normal(100, 5)
    module = quantized(make_model(nodes, {"x": ["N", 5]}, ["y"], constants), x, n_bits=6)
    assert loss(module, x) < 0.05 * np.var(module.numpy_model.numpy_forward(x)[0])


def test_an_operator_with_an_output_that_is_not_asked_for() -> None:
    nodes = [
        node("Conv", ["x", "k"], "a"),
        node("MaxPool", ["a"], ["p", ""], kernel_shape=[2, 2]),
        node("Relu", ["p"], "q"),
        node("Flatten", ["q"], "f", axis=1),
        node("Gemm", ["f", "w"], "y"),
    ]
    constants = {"k": weights(2, 1, 3, 3), "w": weights(18, 3)}
    model = make_model(nodes, {"x": ["N", 1, 6, 6]}, ["y"], constants)
    assert quantized(model, normal(50, 1, 6, 6)).bypassed == {}
