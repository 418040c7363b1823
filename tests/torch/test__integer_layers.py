"""Layers that train on integers: whatever the weights, sums stay within their bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cipherlearn.torch._integer_layers import (
    IntegerGrid,
    IntegerLinear,
    Levels,
    LookupLinear,
    Precision,
    one_way,
    shrunk,
)

USUAL = Precision(
    weights=IntegerGrid(4, is_signed=True),
    activations=IntegerGrid(4, is_signed=True),
    lookup_bits=5,
    accumulator_bits=16,
    output_bits=16,
    is_exact=True,
    is_proved=False,
    powers_of_two=False,
)

#: Bits with which a layer computes nearly what floating-point numbers would.
FINE = replace(
    USUAL,
    weights=IntegerGrid(8, is_signed=True),
    activations=IntegerGrid(8, is_signed=True),
    lookup_bits=8,
)


#: Hypothesis likes small numbers: what is drawn follows from a seed instead.
SEEDS = st.integers(0, 2**32 - 1)


def any_precision(generator: np.random.Generator) -> Precision:
    """Bits with room for one weight of 1 times any activation."""
    is_proved, is_signed, is_narrow, powers_of_two = generator.integers(0, 2, 4).astype(bool)
    activations = IntegerGrid(int(generator.integers(1, 9)), bool(is_signed))
    sums = int(generator.integers(activations.n_bits + 1 + is_proved, 17))
    return Precision(
        weights=IntegerGrid(int(generator.integers(2, 9)), True, bool(is_narrow)),
        activations=activations,
        lookup_bits=min(int(generator.integers(2, 9)), sums),
        accumulator_bits=sums,
        output_bits=int(generator.integers(activations.n_bits + 1, sums + 1)),
        is_exact=True,
        is_proved=bool(is_proved),
        powers_of_two=bool(powers_of_two),
    )


def levels(
    precision: Precision, inputs: int, rows: int = 20, seed: int = 0, zero: int | None = None
) -> Levels:
    """Random integers of the grid of activations."""
    grid, generator = precision.activations, torch.Generator().manual_seed(seed)
    integers = torch.randint(grid.lo, grid.hi + 1, (rows, inputs), generator=generator)
    return Levels(integers.float(), torch.tensor(0.1), grid.lo if zero is None else zero, grid)


def randomize(layer: IntegerLinear, seed: int) -> None:
    """Weights of any size, of one sign or both, all alike or some far larger than the others."""
    generator = np.random.default_rng(seed)
    each = (len(layer.weight), 1)
    weights = generator.normal(size=layer.weight.shape) ** generator.choice([0, 1, 5], each)
    weights = np.where(generator.choice([True, False], each), np.abs(weights), weights)
    weights *= generator.choice([-1.0, 1.0], each) * 10.0 ** generator.integers(-6, 7, each)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))


def randomize_window(layer: LookupLinear, seed: int) -> None:
    """A window of any place and width, and any rounding that leaves the bits that are read."""
    generator, precision = np.random.default_rng(seed), layer.precision
    most = precision.accumulator_bits - precision.lookup_bits
    ends = np.sort(generator.normal(size=(2, len(layer.bias))), axis=0)
    ends *= 10.0 ** generator.integers(-6, 7, len(layer.bias))
    layer.range.lowest, layer.range.highest = torch.tensor(ends, dtype=torch.float32)
    layer.lsbs.fill_(most if precision.is_proved else int(generator.integers(0, most + 1)))


def trained(layer: LookupLinear, x: Levels, steps: int = 3) -> LookupLinear:
    layer.train()
    for _ in range(steps):
        layer.activations(x)
    return layer.eval()


def extremes(matrix: np.ndarray, least: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest sums of each output, over all inputs from a least to a largest value."""
    one, other = matrix * least, matrix * most
    return np.minimum(one, other).sum(axis=0), np.maximum(one, other).sum(axis=0)


def real(x: Levels) -> torch.Tensor:
    return x.scale * (x.integers - x.zero)


@pytest.mark.parametrize(
    ("grid", "lo", "hi"),
    [
        (IntegerGrid(4, is_signed=True), -8, 7),
        (IntegerGrid(4, is_signed=True, is_narrow=True), -7, 7),
        (IntegerGrid(4, is_signed=False), 0, 15),
        (IntegerGrid(1, is_signed=True), -1, 0),
        (IntegerGrid(1, is_signed=False), 0, 1),
    ],
)
def test_integers_of_grids(grid: IntegerGrid, lo: int, hi: int) -> None:
    assert (grid.lo, grid.hi) == (lo, hi)
    assert grid.levels == hi - lo
    assert grid.largest == max(abs(lo), abs(hi))


def test_what_a_precision_has_room_for() -> None:
    precision = replace(USUAL, accumulator_bits=10, output_bits=8)
    assert (precision.sums.lo, precision.sums.hi) == (-512, 511)
    assert (precision.outputs.lo, precision.outputs.hi) == (-128, 127)
    assert precision.steps == 31


def test_scales_that_are_snapped() -> None:
    scales = torch.tensor([1.0, 0.3, 0.5, 5.0, 2.0**-20])
    assert torch.equal(USUAL.snapped(scales), scales)
    snapped = replace(USUAL, powers_of_two=True).snapped(scales)
    assert snapped.tolist() == [1.0, 0.5, 0.5, 8.0, 2.0**-20]


@given(
    seed=SEEDS,
    columns=st.integers(1, 30),
    most=st.integers(1, 40),
    share=st.floats(0.0, 1.0),
)
def test_what_is_shrunk_is_within_the_limit(
    seed: int, columns: int, most: int, share: float
) -> None:
    generator = np.random.default_rng(seed)
    reals = generator.laplace(size=(6, columns))
    reals *= share * most / np.abs(reals).sum(axis=1, keepdims=True)
    values = torch.tensor(reals)
    integers = torch.round(values)
    found = shrunk(integers, values, most)
    size, before = found.abs().sum(dim=1), integers.abs().sum(dim=1)
    assert torch.equal(size, before.clamp(max=most))  # and no more is taken off than has to be
    taken = integers.abs() - found.abs()
    assert set(taken.unique().tolist()) <= {0.0, 1.0}
    assert ((found == 0) | (found.sign() == integers.sign())).all()
    raised = integers.abs() - values.abs()
    for rise, is_taken in zip(raised, taken > 0, strict=True):
        others = rise[~is_taken & (rise > 0)]
        if is_taken.any() and len(others):
            assert rise[is_taken].min() >= others.max()


def test_rows_are_shrunk_by_themselves() -> None:
    values = torch.tensor([[1.7, -1.6, 0.7], [1.0, -1.0, 1.2]])
    found = shrunk(torch.round(values), values, 4)
    assert found.tolist() == [[2.0, -1.0, 1.0], [1.0, -1.0, 1.0]]


def test_weights_that_lead_to_one_side() -> None:
    weight = torch.tensor([[2.0, -3.0]])
    ((whole, largest),) = one_way(weight, -8, 7)
    assert torch.equal(whole, weight)
    assert largest == 8
    (above, largest_above), (below, largest_below) = one_way(weight, 0, 15)
    assert above.tolist() == [[2.0, 0.0]]
    assert below.tolist() == [[0.0, -3.0]]
    assert largest_above == largest_below == 15


@settings(max_examples=300)
@given(seed=SEEDS)
def test_no_input_leads_to_results_of_more_bits(seed: int) -> None:
    generator = np.random.default_rng(seed)
    precision, inputs = any_precision(generator), int(generator.integers(1, 71))
    layer = IntegerLinear(inputs, 30, precision)
    randomize(layer, seed)
    matrix, unit = layer.matrix(levels(precision, inputs))
    assert matrix.shape == (inputs, 30)
    assert (unit > 0).all()
    low, high = extremes(matrix, precision.activations.lo, precision.activations.hi)
    assert low.min() >= -(2 ** (precision.output_bits - 1))
    assert high.max() < 2 ** (precision.output_bits - 1)
    assert matrix.min() >= precision.weights.lo
    assert matrix.max() <= precision.weights.hi


@settings(max_examples=300)
@given(seed=SEEDS)
def test_no_input_leads_to_sums_of_more_bits(seed: int) -> None:
    generator = np.random.default_rng(seed)
    precision, inputs = any_precision(generator), int(generator.integers(1, 71))
    layer, grid = LookupLinear(inputs, 30, precision, nn.ReLU()), precision.activations
    randomize(layer, seed)
    randomize_window(layer, seed)
    x = levels(precision, inputs, zero=int(generator.integers(grid.lo, grid.hi + 1)))
    matrix, unit = layer.matrix(x)
    low, high = extremes(matrix, grid.lo, grid.hi)
    assert low.min() >= -(2 ** (precision.accumulator_bits - 1))
    assert high.max() < 2 ** (precision.accumulator_bits - 1)
    assert matrix.min() >= precision.weights.lo
    assert matrix.max() <= precision.weights.hi
    # As look-ups read them, from the middle of their range on, they have no more either.
    shift = layer.offset(torch.tensor(unit)).numpy() - x.zero * matrix.sum(axis=0)
    assert (low + shift).min() >= -(2 ** (precision.accumulator_bits - 1))
    assert (high + shift).max() < 2 ** (precision.accumulator_bits - 1)
    if precision.is_proved:
        start, top = -(2 ** (precision.lookup_bits - 1)), 2 ** (precision.lookup_bits - 1) - 1
        assert (low + shift).min() >= start * 2 ** int(layer.lsbs)
        assert (high + shift).max() <= top * 2 ** int(layer.lsbs)


@given(seed=SEEDS)
def test_integer_weights_are_near_the_real_ones(seed: int) -> None:
    generator = np.random.default_rng(seed)
    precision, inputs = any_precision(generator), int(generator.integers(1, 71))
    layer = IntegerLinear(inputs, 30, precision)
    randomize(layer, seed)
    x = levels(precision, inputs)
    scale = layer.scale(x)
    with torch.no_grad():
        integers, real_ones = layer.integers(scale, x), layer.weight / scale[:, None]
    grid = precision.weights
    # Rounded to the nearest, and by one towards zero where sums would be too large.
    assert (integers - real_ones.clamp(grid.lo, grid.hi)).abs().max() <= 1.0


@given(seed=SEEDS, inputs=st.integers(1, 70), is_proved=st.booleans())
def test_scales_are_powers_of_two(seed: int, inputs: int, is_proved: bool) -> None:
    precision = replace(USUAL, powers_of_two=True, is_proved=is_proved)
    x = levels(precision, inputs)
    last = IntegerLinear(inputs, 3, precision)
    hidden = LookupLinear(inputs, 3, precision, nn.Tanh())
    randomize(last, seed)
    randomize(hidden, seed)
    randomize_window(hidden, seed)
    scales = [last.scale(x), hidden.scale(x)]
    trained(hidden, x)
    scales += [hidden.scale(x), hidden.levels[0].detach()[None]]
    mantissas, _ = torch.frexp(torch.cat(scales))
    assert (mantissas == 0.5).all()


def test_results_are_products_of_integers() -> None:
    layer, x = IntegerLinear(6, 3, USUAL), levels(USUAL, 6, zero=-3)
    randomize(layer, 1)
    nn.init.normal_(layer.bias)
    matrix, unit = layer.matrix(x)
    wanted = (x.integers.numpy() + 3) @ matrix * unit + layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(x).detach().numpy(), wanted, rtol=1e-5)


def test_fine_results_are_those_of_real_weights() -> None:
    torch.manual_seed(0)
    layer, x = IntegerLinear(9, 4, FINE), levels(FINE, 9, rows=200, zero=-20)
    wanted = real(x) @ layer.weight.T + layer.bias
    assert (layer(x) - wanted).abs().max() < 0.05 * wanted.std()


def test_gradients_are_those_of_real_weights() -> None:
    torch.manual_seed(0)
    layer, x = IntegerLinear(5, 3, USUAL), levels(USUAL, 5, zero=2)
    x = replace(x, integers=x.integers.requires_grad_())
    torch.autograd.backward(layer(x).sum())
    wanted = real(x).sum(dim=0).expand(3, 5).detach()
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, wanted, rtol=1e-4)
    assert layer.bias.grad is not None
    assert layer.bias.grad.tolist() == [20.0] * 3
    assert x.integers.grad is not None
    matrix, unit = layer.matrix(x)
    np.testing.assert_allclose(x.integers.grad[0].numpy(), matrix @ unit, rtol=1e-5)


@pytest.mark.parametrize("is_proved", [False, True])
@pytest.mark.parametrize("powers_of_two", [False, True])
def test_gradients_reach_all_parameters(is_proved: bool, powers_of_two: bool) -> None:
    torch.manual_seed(0)
    precision = replace(FINE, is_proved=is_proved, powers_of_two=powers_of_two, accumulator_bits=12)
    layer, x = LookupLinear(5, 8, precision, nn.Tanh()), levels(FINE, 5)
    trained(layer, x)
    torch.autograd.backward(real(layer.train().activations(x)).square().sum())
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_activations_that_are_clipped_move_the_clip() -> None:
    torch.manual_seed(0)
    layer, x = LookupLinear(5, 8, FINE, nn.ReLU()), levels(FINE, 5, rows=100)
    trained(layer, x)
    clipped = real(layer.activations(x)) >= layer.high * 0.99
    assert clipped.any()
    torch.autograd.backward(real(layer.activations(x)).sum())
    assert layer.high.grad is not None
    # Each value that is clipped follows the clip; the others hardly do.
    assert float(layer.high.grad) == pytest.approx(int(clipped.sum()), rel=0.3)


@pytest.mark.parametrize("function", [nn.ReLU(), nn.Tanh(), nn.ELU()])
def test_fine_activations_are_those_of_real_weights(function: nn.Module) -> None:
    torch.manual_seed(0)
    layer, x = LookupLinear(9, 16, FINE, function), levels(FINE, 9, rows=300, zero=-128)
    trained(layer, x)
    with torch.no_grad():
        wanted = function(real(x) @ layer.weight.T + layer.bias).clamp(
            min(float(layer.low), 0.0), float(layer.high)
        )
        found = layer.activations(x)
    assert found.integers.min() >= found.grid.lo
    assert found.integers.max() <= found.grid.hi
    assert torch.equal(found.integers, torch.round(found.integers))
    error = (real(found) - wanted).abs()
    assert error.quantile(0.95) < 0.03 * float(wanted.max() - wanted.min())


def test_zero_is_an_activation() -> None:
    torch.manual_seed(0)
    layer = trained(LookupLinear(5, 4, USUAL, nn.Tanh()), levels(USUAL, 5))
    grid = USUAL.activations
    assert layer.low < 0
    assert grid.lo < layer.levels[1] < grid.hi
    with torch.no_grad():
        layer.low.fill_(0.3)
    assert layer.levels[1] == grid.lo  # nothing below zero has an integer


def test_a_layer_that_saw_nothing_is_not_calibrated() -> None:
    layer = LookupLinear(5, 4, USUAL, nn.ReLU())
    assert not layer.is_calibrated
    layer.train().activations(levels(USUAL, 5))
    assert layer.is_calibrated


def test_ranges_follow_what_is_seen() -> None:
    torch.manual_seed(0)
    layer = LookupLinear(5, 4, USUAL, nn.ReLU()).train()
    large, small = levels(USUAL, 5, rows=50), replace(levels(USUAL, 5), scale=torch.tensor(0.01))

    def width(x: Levels, times: int) -> float:
        for _ in range(times):
            layer.activations(x)
        return float((layer.range.highest - layer.range.lowest).mean())

    wide = width(large, 50)
    assert wide > width(small, 1) > 0.7 * wide  # not at once
    narrow = width(small, 300)
    assert narrow < 0.3 * wide
    assert width(large, 1) > 0.7 * wide  # at once


def test_ranges_stay_in_evaluation() -> None:
    torch.manual_seed(0)
    layer = trained(LookupLinear(5, 4, USUAL, nn.ReLU()), levels(USUAL, 5, rows=3))
    known = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.activations(replace(levels(USUAL, 5), scale=torch.tensor(10.0)))
    assert all(torch.equal(value, known[name]) for name, value in layer.state_dict().items())


def test_ranges_that_are_widened_have_room_for_the_rows() -> None:
    torch.manual_seed(0)
    layer = trained(LookupLinear(5, 4, USUAL, nn.ReLU()), levels(USUAL, 5, rows=2))
    rows = levels(USUAL, 5, rows=500, seed=1)

    def placed() -> np.ndarray:
        matrix, unit = layer.matrix(rows)
        sums = (rows.integers.numpy() - rows.zero) @ matrix
        return sums + layer.offset(torch.tensor(unit, dtype=torch.float32)).numpy()

    start, top = (steps * 2 ** int(layer.lsbs) for steps in (-16, 15))
    assert placed().min() < start or placed().max() > top
    layer.cover(rows)
    assert placed().min() >= start
    assert placed().max() <= top


def test_noise_decides_in_training_alone() -> None:
    torch.manual_seed(0)
    x = levels(USUAL, 9, rows=200)
    for is_exact in (True, False):
        layer = LookupLinear(9, 16, replace(USUAL, is_exact=is_exact, accumulator_bits=8), nn.ELU())
        trained(layer, x)
        assert int(layer.lsbs) > 0
        assert torch.equal(layer.activations(x).integers, layer.activations(x).integers)
        layer.train()
        known = layer.state_dict()
        known = {name: value.clone() for name, value in known.items()}
        drawn = []
        for _ in range(2):
            layer.load_state_dict(known)
            drawn.append(layer.activations(x).integers)
        assert torch.equal(*drawn) == is_exact


def test_a_layer_takes_neurons_over() -> None:
    torch.manual_seed(0)
    whole, x = LookupLinear(6, 5, USUAL, nn.PReLU(init=0.7)), levels(USUAL, 6)
    nn.init.normal_(whole.bias)
    trained(whole, x)
    part = LookupLinear(6, 2, USUAL, nn.PReLU())
    part.take_over(whole, torch.tensor([1, 4]), slice(None))
    part.eval()
    assert torch.equal(part.activations(x).integers, whole.activations(x).integers[:, [1, 4]])
    reader, fewer = IntegerLinear(5, 3, USUAL), IntegerLinear(2, 3, USUAL)
    nn.init.normal_(reader.bias)
    fewer.take_over(reader, slice(None), torch.tensor([1, 4]))
    assert torch.equal(fewer.weight, reader.weight[:, [1, 4]])
    assert torch.equal(fewer.bias, reader.bias)
    known = whole.range.lowest.clone()
    part.range.lowest.fill_(99.0)  # copies: the other one stays as it is
    assert torch.equal(whole.range.lowest, known)
