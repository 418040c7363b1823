"""A legalized circuit as a function that an engine traces.

The engine comes as an argument: this module imports none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.engines._noise import filler, missing_variance
from cipherlearn.engines._regions import Regions, behind, reduced
from cipherlearn.engines.base import IntArray
from cipherlearn.errors import CompilationError

#: Bits of the widest tables that the engine looks up without dividing integers into remainders.
NATIVE_BITS = 10


@dataclass(eq=False)
class Lowering:
    """A circuit in the words of the engine.

    Parameters
    ----------
    circuit : Circuit
        A legalized one.
    regions : Regions
    fhe : module
        The engine: ``univariate``, ``round_bit_pattern``, ``conv`` and ``Exactness`` are used.
    reduce : bool
        Whether integers beyond a region's width may be replaced by others of the same effect.
    """

    circuit: ir.Circuit
    regions: Regions
    fhe: Any
    reduce: bool = True
    #: Positions whose values the engine takes, in order: encrypted inputs, then clear values.
    parameters: tuple[int, ...] = field(init=False)
    #: Bits to declare for every value traced so far, by the engine's own node.
    declared: dict[Any, int] = field(init=False, default_factory=dict)
    #: Bits of the region of every value traced so far.
    assigned: dict[Any, int] = field(init=False, default_factory=dict)

    #: Whether some integer was replaced by another of the same effect.
    reduced: bool = field(init=False, default=False)

    #: Variance of the noise that the engine overlooks, by position.
    missing: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        self.missing = missing_variance(self.circuit, self.regions, self.reduce)
        used = {index for node in self.circuit.nodes if node.encrypted for index in node.inputs}
        used |= set(self.circuit.outputs)
        inputs = [p for p in self.circuit.input_positions if self.circuit.nodes[p].encrypted]
        clear = [
            position
            for position in sorted(used)
            if not self.circuit.nodes[position].encrypted
            and not self.circuit.nodes[position].is_constant
        ]
        self.parameters = (*(position for position in inputs if position in used), *clear)

    @property
    def has_wide_tables(self) -> bool:
        """Whether the engine represents integers by remainders, and cannot select by a list."""
        lookups = (n for n in self.circuit.nodes if isinstance(n.primitive, ir.Lookup))
        read = (self.circuit.nodes[index].interval.width for n in lookups for index in n.inputs)
        return max(read, default=0) > NATIVE_BITS

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the traced function's parameters."""
        return tuple(f"value_{position}" for position in self.parameters)

    def function(self) -> Callable[..., Any]:
        """What the engine traces: one argument a parameter, a tuple of results."""

        def circuit(**arguments: Any) -> tuple[Any, ...]:
            return self._trace(dict(zip(self.parameters, arguments.values(), strict=True)))

        parameters = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in self.names]
        # The engine reads the names of the parameters off the signature.
        circuit.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return circuit

    def sample(self) -> tuple[IntArray, ...]:
        """Arguments of the right shapes within the declared ranges."""
        nodes = [self.circuit.nodes[position] for position in self.parameters]
        return tuple(
            np.broadcast_to(np.clip(0, node.interval.lo, node.interval.hi), node.shape)
            .reshape(_traced_shape(node.shape))
            .astype(np.int64)
            for node in nodes
        )

    def _trace(self, values: dict[int, Any]) -> tuple[Any, ...]:
        for position, value in values.items():
            node = self.circuit.nodes[position]
            self._declare(value, position, node.interval.width)
        for position, node in enumerate(self.circuit.nodes):
            if position in values or not node.encrypted or isinstance(node.primitive, ir.Input):
                continue
            value = self._emit(position, node, values)
            values[position] = self._filled(position, value, values)
        return tuple(
            self._narrowed(position, bits, values[behind(self.circuit, position)])
            for position, bits in zip(self.circuit.outputs, self.regions.results, strict=True)
        )

    def _declare(self, value: Any, position: int, bits: int) -> None:
        self.declared[value.computation] = bits
        if self.circuit.nodes[position].encrypted:
            self.assigned[value.computation] = self.regions.width[position]

    def _narrowed(self, position: int, bits: int, value: Any) -> Any:
        """The value as a reader sees it, which needs ``bits`` of it.

        A second reader with another need gets a node of its own, by adding zero.
        """
        known = self.declared.get(value.computation)
        if known == bits:
            return value
        if known is None:
            self._declare(value, position, bits)
            return value
        own = value + np.zeros((1,) * len(value.shape), dtype=np.int64)
        self._declare(own, position, bits)
        return own

    def _emit(self, position: int, node: ir.Node, values: dict[int, Any]) -> Any:
        primitive = node.primitive
        operands = [self._operand(position, index, values) for index in node.inputs]
        if isinstance(primitive, ir.Assume):
            return operands[0]
        if isinstance(primitive, (ir.Lookup, ir.Round)):
            bits = self.regions.read.get((position, node.inputs[0]))
            if bits is not None:
                operands[0] = self._narrowed(node.inputs[0], bits, operands[0])
        emit = _EMITTERS.get(type(primitive))
        if emit is None:
            raise CompilationError(f"the engine has no form of the primitive {primitive.name}")
        return emit(self, node, *operands)

    def _filled(self, position: int, value: Any, values: dict[int, Any]) -> Any:
        """The value, with terms that are zero and make up for noise that the engine overlooks."""
        if position not in self.missing:
            return value
        source = position
        while not isinstance(self.circuit.nodes[source].primitive, (ir.Input, ir.Lookup)):
            operands = self.circuit.nodes[source].inputs
            source = next(index for index in operands if self.circuit.nodes[index].encrypted)
        unit = _reshaped(values[source], (self.circuit.nodes[source].size,))
        unit = unit[0:1].reshape((1,) * len(value.shape))
        for factor in filler(self.missing[position], self.regions.width[position]):
            value = value + (
                unit * np.full(unit.shape, factor) + unit * np.full(unit.shape, -factor)
            )
        return value

    def _operand(self, position: int, index: int, values: dict[int, Any]) -> Any:
        node = self.circuit.nodes[index]
        if not node.is_constant:
            return values[index]
        array = node.interval.lo.reshape(_traced_shape(node.shape))
        smaller = reduced(array, self.regions.width[position]) if self.reduce else array
        self.reduced |= not np.array_equal(smaller, array)
        return smaller


def _traced_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The engine knows no arrays without axes: they get one."""
    return shape or (1,)


def _reshaped(value: Any, shape: tuple[int, ...]) -> Any:
    target = _traced_shape(shape)
    return value if tuple(value.shape) == target else value.reshape(target)


def _multiply(_: Lowering, __: ir.Node, left: Any, right: Any) -> Any:
    """A product whose constant the engine's optimizer understands.

    Of constants with several values, some negative, it takes the noise to be much too small.
    """
    value, constant = (left, right) if isinstance(right, np.ndarray) else (right, left)
    if not isinstance(constant, np.ndarray) or constant.min() >= 0 or np.ptp(constant) == 0:
        return left * right
    return value * np.abs(constant) * np.where(constant < 0, -1, 1)


def _sum(_: Lowering, node: ir.Node, value: Any) -> Any:
    axes = node.primitive.axes  # type: ignore[attr-defined]
    if not axes:
        return value
    return _reshaped(np.sum(value, axis=axes, keepdims=True), node.shape)


def _index(lowering: Lowering, node: ir.Node, value: Any) -> Any:
    key: tuple[ir.IndexPart, ...] = node.primitive.key  # type: ignore[attr-defined]
    parts = [slice(k, k + 1 or None) if isinstance(k, (int, np.integer)) else k for k in key]
    if all(isinstance(part, slice) and (part.step or 1) > 0 for part in parts):
        return _reshaped(value[tuple(parts)], node.shape)
    # Any other selection is a list of places in the flat value.
    shape = tuple(value.shape)
    places = np.arange(int(np.prod(shape))).reshape(shape)
    chosen = kernels.apply(node.primitive, places[None])[0].reshape(-1)
    flat = value.reshape((places.size,))
    if lowering.has_wide_tables:
        starts = np.flatnonzero(np.diff(chosen, prepend=-2) != 1)
        runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(chosen, starts[1:])]
        taken: Any = tuple(flat[start:end] for start, end in runs)
        return _reshaped(np.concatenate(taken) if len(taken) > 1 else taken[0], node.shape)
    return _reshaped(flat[chosen], node.shape)


def _lookup(lowering: Lowering, node: ir.Node, value: Any) -> Any:
    primitive, shape = node.primitive, node.shape

    def table(integers: Any) -> Any:
        batch = np.asarray(integers, dtype=np.int64).reshape(1, *shape)
        result: Any = kernels.apply(primitive, batch).reshape(_traced_shape(shape))
        return result

    return lowering.fhe.univariate(table)(value)


def _round(lowering: Lowering, node: ir.Node, value: Any) -> Any:
    primitive: ir.Round = node.primitive  # type: ignore[assignment]
    kinds = lowering.fhe.Exactness
    return lowering.fhe.round_bit_pattern(
        value,
        lsbs_to_remove=primitive.lsbs,
        overflow_protection=False,
        exactness=kinds.EXACT if primitive.exact else kinds.APPROXIMATE,
    )


def _convolve(lowering: Lowering, node: ir.Node, image: Any, kernel: IntArray) -> Any:
    primitive: ir.Convolve = node.primitive  # type: ignore[assignment]
    space = kernel.ndim - 2
    if space > 2:
        return _convolve_by_product(node, image, kernel)
    # The engine knows two dimensions, and no padding; a line is an image of height one.
    lead = (0,) * (2 - space)
    ones = (1,) * len(lead)
    begin, end = lead + tuple(primitive.pads[:space]), lead + tuple(primitive.pads[space:])
    result = lowering.fhe.conv(
        _padded(image.reshape((*image.shape[:2], *ones, *image.shape[2:])), begin, end),
        kernel.reshape(*kernel.shape[:2], *ones, *kernel.shape[2:]),
        strides=ones + tuple(primitive.strides),
        dilations=ones + tuple(primitive.dilations),
        group=primitive.groups,
    )
    return _reshaped(result, node.shape)


def _padded(image: Any, begin: tuple[int, ...], end: tuple[int, ...]) -> Any:
    """An image with zeros around its last axes."""
    for axis, (before, after) in enumerate(zip(begin, end, strict=True), start=2):
        zeros = [
            np.zeros((*image.shape[:axis], extent, *image.shape[axis + 1 :]), dtype=np.int64)
            for extent in (before, after)
        ]
        parts = [part for part in (zeros[0], image, zeros[1]) if part.shape[axis]]
        image = np.concatenate(tuple(parts), axis=axis) if len(parts) > 1 else image
    return image


def _convolve_by_product(node: ir.Node, image: Any, kernel: IntArray) -> Any:
    """A convolution of any dimension as one product with the matrix of its weights."""
    size = int(np.prod(image.shape[1:]))
    basis = np.eye(size, dtype=np.int64).reshape(size, *image.shape[1:])
    matrix = kernels.apply(node.primitive, basis[None], kernel[None])[0].reshape(size, -1)
    return _reshaped(image.reshape((image.shape[0], size)) @ matrix, node.shape)


_EMITTERS: dict[type[ir.Primitive], Callable[..., Any]] = {
    ir.Add: lambda _, node, x, y: x + y,
    ir.Subtract: lambda _, node, x, y: x - y,
    ir.Multiply: _multiply,
    ir.MatMul: lambda _, node, x, y: x @ y,
    ir.Convolve: _convolve,
    ir.Sum: _sum,
    ir.Index: _index,
    ir.Reshape: lambda _, node, x: _reshaped(x, node.shape),
    ir.Transpose: lambda _, node, x: np.transpose(x, node.primitive.axes) if node.shape else x,
    ir.Concatenate: lambda _, node, *xs: np.concatenate(xs, axis=node.primitive.axis),
    ir.Broadcast: lambda _, node, x: np.broadcast_to(x, _traced_shape(node.shape)),
    ir.Lookup: _lookup,
    ir.Round: _round,
}
