"""Values of a circuit under construction, which behave as NumPy arrays do.

See `cipherlearn.circuit.builder` for how they are used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.circuit.indexing import axis_of, selects_all, shape_holder, simple_key
from cipherlearn.circuit.interval import Interval
from cipherlearn.circuit.tables import to_integers, with_axes, without_unread
from cipherlearn.errors import (
    CircuitError,
    EncryptedOperandError,
    InvalidTypeError,
    LookupWidthError,
)

if TYPE_CHECKING:
    from cipherlearn.circuit.builder import Builder

#: The widest table look-up that the engines know.
MAXIMUM_LOOKUP_WIDTH = 16

#: What NumPy functions (other than ufuncs) do to values; `cipherlearn.circuit.functions` fills it.
ARRAY_FUNCTIONS: dict[Any, Callable[..., Any]] = {}


class Traced(np.lib.mixins.NDArrayOperatorsMixin, ABC):
    """What integer and real values share: NumPy's operators, movements by name."""

    __slots__ = ()
    __hash__ = object.__hash__

    shape: tuple[int, ...]

    @abstractmethod
    def move(self, function: Callable[[Any], Any]) -> Any:
        """The same elements, moved by ``function`` (which works on arrays as well)."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    @property
    def T(self) -> Any:  # noqa: N802 - NumPy's name
        """Axes in reverse order."""
        return self.transpose()

    def reshape(self, *shape: Any) -> Any:
        """As `numpy.ndarray.reshape`."""
        target = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        resolved = shape_holder(self.shape).reshape(tuple(target)).shape
        return self.move(lambda v: _reshaped(v, resolved))

    def transpose(self, *axes: Any) -> Any:
        """As `numpy.ndarray.transpose`."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], (int, np.integer)) else axes
        named = tuple(order) if order else range(self.ndim)[::-1]
        resolved = tuple(axis_of(axis, self.ndim) for axis in named)
        if resolved == tuple(range(self.ndim)):
            return self
        return self.move(lambda v: _moved(v, ir.Transpose(resolved)))

    def broadcast_to(self, shape: tuple[int, ...]) -> Any:
        """As `numpy.broadcast_to`."""
        target = tuple(int(extent) for extent in shape)
        if target == self.shape:
            return self
        tail = target[max(0, len(target) - self.ndim) :]
        if len(tail) < self.ndim or any(
            a not in {1, b} for a, b in zip(self.shape, tail, strict=True)
        ):
            raise CircuitError(f"a value of shape {self.shape} cannot be repeated to {target}")
        return self.move(lambda v: _repeated(v, target))

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, Traced) for part in parts):
            raise EncryptedOperandError("an index must be a clear constant, not an encrypted value")
        simple = simple_key(parts, self.shape)
        if simple is not None:
            whole = selects_all(simple, self.shape)
            return self if whole else self.move(lambda v: _moved(v, ir.Index(simple)))
        positions = np.asarray(np.arange(self.size).reshape(self.shape)[key])
        flat = positions.reshape(-1)
        if np.array_equal(flat, np.arange(self.size)):
            return self.reshape(positions.shape)
        return self.reshape(-1)[flat].reshape(positions.shape)

    def __bool__(self) -> bool:
        raise EncryptedOperandError(
            "an encrypted value is neither true nor false while a circuit is built: use np.where, "
            "np.maximum or np.clip in place of branches"
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        # Anything but element-wise functions of one result would need another meaning.
        if method != "__call__" or ufunc.nout != 1 or not kwargs.keys() <= {"dtype", "casting"}:
            return NotImplemented
        if ufunc.signature is not None:
            raise InvalidTypeError(
                f"{ufunc.__name__} of encrypted values reads integers on both sides: quantize, "
                "then use astype(np.int64)"
            )
        return tabulate_integers(lambda *a: ufunc(*a, **kwargs), inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        del types
        if function not in ARRAY_FUNCTIONS:
            return NotImplemented
        return ARRAY_FUNCTIONS[function](*args, **kwargs)


class IntValue(Traced):
    """Integers of a circuit under construction (use `Builder` to make one)."""

    __slots__ = ("builder", "position")

    def __init__(self, builder: Builder, position: int) -> None:
        self.builder = builder
        self.position = position

    @property
    def node(self) -> ir.Node:
        """The node behind the value."""
        return self.builder.node(self)

    @property
    def interval(self) -> Interval:
        """Range of every element."""
        return self.node.interval

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of one sample."""
        return self.interval.shape

    @property
    def encrypted(self) -> bool:
        """Whether the value depends on an encrypted input."""
        return self.node.encrypted

    def move(self, function: Callable[[Any], Any]) -> IntValue:
        """The same integers, moved. Rounding is done after the move, next to its look-up."""
        if isinstance(self.node.primitive, ir.Round):
            moved = IntValue(self.builder, self.node.inputs[0]).move(function)
            return self.builder.add(self.node.primitive, moved)
        result: IntValue = function(self)
        return result

    def sum(self, axis: Any = None, keepdims: bool = False) -> IntValue:
        """As `numpy.ndarray.sum`."""
        axes = range(self.ndim) if axis is None else np.atleast_1d(axis).tolist()
        chosen = tuple(sorted(axis_of(one, self.ndim) for one in axes))
        return self.builder.add(ir.Sum(chosen, bool(keepdims)), self)

    def round(self, lsbs: int, *, exact: bool) -> IntValue:
        """The nearest multiples of ``2**lsbs``, in the same scale."""
        if lsbs <= 0 or self.interval.step % (1 << int(lsbs)) == 0:
            return self
        return self.builder.add(ir.Round(int(lsbs), bool(exact)), self)

    def assume(self, lo: np.ndarray, hi: np.ndarray, *, encoded: bool = False) -> IntValue:
        """The same integers, declared to lie in ``[lo, hi]``: see `ir.Assume`."""
        known = self.interval
        lo = np.broadcast_to(np.asarray(lo, dtype=np.int64), self.shape)
        hi = np.broadcast_to(np.asarray(hi, dtype=np.int64), self.shape)
        if bool((lo <= known.lo).all() and (hi >= known.hi).all()):
            return self
        return self.builder.add(ir.Assume(lo, hi, encoded), self)

    def lookup(self, table: np.ndarray, start: int, step: int = 1) -> IntValue:
        """Read a table: see `cipherlearn.circuit.ir.Lookup`.

        Parameters
        ----------
        table : numpy.ndarray of integers, shape (n, *broadcast)
            Row ``i`` for the input ``start + i * step``; the other axes broadcast to the value.
        start, step : int

        Raises
        ------
        LookupWidthError
            If the value is wider than what a look-up can read.
        """
        aligned = with_axes(np.asarray(table, dtype=np.int64), self.ndim)
        return self.builder.add(ir.Lookup(aligned, int(start), int(step)), self)

    def as_real(self) -> RealValue:
        """The value itself, in doubles, as a function of the value."""
        return _identity(self, np.float64)

    def astype(self, dtype: Any) -> IntValue | RealValue:
        """Unchanged for integer types; a `RealValue` for floating ones and for booleans."""
        if np.dtype(dtype).kind in "iu":
            return self
        return _identity(self, np.int64).astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        whole = method == "__call__" and not kwargs and all(map(_is_integer, inputs))
        if whole and ufunc is np.negative:
            return 0 - self
        if not whole or ufunc not in _INTEGER_UFUNCS:
            return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)
        left, right = (lift(self.builder, operand) for operand in inputs)
        if ufunc is np.matmul:
            return _matrix_product(left, right)
        if ufunc is np.maximum and (left.node.is_constant or right.node.is_constant):
            return super().__array_ufunc__(ufunc, method, *inputs)
        ndim = max(left.ndim, right.ndim)
        return self.builder.add(
            _INTEGER_UFUNCS[ufunc](), _with_axes(left, ndim), _with_axes(right, ndim)
        )


class RealValue(Traced):
    """A real function of one integer value, tabulated over its domain.

    Parameters
    ----------
    source : IntValue
        The integers that the function reads.
    table : numpy.ndarray, shape (n, *broadcast)
        Row ``i`` is the function at ``source.interval.domain[i]``; the other axes broadcast against
        the shape of the source.

    Raises
    ------
    CircuitError
        If the table has another number of rows than the domain.
    """

    __slots__ = ("source", "table")

    def __init__(self, source: IntValue, table: np.ndarray) -> None:
        rows = source.interval.domain_size
        if table.shape[:1] != (rows,):
            raise CircuitError(f"a table of shape {table.shape} does not have {rows} rows")
        self.source = source
        self.table = with_axes(table, source.ndim)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of one sample."""
        return self.source.shape

    @property
    def encrypted(self) -> bool:
        """Whether the value depends on an encrypted input."""
        return self.source.encrypted

    def move(self, function: Callable[[Any], Any]) -> RealValue:
        """The same elements, moved: no look-up is spent on it."""
        source = self.source.move(function)
        # A part of the elements may have a smaller domain than all of them.
        first = self.source.interval.domain[0]
        rows = (source.interval.domain - first) // self.source.interval.step
        table = self.table[np.clip(rows, 0, self.table.shape[0] - 1)]
        if self.table.size == self.table.shape[0]:
            return RealValue(source, table.reshape(rows.size, *(1,) * source.ndim))
        positions = np.asarray(function(np.arange(self.size).reshape(self.shape)))
        columns = np.broadcast_to(table, (rows.size, *self.shape)).reshape(rows.size, -1)
        return RealValue(source, columns[:, positions])

    def sum(self, axis: Any = None, keepdims: bool = False) -> IntValue:
        """Raise `InvalidTypeError`: sums add integers."""
        raise InvalidTypeError(
            f"a sum over axis {axis} (keepdims={keepdims}) adds encrypted integers: quantize, then "
            "use astype(np.int64)"
        )

    def astype(self, dtype: Any) -> IntValue | RealValue:
        """For integer types, the look-up itself; the same function in floating ones or booleans.

        A table that only shifts its input costs no look-up. Where the function is not a number, the
        nearest entry that is one stands in (such inputs do not occur, or have no right answer).

        Raises
        ------
        AccumulatorOverflowError
            If the function is infinite, or needs more than 62 bits, for an integer that occurs.
        """
        kind = np.dtype(dtype).kind
        if kind in "fb":
            with np.errstate(all="ignore"):
                return RealValue(self.source, self.table.astype(dtype))
        if kind not in "iu":
            raise InvalidTypeError(f"a value of a circuit cannot become {np.dtype(dtype)}")
        return self.lookup()

    def lookup(self) -> IntValue:
        """The look-up itself, truncated to integers: see `astype`."""
        integers = to_integers(without_unread(self.table, self.source.interval))
        domain = self.source.interval.domain
        shift = integers - domain.reshape(-1, *(1,) * self.ndim)
        if bool((shift == shift[:1]).all()):
            return self.source + shift[0] if shift.any() else self.source
        return self.source.lookup(integers, int(domain[0]), self.source.interval.step)


def tabulate(function: Callable[..., np.ndarray], *operands: Any) -> RealValue:
    """Apply an element-wise NumPy function to values that are all functions of one integer value.

    Parameters
    ----------
    function : callable
        Element-wise; called with arrays of shape (n, *broadcast), ``n`` being the size of the
        domain. An `IntValue` is given in doubles.
    *operands : RealValue, IntValue, or constants

    Raises
    ------
    EncryptedOperandError
        If the operands are functions of different encrypted values.
    """
    return tabulate_integers(
        function, [v.as_real() if isinstance(v, IntValue) else v for v in operands]
    )


def check_lookup_width(value: IntValue) -> None:
    """Raise `LookupWidthError` if no engine can look ``value`` up."""
    width = value.interval.lookup_width
    if width <= MAXIMUM_LOOKUP_WIDTH:
        return
    where = value.builder.label or "a node"
    raise LookupWidthError(
        f"{where} needs a table look-up on {width} bits (values from {value.interval.min} to "
        f"{value.interval.max}); at most {MAXIMUM_LOOKUP_WIDTH} are possible. Use fewer bits "
        "(n_bits), round the accumulators (rounding_threshold_bits), or prune or narrow the layer "
        "before"
    )


def tabulate_integers(function: Callable[..., np.ndarray], operands: Sequence[Any]) -> RealValue:
    """As `tabulate`, with integer values given as integers: NumPy's meaning of the function."""
    known = [_known_values(op) for op in operands]
    if all(not isinstance(op, Traced) for op in known):
        known = list(operands)  # constants of the circuit only: any of them can be the source
    reals = [_identity(op, np.int64) if isinstance(op, IntValue) else op for op in known]
    traced = [op for op in reals if isinstance(op, RealValue)]
    if not traced:
        raise InvalidTypeError("an element-wise function of encrypted values needs one by position")
    shape = np.broadcast_shapes(
        *(op.shape if isinstance(op, RealValue) else np.shape(op) for op in reals)
    )
    sources = [op.source.broadcast_to(shape) for op in traced]
    source = sources[0]
    if any(other.builder is not source.builder for other in sources):
        raise CircuitError("an element-wise function mixes values of two builders")
    if any(other.position != source.position for other in sources):
        raise EncryptedOperandError(
            f"{source.builder.label or 'an element-wise function'} mixes two encrypted values: "
            "a table look-up reads one"
        )
    arguments = [
        with_axes(op.table, len(shape)) if isinstance(op, RealValue) else op for op in reals
    ]
    with np.errstate(all="ignore"):
        table = np.asarray(function(*arguments))
    rows = source.interval.domain_size
    # A function that ignores its encrypted operands gives fewer axes, or one row.
    table = table.reshape((1,) * (len(shape) + 1 - table.ndim) + table.shape)
    return RealValue(source, np.broadcast_to(table, (rows, *table.shape[1:])))


def _identity(value: IntValue, dtype: Any) -> RealValue:
    """The value as a function of an integer value: itself, or what it is a narrower multiple of.

    A constant added to a value, or multiplied with it, joins the table. That keeps a look-up next
    to its rounding, and lets functions of a value and of its shifted copy meet in one table.
    """
    source, steps = value, []
    while (before := _univariate_step(source)) is not None:
        source = before[0]
        steps.append(before[1])
    check_lookup_width(source)
    table = source.interval.domain.reshape(-1, *(1,) * source.ndim)
    for step in reversed(steps):
        table = step(table)
    return RealValue(source, table.astype(dtype))


def _univariate_step(
    value: IntValue,
) -> tuple[IntValue, Callable[[np.ndarray], np.ndarray]] | None:
    """The operand of a sum or product with a constant, and the operation, if that helps a look-up.

    Constants that differ between elements would give each a table of its own: they stay outside,
    unless the look-up gets narrower or comes next to its rounding.
    """
    primitive, builder = value.node.primitive, value.builder
    if not isinstance(primitive, (ir.Add, ir.Subtract, ir.Multiply)):
        return None
    sides = [IntValue(builder, position) for position in value.node.inputs]
    place = 1 if sides[0].node.is_constant else 0
    source, other = sides[place], sides[1 - place].node.primitive
    if not isinstance(other, ir.Constant):
        return None
    constant = other.values[None]
    saved = value.interval.lookup_width - source.interval.lookup_width
    uniform = bool((constant == constant.flat[:1]).all())
    if saved < 0 or not (saved or uniform or isinstance(source.node.primitive, ir.Round)):
        return None
    if uniform and constant.size:
        constant = constant.reshape(-1)[:1].reshape((1,) * constant.ndim)
    source = source.broadcast_to(value.shape)
    if place == 0:
        return source, lambda table: kernels.apply(primitive, table, constant)
    return source, lambda table: kernels.apply(primitive, constant, table)


def _moved(value: Any, primitive: ir.Primitive) -> Any:
    """Apply a movement to an `IntValue`, or to one array without batch axis."""
    if isinstance(value, IntValue):
        return value.builder.add(primitive, value)
    return kernels.apply(primitive, value[None])[0]


def _reshaped(value: Any, shape: tuple[int, ...]) -> Any:
    """As `_moved` for a reshape; one of a reshaped value starts from the latter's operand."""
    if isinstance(value, IntValue):
        if isinstance(value.node.primitive, ir.Reshape):
            value = IntValue(value.builder, value.node.inputs[0])
        if value.shape == shape:
            return value
    return _moved(value, ir.Reshape(shape))


def _repeated(value: Any, shape: tuple[int, ...]) -> Any:
    """As `_moved` for a broadcast; one of a broadcast value starts from the latter's operand."""
    if isinstance(value, IntValue) and isinstance(value.node.primitive, ir.Broadcast):
        value = IntValue(value.builder, value.node.inputs[0])
    aligned = _reshaped(value, (1,) * (len(shape) - value.ndim) + value.shape)
    return aligned if aligned.shape == shape else _moved(aligned, ir.Broadcast(shape))


def _known_values(operand: Any) -> Any:
    """The integers of a constant of the circuit; any other operand as it is."""
    if isinstance(operand, IntValue) and isinstance(operand.node.primitive, ir.Constant):
        return operand.node.primitive.values
    return operand


def _is_integer(operand: Any) -> bool:
    if isinstance(operand, Traced):
        return isinstance(operand, IntValue)
    return np.asarray(operand).dtype.kind in "iub"


def lift(builder: Builder, operand: Any) -> IntValue:
    """An integer value of the circuit; anything else as a constant of it."""
    return operand if isinstance(operand, IntValue) else builder.constant(operand)


def _with_axes(value: IntValue, ndim: int) -> IntValue:
    """Leading axes added, as the batched kernels need."""
    result: IntValue = value.reshape((1,) * (ndim - value.ndim) + value.shape)
    return result


def _matrix_product(left: IntValue, right: IntValue) -> IntValue:
    """As `numpy.matmul`, vectors included."""
    dropped = [axis for axis, value in ((-2, left), (-1, right)) if value.ndim == 1]
    left = left.reshape(1, -1) if left.ndim == 1 else left
    right = right.reshape(-1, 1) if right.ndim == 1 else right
    ndim = max(left.ndim, right.ndim)
    product = left.builder.add(ir.MatMul(), _with_axes(left, ndim), _with_axes(right, ndim))
    if not dropped:
        return product
    kept = [n for axis, n in enumerate(product.shape) if axis - product.ndim not in dropped]
    result: IntValue = product.reshape(tuple(kept))
    return result


_INTEGER_UFUNCS: dict[Any, type[ir.Primitive]] = {
    np.add: ir.Add,
    np.subtract: ir.Subtract,
    np.multiply: ir.Multiply,
    np.matmul: ir.MatMul,
    np.maximum: ir.Maximum,
}
