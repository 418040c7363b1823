"""Networks that train on integers: what is encrypted is what was trained, and sums have room."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from cipherlearn.circuit import Circuit, count_lookups, evaluate, ir
from cipherlearn.errors import (
    CipherlearnError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
    NotCalibratedError,
    OverflowWarning,
)
from cipherlearn.quantization import QuantizedModule
from cipherlearn.torch import SparseQuantNeuralNetwork, compile_torch_model
from cipherlearn.torch.compile import build_quantized_module

#: Small rows of training, other ones of the same kind, and rows beyond both.
FEATURES = 5
ROWS = np.random.default_rng(0).normal(size=(60, FEATURES)).astype(np.float32)
UNSEEN = np.random.default_rng(1).normal(size=(200, FEATURES)).astype(np.float32)

ACTIVATIONS: dict[str, Any] = {
    "ReLU": nn.ReLU,
    "Tanh": nn.Tanh,
    "abs": torch.abs,
    "PReLU": nn.PReLU(init=0.4),
    "below zero": lambda x: -torch.relu(x) - 1.0,
}

CHOICES: dict[str, Sequence[Any]] = {
    "n_layers": range(1, 4),
    "n_outputs": [1, 3],
    "n_hidden_neurons_multiplier": [0.4, 1, 2.0],
    "n_w_bits": range(2, 9),
    "n_a_bits": range(1, 7),
    "n_accum_bits": range(8, 17),
    "n_lookup_bits": [None, 2, 4, 8],
    "n_output_bits": [None, 8],
    "activation_function": list(ACTIVATIONS),
    "quant_narrow": [True, False],
    "quant_signed": [True, False],
    "power_of_two_scaling": [True, False],
    "exact_rounding": [True, False],
    "bounds": ["observed", "proved"],
    "input_ranges": ["feature", "tensor"],
}

#: Hypothesis likes the first choices: which ones are taken follows from a seed instead.
SEEDS = st.integers(0, 2**32 - 1)


def any_options(seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {name: of[int(generator.integers(len(of)))] for name, of in CHOICES.items()}


def network(seed: int = 0, **options: Any) -> SparseQuantNeuralNetwork:
    torch.manual_seed(seed)
    given = {"input_dim": FEATURES, "n_layers": 2, "n_outputs": 3, **options}
    name = given.get("activation_function")
    if isinstance(name, str) and name in ACTIVATIONS:
        given["activation_function"] = ACTIVATIONS[name]
    given.setdefault("n_hidden_neurons_multiplier", 1)
    return SparseQuantNeuralNetwork(**given)


def train(
    net: SparseQuantNeuralNetwork,
    rows: np.ndarray = ROWS,
    steps: int = 4,
    targets: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> SparseQuantNeuralNetwork:
    """The network after some steps towards random targets, or given ones, ready for the rows."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    x = torch.tensor(rows)
    y = torch.randn(len(x), len(net.last.bias)) if targets is None else targets(x)
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.mse_loss(net(x), y))
        optimizer.step()
    net.calibrate(x)
    return net.eval()


def trained(seed: int = 0, **options: Any) -> SparseQuantNeuralNetwork:
    return train(network(seed, **options))


def answers(net: SparseQuantNeuralNetwork, rows: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net(torch.tensor(rows)).numpy()


def forward(module: QuantizedModule, rows: np.ndarray) -> np.ndarray:
    """Results, whatever the module has to tell of the rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(module.forward(rows))


def assert_same(net: SparseQuantNeuralNetwork, module: QuantizedModule, rows: np.ndarray) -> None:
    wanted = answers(net, rows)
    atol = 1e-5 * max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(forward(module, rows), wanted, rtol=0, atol=atol)


def products(circuit: Circuit) -> list[int]:
    """Where sums are, in order: those of hidden layers, and the results."""
    nodes = enumerate(circuit.nodes)
    return [place for place, node in nodes if isinstance(node.primitive, ir.MatMul)]


def matrix_of(circuit: Circuit, place: int) -> np.ndarray:
    constant = circuit.nodes[circuit.nodes[place].inputs[1]].primitive
    assert isinstance(constant, ir.Constant)
    return constant.values


def integers_in_the_box(circuit: Circuit) -> np.ndarray:
    """1,000 random inputs, and those with the largest and smallest sum of each first neuron."""
    (known,) = circuit.inputs
    random = np.random.default_rng(0).integers(known.lo, known.hi + 1, (1000, *known.shape))
    rises = matrix_of(circuit, products(circuit)[0]).T[:, None] > 0
    ends = [np.where(rises, known.hi, known.lo), np.where(rises, known.lo, known.hi)]
    return np.concatenate([random, *ends])


def columns(weights: nn.Parameter) -> torch.Tensor:
    return weights.detach().abs().sum(dim=0)


@settings(max_examples=80)
@given(seed=SEEDS)
def test_what_is_encrypted_is_what_was_trained(seed: int) -> None:
    options = any_options(seed)
    net = trained(seed, **options)
    module = net.quantized_module()
    assert_same(net, module, np.concatenate([ROWS, UNSEEN, 10 * UNSEEN]))
    kinds = [node.primitive for node in module.circuit]
    assert {k.exact for k in kinds if isinstance(k, ir.Round)} <= {options["exact_rounding"]}
    again = QuantizedModule.loads(module.dumps())
    np.testing.assert_array_equal(forward(again, UNSEEN), forward(module, UNSEEN))


@settings(max_examples=60)
@given(seed=SEEDS)
def test_no_input_leads_to_sums_of_more_bits(seed: int) -> None:
    options = any_options(seed)
    net = trained(seed, **options)
    circuit = net.quantized_module().circuit
    *hidden, last = places = products(circuit)
    assume(len(places) == options["n_layers"])  # fewer where results are all the same
    rows = integers_in_the_box(circuit)
    values = evaluate(circuit, rows, keep=places).values
    bits = dict.fromkeys(hidden, options["n_accum_bits"])
    bits[last] = options["n_output_bits"] or options["n_accum_bits"]
    for place, most in bits.items():
        interval = circuit.nodes[place].interval
        assert -(2 ** (most - 1)) <= interval.min <= values[place].min()
        assert values[place].max() <= interval.max < 2 ** (most - 1)
        weights = matrix_of(circuit, place)
        assert -(2 ** (options["n_w_bits"] - 1)) + options["quant_narrow"] <= weights.min()
        assert weights.max() < 2 ** (options["n_w_bits"] - 1)


@settings(max_examples=40)
@given(seed=SEEDS)
def test_no_input_leaves_proved_bounds(seed: int) -> None:
    net = trained(seed, **{**any_options(seed), "bounds": "proved"})
    module = net.quantized_module()
    assert module.circuit.is_proved
    assert not any(isinstance(node.primitive, ir.Assume) for node in module.circuit)
    low, high = net.input_low.numpy(), net.input_high.numpy()
    rows = np.random.default_rng(0).uniform(low, high, (500, FEATURES))
    module.forward(rows)
    module.quantized_forward(integers_in_the_box(module.circuit)[:, 0])
    assert module.overflow_count == 0
    assert module.clipped_count == 0


@pytest.mark.parametrize("n_lookup_bits", [2, 5, 8])
def test_look_ups_read_no_more_bits_than_asked_for(n_lookup_bits: int) -> None:
    net = trained(n_layers=3, n_lookup_bits=n_lookup_bits, n_w_bits=6, n_a_bits=6)
    circuit = net.quantized_module().circuit
    read = [node.inputs[0] for node in circuit if isinstance(node.primitive, ir.Lookup)]
    assert len(read) == 2
    for place in read:
        assert 2 ** (n_lookup_bits - 1) < circuit.nodes[place].interval.domain_size
        assert circuit.nodes[place].interval.domain_size <= 2**n_lookup_bits


def test_a_table_reads_all_bits_of_sums_that_are_not_rounded() -> None:
    net = trained(n_w_bits=3, n_a_bits=2, n_lookup_bits=4)
    net._lookups[0].lsbs.fill_(0)
    module = net.quantized_module()
    kinds = [type(node.primitive) for node in module.circuit]
    assert ir.Assume in kinds
    assert ir.Round not in kinds
    assert_same(net, module, np.concatenate([ROWS, UNSEEN]))


def test_rows_unlike_those_of_training_are_counted() -> None:
    narrow = ROWS[:, :1] + 0.01 * ROWS
    net = train(network(), narrow, steps=20)
    module = net.quantized_module()
    module.forward(narrow)
    assert module.overflow_count == 0
    # Each feature is in its range, and together they are nothing that training saw.
    ends = np.stack([narrow.min(axis=0), narrow.max(axis=0)])
    choice = np.random.default_rng(0).integers(0, 2, (50, FEATURES))
    corners = ends[choice, np.arange(FEATURES)]
    with pytest.warns(OverflowWarning, match=r"accumulators of 50 rows .*\(in layer0\)"):
        module.forward(corners)
    assert module.overflow_count > 0
    assert module.clipped_count == 0
    net.calibrate(torch.tensor(corners))
    wider = net.quantized_module()
    wider.forward(corners)
    wider.forward(narrow)
    assert wider.overflow_count == 0
    assert_same(net, wider, corners)


def test_calibration_widens_the_ranges_of_features() -> None:
    net = trained()
    assert not net.training
    low, high = net.input_low.clone(), net.input_high.clone()
    net.calibrate(torch.tensor(ROWS[:5]))
    assert torch.equal(net.input_low, low)
    assert torch.equal(net.input_high, high)
    net.calibrate(torch.tensor(3 * ROWS))
    assert torch.allclose(net.input_low, 3 * low)
    assert torch.allclose(net.input_high, 3 * high)
    net.train().calibrate(torch.tensor(ROWS))
    assert net.training


def test_calibration_changes_no_weights() -> None:
    net = trained(activation_function="PReLU")
    before = {name: value.clone() for name, value in net.named_parameters()}
    net.calibrate(torch.tensor(3 * ROWS))
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


@pytest.mark.parametrize("ranges", ["feature", "tensor"])
def test_ranges_of_features(ranges: str) -> None:
    rows = ROWS * np.array([1, 2, 3, 4, 5], dtype=np.float32)
    net = train(network(input_ranges=ranges), rows)
    wanted = (rows.min(axis=0), rows.max(axis=0))
    if ranges == "tensor":
        wanted = (np.full(FEATURES, rows.min()), np.full(FEATURES, rows.max()))
    np.testing.assert_allclose(net.input_low.numpy(), wanted[0])
    np.testing.assert_allclose(net.input_high.numpy(), wanted[1])
    module = net.quantized_module()
    integers = module.quantize_input(np.stack(wanted))
    assert integers.tolist() == [[-8] * FEATURES, [7] * FEATURES]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bounds": "proved", "n_accum_bits": 9},
        {"n_layers": 3, "activation_function": "Tanh"},
        {"power_of_two_scaling": True, "quant_narrow": True, "quant_signed": False},
    ],
)
def test_a_network_learns(options: dict[str, Any]) -> None:
    def targets(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(x[:, :3].argmax(dim=1), 3).float()

    net = network(n_hidden_neurons_multiplier=4, **options)
    train(net, np.concatenate([ROWS, UNSEEN[:100]]), 150, targets)
    right = answers(net, UNSEEN[100:]).argmax(axis=1) == UNSEEN[100:, :3].argmax(axis=1)
    assert right.mean() > 0.75


def test_training_changes_all_parameters() -> None:
    net = network(n_layers=3, activation_function="PReLU", n_hidden_neurons_multiplier=3)
    train(net, steps=1)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    assert len(before) == 2 * 3 + 2 * 2 + 2
    train(net, steps=5)
    assert not [n for n, value in net.named_parameters() if torch.equal(value, before[n])]


@pytest.mark.parametrize("activation", ["ReLU", "Tanh"])
def test_fine_bits_are_nearly_floating_point_numbers(activation: str) -> None:
    bits = {"n_w_bits": 8, "n_a_bits": 8, "n_lookup_bits": 8}
    net = train(network(activation_function=activation, **bits), UNSEEN, 40)
    hidden, last = net._lookups[0], net.last
    with torch.no_grad():
        units = (torch.tensor(UNSEEN) - net.input_low) / (net.input_high - net.input_low)
        sums = units.float() @ hidden.weight.T + hidden.bias
        low, high = min(float(hidden.low), 0.0), float(hidden.high)
        activations = hidden.function(sums).clamp(low, high)
        wanted = (activations @ last.weight.T + last.bias).numpy()
    error = np.abs(answers(net, UNSEEN) - wanted)
    assert np.quantile(error, 0.9) < 0.15 * wanted.std()


def test_each_layer_has_an_activation_of_its_own() -> None:
    given = nn.PReLU(init=0.4)
    net = train(network(n_layers=3, activation_function=given), steps=5)
    slopes = [float(layer.function.weight.detach()) for layer in net._lookups]
    assert slopes[0] != slopes[1]
    assert float(given.weight.detach()) == pytest.approx(0.4)


def test_single_rows_and_features_that_never_change() -> None:
    rows = ROWS.copy()
    rows[:, 2] = 7.0
    for few in (rows, rows[:1]):
        net = train(network(), few)
        module = net.quantized_module()
        assert np.isfinite(answers(net, few)).all()
        assert_same(net, module, few)
        assert_same(net, module, few[:1])
        module.forward(few)
        assert (module.overflow_count, module.clipped_count) == (0, 0)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_weights_that_all_become_zero(weight: float) -> None:
    net = trained(n_output_bits=5)  # of five equal weights, none has room for an integer
    with torch.no_grad():
        net.last.weight.fill_(weight)
        net.last.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
    module = net.quantized_module(2.0, 1.0)
    wanted = np.broadcast_to([3.0, -3.0, 7.0], (60, 3))
    np.testing.assert_allclose(2.0 * answers(net, ROWS) + 1.0, wanted)
    np.testing.assert_allclose(module.forward(ROWS), wanted)
    assert matrix_of(module.circuit, products(module.circuit)[-1]).any()  # no engine takes zeros
    module.compile(engine="clear")
    np.testing.assert_allclose(module.forward(ROWS, fhe="execute"), wanted)


def test_the_client_scales_scores() -> None:
    net = trained()
    scale, shift = np.array([2.0, 10.0, 0.5]), np.array([0.0, 100.0, -1.0])
    found = net.quantized_module(scale, shift).forward(ROWS)
    np.testing.assert_allclose(found, answers(net, ROWS) * scale + shift, atol=1e-4)


def test_copies_give_the_same() -> None:
    net = trained(activation_function="PReLU", n_layers=3)
    fresh = network(seed=1, activation_function="PReLU", n_layers=3).eval()
    assert not fresh.is_calibrated
    fresh.load_state_dict(net.state_dict())
    for other in (fresh, copy.deepcopy(net)):
        assert other.is_calibrated
        np.testing.assert_array_equal(answers(other, UNSEEN), answers(net, UNSEEN))
        found = forward(other.quantized_module(), UNSEEN)
        np.testing.assert_array_equal(found, forward(net.quantized_module(), UNSEEN))
    wanted = answers(net, UNSEEN)
    train(copy.deepcopy(net))
    np.testing.assert_array_equal(answers(net, UNSEEN), wanted)


@pytest.mark.parametrize("ranges", ["feature", "tensor"])
def test_saved_modules_give_the_same(ranges: str) -> None:
    module = trained(n_layers=3, input_ranges=ranges).quantized_module(3.0, -1.0)
    again = QuantizedModule.loads(module.dumps())
    np.testing.assert_array_equal(forward(again, UNSEEN), forward(module, UNSEEN))
    np.testing.assert_array_equal(again.quantize_input(ROWS), module.quantize_input(ROWS))


def test_encrypted_results_are_those_of_the_network() -> None:
    bits = {"n_w_bits": 3, "n_a_bits": 2, "n_accum_bits": 7, "exact_rounding": True}
    net = network(input_dim=4, n_outputs=2, n_hidden_neurons_multiplier=0.75, **bits)
    rows = ROWS[:, :4]
    module = compile_torch_model(train(net, rows, 20), rows, import_qat=True)
    assert net.hidden_neurons == (3,)
    clear = module.forward(rows[:3])
    np.testing.assert_array_equal(module.forward(rows[:3], fhe="execute"), clear)
    assert len(np.unique(module.forward(rows))) > 2


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_compiling_takes_the_network_as_it_is(n_layers: int) -> None:
    net = trained(n_layers=n_layers).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    module = compile_torch_model(net, 2 * UNSEEN, import_qat=True)
    assert module.is_compiled
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    module.forward(2 * UNSEEN)  # the rows that it was given have room
    assert (module.overflow_count, module.clipped_count) == (0, 0)
    same = build_quantized_module(net, torch.tensor(ROWS), import_qat=True)
    net.calibrate(torch.tensor(ROWS))
    assert_same(net.eval(), same, UNSEEN)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"import_qat": False}, InvalidTypeError, "give import_qat=True"),
        ({"n_bits": 4}, InvalidParameterError, "n_bits and rounding_threshold_bits .*n_w_bits"),
        ({"rounding_threshold_bits": 4}, InvalidParameterError, "leave them out"),
        ({"rounding_threshold_bits": "auto"}, InvalidParameterError, "leave them out"),
        ({"bounds": "proved"}, InvalidParameterError, "trained with bounds='observed'"),
    ],
)
@pytest.mark.parametrize("function", [compile_torch_model, build_quantized_module])
def test_options_that_training_has_decided(
    function: Any, options: dict[str, Any], error: type[CipherlearnError], message: str
) -> None:
    with pytest.raises(error, match=message):
        function(trained(), ROWS, **{"import_qat": True, **options})


def test_proved_networks_are_compiled_as_proved() -> None:
    net = trained(bounds="proved", n_accum_bits=9)
    module = build_quantized_module(net, ROWS, import_qat=True, bounds="proved")
    assert module.circuit.is_proved
    assert_same(net, module, UNSEEN)


def test_what_cannot_be_compiled() -> None:
    net = trained()
    whole = nn.Sequential(net, nn.Softmax(dim=1))
    for import_qat in (True, False):
        with pytest.raises(ModelError, match="a Sequential holds layers of a SparseQuantNeural"):
            compile_torch_model(whole, ROWS, import_qat=import_qat)
    with pytest.raises(InvalidShapeError, match="2 arrays were given; the network takes one"):
        compile_torch_model(net, (ROWS, ROWS), import_qat=True)
    with pytest.raises(InvalidShapeError, match=r"shape \(60, 3\) were given; .*\(rows, 5\)"):
        compile_torch_model(net, ROWS[:, :3], import_qat=True)
    with pytest.raises(NotCalibratedError, match="was not trained"):
        compile_torch_model(network(), ROWS, import_qat=True)


def test_a_network_that_was_not_trained() -> None:
    net = network().eval()
    assert not net.is_calibrated
    for use in (
        lambda: net(torch.tensor(ROWS)),
        net.quantized_module,
        lambda: net.calibrate(torch.tensor(ROWS)),
    ):
        with pytest.raises(NotCalibratedError, match=r"in training mode \(train\(\)\) first"):
            use()
    net.train()(torch.tensor(ROWS))
    assert net.is_calibrated
    module = net.quantized_module()
    assert net.training
    assert_same(net.eval(), module, UNSEEN)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (4, 5, 1), (0, 5)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    net = trained().train()
    for use in (net, net.calibrate, net.observe):
        with pytest.raises(InvalidShapeError, match=r"the network takes \(rows, 5\)"):
            use(torch.zeros(shape))


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("input_dim", 0, "input_dim must be a whole number above 0, not 0"),
        ("input_dim", 2.0, "input_dim must be a whole number above 0, not 2.0"),
        ("n_layers", 0, "n_layers must be a whole number above 0, not 0"),
        ("n_layers", True, "n_layers must be a whole number above 0, not True"),
        ("n_outputs", -1, "n_outputs must be a whole number above 0, not -1"),
        ("n_hidden_neurons_multiplier", 0, "must be a number above 0, not 0"),
        ("n_hidden_neurons_multiplier", "4", "must be a number above 0, not '4'"),
        ("n_hidden_neurons_multiplier", float("inf"), "must be a number above 0, not inf"),
        ("n_w_bits", 1, "n_w_bits must lie between 2 and 8, not 1"),
        ("n_w_bits", 9, "n_w_bits must lie between 2 and 8, not 9"),
        ("n_w_bits", 4.0, "n_w_bits must be an integer from 2 to 8"),
        ("n_a_bits", 0, "n_a_bits must lie between 1 and 8, not 0"),
        ("n_a_bits", 9, "n_a_bits must lie between 1 and 8, not 9"),
        ("n_accum_bits", 17, "n_accum_bits must lie between 2 and 16, not 17"),
        ("n_accum_bits", 1, "n_accum_bits must lie between 2 and 16, not 1"),
        ("n_accum_bits", 4, "n_accum_bits=4 .*not even one weight of 1 .*4 bits"),
        ("n_lookup_bits", 1, "n_lookup_bits must lie between 2 and 8, not 1"),
        ("n_lookup_bits", 9, "n_lookup_bits must lie between 2 and 8, not 9"),
        ("n_output_bits", 17, "n_output_bits must lie between 2 and 16, not 17"),
        ("n_output_bits", 4, "n_output_bits=4.*not even one weight"),
        ("n_prune_neurons_percentage", 1.0, "from 0 to less than 1, not 1.0"),
        ("n_prune_neurons_percentage", -0.1, "from 0 to less than 1, not -0.1"),
        ("bounds", "sure", r"bounds must be one of \['observed', 'proved'\], not 'sure'"),
        ("input_ranges", "row", r"input_ranges must be one of \['feature', 'tensor'\], not 'row'"),
        ("quant_narrow", "maybe", "quant_narrow must be True or False, not 'maybe'"),
        ("quant_signed", 1, "quant_signed must be True or False, not 1"),
        ("exact_rounding", None, "exact_rounding must be True or False, not None"),
        ("power_of_two_scaling", "no", "power_of_two_scaling must be True or False, not 'no'"),
    ],
)
def test_wrong_parameters(parameter: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        network(**{parameter: value})


def test_activations_that_are_no_functions() -> None:
    for wrong in (3, "relu", None):
        with pytest.raises(InvalidTypeError, match="activation_function must be a class of mod"):
            network(activation_function=wrong)


def test_sums_have_room_for_one_weight() -> None:
    for bounds, least in (("observed", 5), ("proved", 6)):
        with pytest.raises(InvalidParameterError, match="not even one weight of 1"):
            network(n_a_bits=4, n_accum_bits=least - 1, bounds=bounds)
        net = trained(n_a_bits=4, n_accum_bits=least, bounds=bounds)
        assert np.isfinite(answers(net, ROWS)).all()


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({"n_layers": 1}, ()),
        ({"n_layers": 2, "n_hidden_neurons_multiplier": 4}, (20,)),
        ({"n_layers": 4, "n_hidden_neurons_multiplier": 1.5}, (8, 8, 8)),
        ({"n_hidden_neurons_multiplier": 0.01}, (1,)),
        ({"n_hidden_neurons_multiplier": 4, "n_prune_neurons_percentage": 0.75}, (5,)),
        ({"n_hidden_neurons_multiplier": 1, "n_prune_neurons_percentage": 0.99}, (1,)),
    ],
)
def test_hidden_neurons(options: dict[str, Any], widths: tuple[int, ...]) -> None:
    net = trained(**options)
    assert net.hidden_neurons == widths
    # A single neuron may give nothing but zeros: then there is nothing to look up.
    accepted = {sum(widths)} | ({0} if widths == (1,) else set())
    assert count_lookups(net.quantized_module().circuit).total in accepted


def test_inputs_that_a_neuron_may_have() -> None:
    assert network(n_accum_bits=16).max_active_neurons() == 32767 // (8 * 8)
    assert network(n_accum_bits=8, quant_signed=False).max_active_neurons() == 127 // (8 * 15)
    narrow = network(n_accum_bits=10, quant_narrow=True, n_w_bits=3, n_a_bits=2)
    assert narrow.max_active_neurons() == 511 // (3 * 2)


def test_the_neurons_that_matter_most_are_kept() -> None:
    net = trained(n_layers=3, n_hidden_neurons_multiplier=2, activation_function="PReLU")
    first, second = net._lookups
    with torch.no_grad():
        for layer, reader, weak in ((first, second, [0, 3, 4, 7, 9]), (second, net.last, range(5))):
            reader.weight[:, list(weak)] *= 1e-3
            layer.weight[list(weak)] *= 10  # large weights that nothing reads matter little
    smaller = net.pruned(0.5)
    assert smaller.hidden_neurons == (5, 5)
    kept, kept_after = torch.tensor([1, 2, 5, 6, 8]), torch.arange(5, 10)
    pairs = [
        (smaller.hidden[0].weight, first.weight[kept]),
        (smaller.hidden[0].bias, first.bias[kept]),
        (smaller.hidden[0].function.weight, first.function.weight),
        (smaller.hidden[1].weight, second.weight[kept_after][:, kept]),
        (smaller.hidden[1].bias, second.bias[kept_after]),
        (smaller.last.weight, net.last.weight[:, kept_after]),
        (smaller.last.bias, net.last.bias),
        (smaller.input_low, net.input_low),
        (smaller.input_high, net.input_high),
    ]
    for found, wanted in pairs:
        assert torch.equal(found, wanted)


def test_neurons_that_reach_farther_matter_more() -> None:
    net = network(n_hidden_neurons_multiplier=1)
    with torch.no_grad():
        net.hidden[0].weight.copy_(torch.eye(5) * torch.tensor([1.0, 9.0, 2.0, 7.0, 3.0]))
        net.last.weight.fill_(1.0)
    net(torch.tensor(ROWS))
    wanted = net.hidden[0].weight[[1, 3]]
    assert torch.equal(net.pruned(0.6).hidden[0].weight, wanted)


def test_pruned_networks_are_ready_and_others_stay() -> None:
    net = trained(n_layers=3, n_hidden_neurons_multiplier=3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    smaller = net.pruned(0.4)
    assert smaller.is_calibrated
    assert smaller.training == net.training
    assert net.train().pruned(0.4).training
    assert smaller.hidden_neurons == (9, 9)
    assert_same(smaller, smaller.quantized_module(), ROWS)
    train(smaller)
    train(smaller.pruned(0.8))
    assert net.hidden_neurons == (15, 15)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_wrong_shares_of_neurons() -> None:
    net = trained()
    for wrong in (1.0, -0.5, "half", None, True):
        with pytest.raises(InvalidParameterError, match="from 0 to less than 1"):
            net.pruned(wrong)
    with pytest.raises(InvalidParameterError, match=r"no more neurons than .* already \(0\.0\)"):
        net.pruned(0.0)
    half = net.pruned(0.5)
    for less in (0.5, 0.3):
        with pytest.raises(InvalidParameterError, match=r"left out already \(0\.5\)"):
            half.pruned(less)
    assert half.pruned(0.8).hidden_neurons == (1,)


@pytest.mark.parametrize(
    "function",
    [lambda z: z - z.mean(dim=1, keepdim=True), nn.Softmax(dim=1), nn.Softmax(dim=0)],
    ids=["centred", "rows", "columns"],
)
def test_activations_are_functions_of_single_values(function: Any) -> None:
    net = SparseQuantNeuralNetwork(5, 2, 3, activation_function=function)
    with pytest.raises(InvalidParameterError, match="not element-wise"):
        net(torch.rand(20, 5))


def test_activations_that_are_no_numbers() -> None:
    net = SparseQuantNeuralNetwork(5, 2, 3, activation_function=torch.sqrt)
    with pytest.raises(InvalidParameterError, match="needed is a number for each"):
        net(torch.rand(20, 5))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_no_numbers(value: float) -> None:
    net = trained()
    rows = torch.full((2, 5), value)
    for mode in (True, False):
        with pytest.raises(InvalidParameterError, match="not numbers"):
            net.train(mode)(rows)
    assert net.is_calibrated


def test_subclasses_hide_parameters() -> None:
    class Small(SparseQuantNeuralNetwork):
        def __init__(self) -> None:
            super().__init__(5, 2, 3, n_w_bits=3)

    net = Small()
    net(torch.rand(20, 5))
    assert net.pruned(0.5).hidden_neurons == (10,)


def test_proved_windows_are_no_wider_than_sums() -> None:
    torch.manual_seed(0)
    net = SparseQuantNeuralNetwork(5, 2, 3, bounds="proved", n_accum_bits=16)
    x = torch.rand(200, 5)
    net(x)
    levels = net.hidden[0].activations(net._input_levels(x)).integers
    assert len(levels.unique()) > 5  # of 16


@pytest.mark.parametrize("rows", [slice(None), slice(1, 2)], ids=["all", "one"])
def test_saved_networks_of_constant_results(rows: slice) -> None:
    net = trained()
    with torch.no_grad():
        net.last.weight[rows] = 0.0
    module = net.eval().quantized_module()
    loaded = QuantizedModule.loads(module.dumps())
    x = torch.rand(5, 5)
    wanted = net(x).detach().numpy()
    np.testing.assert_allclose(loaded.forward(x.double().numpy()), wanted, atol=1e-5)
