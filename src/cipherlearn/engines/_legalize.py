"""A circuit rewritten into what a look-up machine does well: same results, narrower reads.

The rewritten circuit is a circuit again, so the exact evaluator says whether it means the same:

- products and maxima of two encrypted values become look-ups on sums and differences;
- what a look-up, a rounding or an output reads starts at zero: ranges are shifted by constants, so
  a read on n integers takes log2(n) bits wherever they lie, and no engine reads a negative value;
- every look-up has one row for each integer (or rounded step) that occurs, the first one for zero;
- values that can only be one integer become constants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.circuit.builder import Builder, IntValue
from cipherlearn.circuit.interval import Interval, width_of
from cipherlearn.engines.base import IntArray
from cipherlearn.errors import CompilationError, LookupWidthError

#: The widest table look-up that an engine is asked for.
MAXIMUM_LOOKUP_WIDTH = 16

#: Approximate rounding removes at least as many bits. The engine decides half a unit too high; with
#: so many bits below the decision that is nothing, with one or two it is most of the error margin.
LEAST_ROUNDED_BITS = 8

#: An element-wise function of integers: shape (n, *columns) to the same shape.
Function = Callable[[IntArray], IntArray]


@dataclass(frozen=True, eq=False)
class Legalized:
    """A rewritten circuit, and what the client adds to its inputs and outputs.

    Parameters
    ----------
    circuit : Circuit
        Labels are the positions, as text, of the nodes of the given circuit.
    input_offsets : tuple of int
        Subtracted from each input before encryption.
    output_offsets : tuple of numpy.ndarray of int64
        Added to each output after decryption.
    """

    circuit: ir.Circuit
    input_offsets: tuple[int, ...]
    output_offsets: tuple[IntArray, ...]


def legalize(circuit: ir.Circuit, narrowed: frozenset[int] = frozenset()) -> Legalized:
    """Rewrite a circuit for an engine that adds for free and reads unsigned integers.

    Parameters
    ----------
    circuit : Circuit
    narrowed : frozenset of int, default=frozenset()
        Positions of nodes whose look-ups read a value that is wider for another reader: they read
        it through a rounding that changes nothing.

    Returns
    -------
    Legalized

    Raises
    ------
    CompilationError
        If an output does not depend on what is encrypted.
    LookupWidthError
        If a look-up reads more than 16 bits.
    """
    return _Rewriter(circuit, narrowed).run()


def describe(circuit: ir.Circuit, position: int) -> str:
    """Name of a node in messages: label, primitive, position."""
    node = circuit.nodes[position]
    where = f"{node.label!r}, " if node.label else ""
    return f"{where}{node.primitive.name} at position {position}"


class _Rewriter:
    """One pass over a circuit; `values` holds the rewritten form of the nodes so far.

    Roundings have none until something other than a look-up reads them, because a look-up takes the
    rounding into its own form.
    """

    def __init__(self, circuit: ir.Circuit, narrowed: frozenset[int]) -> None:
        self.circuit = circuit
        self.narrowed = narrowed
        self.builder = Builder()
        self.values: dict[int, IntValue] = {}

    def run(self) -> Legalized:
        input_offsets: list[int] = []
        for position, node in enumerate(self.circuit.nodes):
            with self.builder.scope(str(position)):
                if isinstance(node.primitive, ir.Input):
                    self.values[position] = self._input(node.primitive)
                    input_offsets.append(node.primitive.lo if node.encrypted else 0)
                elif self._rounding(position) is None:
                    self.values[position] = self._rewrite(position)
        outputs: list[IntValue] = []
        offsets: list[IntArray] = []
        for name, position in zip(self.circuit.output_names, self.circuit.outputs, strict=True):
            value = self._value(position)
            if not value.encrypted:
                # Known, or computed from clear inputs alone once known values are left out.
                kind = "constant" if value.node.is_constant else "the same for all encrypted inputs"
                raise CompilationError(
                    f"the output {name!r} is {kind} ({describe(self.circuit, position)}). Compute "
                    "it in the clear, or check the weights and the calibration data of that layer"
                )
            with self.builder.scope(str(position)):
                interval = self.circuit.nodes[position].interval
                offset = interval.lo.copy() if _gains(interval) else np.zeros_like(interval.lo)
                outputs.append(_shifted(value, interval, offset))
                offsets.append(offset)
        legal = self.builder.finish(outputs, self.circuit.output_names)
        return Legalized(legal, tuple(input_offsets), tuple(offsets))

    def _input(self, primitive: ir.Input) -> IntValue:
        if not primitive.encrypted:
            return self.builder.add(primitive)
        span = primitive.hi - primitive.lo
        value = self.builder.input(primitive.label, primitive.shape, 0, span)
        if not span:
            return self.builder.constant(np.full(primitive.shape, primitive.lo))
        return value + primitive.lo if primitive.lo else value

    def _value(self, position: int) -> IntValue:
        if position not in self.values:
            with self.builder.scope(str(position)):
                self.values[position] = self._rewrite(position)
        return self.values[position]

    def _rewrite(self, position: int) -> IntValue:
        node = self.circuit.nodes[position]
        if not node.encrypted:
            operands = [self._value(index) for index in node.inputs]
            return self.builder.add(node.primitive, *operands)
        if node.interval.is_constant:
            return self.builder.constant(node.interval.lo)
        value = self._encrypted(position, node)
        return value.assume(node.interval.lo, node.interval.hi)

    def _encrypted(self, position: int, node: ir.Node) -> IntValue:
        primitive = node.primitive
        if isinstance(primitive, ir.Lookup):
            return self._lookup(primitive, node.inputs[0])
        if isinstance(primitive, ir.Round):
            if not primitive.lsbs:
                return self._value(node.inputs[0])
            return self._read_node(position, lambda v: v, Columns.single(node.shape))
        operands = [self._value(index) for index in node.inputs]
        encrypted = [operand.encrypted for operand in operands]
        if isinstance(primitive, ir.Maximum):
            return self._maximum(*(operands if encrypted[0] else operands[::-1]))
        if isinstance(primitive, ir.Multiply) and all(encrypted):
            return self._elementwise_product(*operands)
        if isinstance(primitive, ir.MatMul) and all(encrypted):
            return self._matrix_product(*operands)
        return self.builder.add(primitive, *operands)

    def _rounding(self, position: int) -> int | None:
        """The encrypted rounding behind a node, if only declared ranges lie between."""
        while isinstance(self.circuit.nodes[position].primitive, ir.Assume):
            position = self.circuit.nodes[position].inputs[0]
        node = self.circuit.nodes[position]
        rounds = isinstance(node.primitive, ir.Round) and node.primitive.lsbs > 0
        return position if rounds and node.encrypted and not node.interval.is_constant else None

    def _lookup(self, primitive: ir.Lookup, operand: int) -> IntValue:
        def function(value: IntArray) -> IntArray:
            return kernels.gather(primitive.table, kernels.table_rows(primitive, value))

        columns = Columns.of_table(primitive.table, self.circuit.nodes[operand].shape)
        return self._read_node(operand, function, columns)

    def _read_node(self, position: int, function: Function, columns: Columns) -> IntValue:
        """A look-up of ``function`` on a node; a rounding becomes part of it."""
        rounding = self._rounding(position)
        if rounding is None:
            interval = self.circuit.nodes[position].interval
            return self._read(self._value(position), interval, function, columns)
        node = self.circuit.nodes[rounding]
        operand = node.inputs[0]
        interval = self.circuit.nodes[operand].interval
        primitive, limits = node.primitive, columns.clip(node.interval)
        return self._read_rounded(
            self._value(operand), interval, primitive, function, columns, limits
        )

    def _read(
        self, value: IntValue, interval: Interval, function: Function, columns: Columns
    ) -> IntValue:
        """A look-up of ``function`` on every integer that ``value`` takes.

        Where all integers are multiples of a power of two, a rounding that changes nothing tells
        the engine so: the table then has one row a multiple.
        """
        limits = columns.clip(interval)
        lsbs = (interval.step & -interval.step).bit_length() - 1
        if lsbs or int(self.builder.label) in self.narrowed:
            unneeded = ir.Round(lsbs, exact=False)
            return self._read_rounded(value, interval, unneeded, function, columns, limits)
        offset = columns.lowest(interval.lo)
        moved = _shifted(value, interval, offset)
        rows = columns.rows(self._checked(moved.interval.max, interval) + 1)
        table = _tabulate(function, rows + offset, limits)
        return self.builder.add(ir.Lookup(table, 0, 1), moved)

    def _read_rounded(
        self,
        value: IntValue,
        interval: Interval,
        primitive: ir.Primitive,
        function: Function,
        columns: Columns,
        limits: tuple[IntArray, IntArray],
    ) -> IntValue:
        if not isinstance(primitive, ir.Round):  # never: for the type checker
            raise CompilationError(f"{primitive.name} is not a rounding")
        step = 1 << primitive.lsbs
        offset = columns.lowest(interval.lo) // step * step
        moved = _shifted(value, interval, offset)
        if not primitive.exact and primitive.lsbs < LEAST_ROUNDED_BITS:
            moved = moved * (1 << LEAST_ROUNDED_BITS - primitive.lsbs)
            primitive = ir.Round(LEAST_ROUNDED_BITS, exact=False)
        rounded = self.builder.add(primitive, moved)
        rows = columns.rows(self._checked(top_step(moved.interval, primitive), interval) + 1)
        table = _tabulate(function, rows * step + offset, limits)
        return self.builder.add(ir.Lookup(table, 0, 1 << primitive.lsbs), rounded)

    def _checked(self, top: int, interval: Interval) -> int:
        width = width_of(0, top)
        if width <= MAXIMUM_LOOKUP_WIDTH:
            return top
        raise LookupWidthError(
            f"{describe(self.circuit, int(self.builder.label))} needs a table look-up on {width} "
            f"bits (values from {interval.min} to {interval.max}); at most {MAXIMUM_LOOKUP_WIDTH} "
            "are possible. Use fewer bits (n_bits), round the accumulators "
            "(rounding_threshold_bits), or prune or narrow the layer before"
        )

    def _maximum(self, left: IntValue, right: IntValue) -> IntValue:
        difference = left - right
        columns = Columns.single(difference.shape)
        positive = self._read(difference, difference.interval, lambda v: np.maximum(v, 0), columns)
        return positive + right

    def _matrix_product(self, left: IntValue, right: IntValue) -> IntValue:
        # Every left row meets every right column along one new axis, which is summed afterwards.
        rows = left.reshape(*left.shape, 1)
        columns = right.reshape(*right.shape[:-2], 1, *right.shape[-2:])
        products = self._elementwise_product(rows, columns)
        return products.sum(axis=products.ndim - 2)

    def _elementwise_product(self, left: IntValue, right: IntValue) -> IntValue:
        """``left * right`` as ``(left + right)**2 / 4 - (left - right)**2 / 4``.

        Both squares have the same parity, so that rounding the quarters down cancels.
        """
        if left.position == right.position:
            columns = Columns.single(left.shape)
            return self._read(left, left.interval, lambda v: v * v, columns)
        quarters = []
        for value in (left + right, left - right):
            columns = Columns.single(value.shape)
            quarters.append(self._read(value, value.interval, lambda v: v * v // 4, columns))
        return quarters[0] - quarters[1]


@dataclass(frozen=True, eq=False)
class Columns:
    """Along which axes of a value the tables of a look-up differ.

    Parameters
    ----------
    varying : tuple of bool
        One an axis of the value.
    """

    varying: tuple[bool, ...]

    @classmethod
    def single(cls, shape: tuple[int, ...]) -> Columns:
        """The same table for all elements."""
        return cls((False,) * len(shape))

    @classmethod
    def of_table(cls, table: IntArray, shape: tuple[int, ...]) -> Columns:
        """The axes along which a table has more than one column."""
        if table.size == table.shape[0]:
            return cls.single(shape)
        return cls(tuple(extent > 1 for extent in table.shape[1:]))

    @property
    def shared(self) -> tuple[int, ...]:
        """Axes along which one table serves all elements."""
        return tuple(axis for axis, varies in enumerate(self.varying) if not varies)

    def lowest(self, values: IntArray) -> IntArray:
        """Minimum over the elements that share a table; as many axes as the value has."""
        return values.min(axis=self.shared, keepdims=True)

    def highest(self, values: IntArray) -> IntArray:
        """Maximum over the elements that share a table."""
        return values.max(axis=self.shared, keepdims=True)

    def clip(self, interval: Interval) -> tuple[IntArray, IntArray]:
        """Smallest and largest integer that each table meets."""
        return self.lowest(interval.lo), self.highest(interval.hi)

    def rows(self, count: int) -> IntArray:
        """``0 .. count - 1`` along a leading axis."""
        return np.arange(count, dtype=np.int64).reshape(-1, *(1,) * len(self.varying))


def top_step(interval: Interval, primitive: ir.Round) -> int:
    """Largest multiple of the step that a rounding of a value within ``interval`` may give.

    Approximate rounding may go up to the next multiple wherever the value lies.
    """
    step = 1 << primitive.lsbs
    if primitive.exact:
        return (interval.max + step // 2) // step
    return -(-interval.max // step)


def _shifted(value: IntValue, interval: Interval, offset: IntArray) -> IntValue:
    """``value - offset``, with the range that was proved for ``value``."""
    moved = value - offset if offset.any() else value
    return moved.assume(interval.lo - offset, interval.hi - offset)


def _tabulate(function: Function, domain: IntArray, limits: tuple[IntArray, IntArray]) -> IntArray:
    """Values of ``function`` over a domain of shape (n, *columns).

    Rows that no exact value reaches hold the entry of the nearest one that does: approximate
    rounding may read one row beyond.
    """
    return np.asarray(function(np.clip(domain, *limits)), dtype=np.int64)


def _gains(interval: Interval) -> bool:
    """Whether starting at zero makes a value narrower (or only unsigned)."""
    span = int((interval.hi - interval.lo).max())
    return interval.min < 0 or width_of(0, span) < interval.width
