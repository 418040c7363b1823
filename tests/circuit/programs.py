"""Random circuits over all primitives, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, IntValue, ir
from cipherlearn.circuit.functions import concatenate, convolve
from cipherlearn.errors import AccumulatorOverflowError, LookupWidthError

Draw = Callable[[st.SearchStrategy[Any]], Any]

SHAPES = [(), (3,), (1, 4), (2, 3), (1, 2, 3), (2, 1, 2)]
MAXIMUM_SIZE = 48

seeds = st.integers(0, 2**32 - 1)


def arrays_of(draw: Draw, shape: tuple[int, ...], lo: int, hi: int) -> np.ndarray:
    """Integers of a shape; their seed is drawn, which is much faster than drawing each."""
    return np.random.default_rng(draw(seeds)).integers(lo, hi, shape, endpoint=True)


def some_shape(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to another one, with as many axes."""
    return tuple(draw(st.sampled_from([1, n])) for n in shape)


def add_constant(draw: Draw, builder: Builder, value: IntValue, _: IntValue) -> Any:
    constant = builder.constant(arrays_of(draw, some_shape(draw, value.shape), -20, 20))
    operands = [value, constant] if draw(st.booleans()) else [constant, value]
    kind = draw(st.sampled_from([ir.Add, ir.Subtract, ir.Multiply, ir.Maximum]))
    return builder.add(kind(), *operands)


def combine(draw: Draw, builder: Builder, left: IntValue, right: IntValue) -> Any:
    ndim = max(left.ndim, right.ndim)
    left, right = (v.reshape((1,) * (ndim - v.ndim) + v.shape) for v in (left, right))
    pairs = zip(left.shape, right.shape, strict=True)
    if not all(a == b or 1 in {a, b} for a, b in pairs):
        right = left
    kind = draw(st.sampled_from([ir.Add, ir.Subtract, ir.Multiply, ir.Maximum]))
    return builder.add(kind(), left, right)


def matrix_product(draw: Draw, builder: Builder, value: IntValue, _: IntValue) -> Any:
    rows = value.reshape(1, -1) if value.ndim < 2 else value
    if draw(st.booleans()):
        order = (*range(rows.ndim - 2), rows.ndim - 1, rows.ndim - 2)
        return builder.add(ir.MatMul(), rows, rows.transpose(order))
    lead = some_shape(draw, rows.shape[:-2])
    if draw(st.booleans()):
        return rows @ arrays_of(draw, (*lead, rows.shape[-1], 2), -9, 9)
    return arrays_of(draw, (*lead, 2, rows.shape[-2]), -9, 9) @ rows


def convolution(draw: Draw, _: Builder, value: IntValue, __: IntValue) -> Any:
    channels = 2 if value.size % 2 == 0 else 1
    space = (value.size // channels,) if draw(st.booleans()) else (1, value.size // channels)
    groups = draw(st.sampled_from([1, channels]))
    taps = tuple(draw(st.integers(1, min(n, 3))) for n in space)
    kernel = arrays_of(draw, (2 * groups, channels // groups, *taps), -5, 5)
    return convolve(
        value.reshape(1, channels, *space),
        kernel,
        strides=tuple(draw(st.integers(1, 2)) for _ in space),
        pads=tuple(draw(st.integers(0, 2)) for _ in (*space, *space)),
        dilations=tuple(draw(st.integers(1, 2)) if n >= 5 else 1 for n in space),
        groups=groups,
    )


def total(draw: Draw, builder: Builder, value: IntValue, _: IntValue) -> Any:
    axes = tuple(axis for axis in range(value.ndim) if draw(st.booleans()))
    return builder.add(ir.Sum(axes, draw(st.booleans())), value)


def selection(draw: Draw, builder: Builder, value: IntValue, _: IntValue) -> Any:
    if not value.ndim:
        return value
    extent = value.shape[-1]
    part = draw(
        st.sampled_from(
            [
                extent - 1,
                slice(None, None, -1),
                slice(0, max(1, extent - 1)),
                np.arange(extent)[::-1].copy(),
                np.zeros(2, dtype=np.int64),
            ]
        )
    )
    return builder.add(ir.Index((*(slice(None),) * (value.ndim - 1), part)), value)


def movement(draw: Draw, builder: Builder, value: IntValue, other: IntValue) -> Any:
    choice = draw(st.integers(0, 3))
    if choice == 0:
        return builder.add(ir.Reshape((value.size, 1)), value)
    if choice == 1:
        return builder.add(ir.Transpose(tuple(draw(st.permutations(range(value.ndim))))), value)
    if choice == 2:
        shape = tuple(2 if n == 1 else n for n in value.shape)
        return builder.add(ir.Broadcast(shape), value)
    return concatenate([value.reshape(-1), other.reshape(-1), np.array([5, -3])])


def lookup(draw: Draw, builder: Builder, value: IntValue, _: IntValue) -> Any:
    interval = value.interval
    if interval.lookup_width > 10:
        return builder.add(ir.Round(interval.lookup_width - 6, draw(st.booleans())), value)
    # Shorter and longer tables than the domain: reads outside go to the border.
    rows = max(1, interval.domain_size + draw(st.integers(-2, 2)))
    start = int(interval.domain[0]) + draw(st.integers(-2, 2)) * interval.step
    columns = draw(st.sampled_from([(), some_shape(draw, value.shape)]))
    table = arrays_of(draw, (rows, *columns), -30, 30)
    return builder.add(ir.Lookup(table, start, interval.step), value)


def rounding(draw: Draw, builder: Builder, value: IntValue, _: IntValue) -> Any:
    return builder.add(ir.Round(draw(st.integers(0, 4)), draw(st.booleans())), value)


def declared(draw: Draw, _: Builder, value: IntValue, __: IntValue) -> Any:
    interval = value.interval
    lo = interval.lo + arrays_of(draw, value.shape, 0, 3)
    return value.assume(lo, np.maximum(lo, interval.hi - 2))


STEPS = (
    add_constant,
    combine,
    matrix_product,
    convolution,
    total,
    selection,
    movement,
    lookup,
    rounding,
    declared,
)


@st.composite
def circuits(
    draw: Draw,
    exact: bool = False,
    steps: tuple[Callable[..., Any], ...] = STEPS,
    most: int = 8,
) -> Circuit:
    """Small circuits; without approximate rounding and declared ranges if ``exact``."""
    builder = Builder()
    pool = []
    for name in ["x", "y"][: draw(st.integers(1, 2))]:
        lo = draw(st.integers(-9, 4))
        hi = lo + draw(st.integers(0, 12))
        encrypted = name == "x" or draw(st.booleans())
        shape = draw(st.sampled_from(SHAPES))
        pool.append(builder.input(name, shape, lo, hi, encrypted=encrypted))
    for number in range(draw(st.integers(1, most))):
        step = draw(st.sampled_from(steps))
        value, other = (draw(st.sampled_from(pool)) for _ in range(2))
        try:
            with builder.scope(f"layer_{number}"):
                result = step(draw, builder, value, other)
        except (AccumulatorOverflowError, LookupWidthError):
            continue
        primitive = builder.node(result).primitive
        if exact and isinstance(primitive, ir.Assume):
            continue
        if exact and isinstance(primitive, ir.Round) and not primitive.exact:
            continue
        if 0 < result.size <= MAXIMUM_SIZE:
            pool.append(result)
    encrypted = [value for value in pool if value.encrypted]
    outputs = {value.position: value for value in (encrypted[-1], draw(st.sampled_from(encrypted)))}
    return builder.finish(list(outputs.values()))


def inputs_of(circuit: Circuit, seed: int, rows: int = 4) -> list[np.ndarray]:
    """A batch for a circuit: random rows, then one of smallest and one of largest integers."""
    generator = np.random.default_rng(seed)
    batches = []
    for known in circuit.inputs:
        batch = generator.integers(known.lo, known.hi, (rows, *known.shape), endpoint=True)
        if rows >= 2:
            batch[-2:] = np.array([known.lo, known.hi]).reshape(2, *(1,) * len(known.shape))
        batches.append(batch)
    return batches
