"""Bringing the operands of one call to the dtypes that the operator's schema asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from cipherlearn.errors import InvalidShapeError, InvalidTypeError
from cipherlearn.ops._signature import Operand, Signature

_TYPE_NAMES: Final[dict[str, str]] = {
    "bool": "tensor(bool)",
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    **{
        f"{sign}int{bits}": f"tensor({sign}int{bits})"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
_FLOATS: Final = frozenset({"tensor(float16)", "tensor(float)", "tensor(double)"})
_INTEGERS: Final = frozenset(v for k, v in _TYPE_NAMES.items() if "int" in k)

Array = np.ndarray[Any, np.dtype[Any]]


def prepare(signature: Signature, inputs: Sequence[Any]) -> list[Array | None]:
    """Convert the operands of one call.

    Operands that share a type in the schema get one dtype: the widest one when they are all
    floating, and that of the arrays for plain Python numbers. Floating operands where only booleans
    or integers are accepted (quantized values are carried as floats) are rounded to the nearest.

    Parameters
    ----------
    signature : Signature
        What the operator takes.
    inputs : sequence
        Arrays, Python numbers, or ``None`` for optional inputs that are not given.

    Returns
    -------
    list of ndarray or None
        One entry per input, without trailing ``None``.

    Raises
    ------
    InvalidShapeError
        When there are too few or too many inputs.
    InvalidTypeError
        When a dtype is not accepted, or dtypes that must be equal are not.
    """
    given = list(inputs)
    while given and given[-1] is None:
        given.pop()
    _check_count(signature, given)
    arrays: list[Array | None] = [None] * len(given)
    groups: dict[str, list[int]] = {}
    for position, value in enumerate(given):
        if value is None:
            continue
        operand = signature.operand(position)
        array = np.asarray(value)
        plain = operand.types and not _has_dtype(value)
        if plain and array.dtype.kind == "i" and not operand.types & _INTEGERS:
            array = array.astype(np.float64)
        arrays[position] = _to_accepted(signature.name, operand, array)
        groups.setdefault(operand.group or f"#{position}", []).append(position)
    for positions in groups.values():
        _unify(signature, arrays, positions, [not _has_dtype(given[p]) for p in positions])
    return arrays


def _has_dtype(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def _check_count(signature: Signature, given: Sequence[Any]) -> None:
    most = len(signature.inputs)
    missing = [
        operand.name
        for position, operand in enumerate(signature.inputs)
        if operand.required and (position >= len(given) or given[position] is None)
    ]
    if missing:
        raise InvalidShapeError(f"{signature.name} needs the input(s) {', '.join(missing)}.")
    if len(given) > most and not signature.variadic:
        raise InvalidShapeError(
            f"{signature.name} takes at most {most} input(s)"
            f" ({', '.join(signature.input_names)}); {len(given)} were given."
        )


def _to_accepted(name: str, operand: Operand, array: Array) -> Array:
    """Convert one operand to a dtype that the operator accepts."""
    if not operand.types:
        return array
    given = _TYPE_NAMES.get(array.dtype.name)
    if given is None:
        raise InvalidTypeError(
            f"{name}: the input {operand.name!r} has the dtype {array.dtype}; only booleans,"
            " integers and float16, float32 or float64 numbers can be computed with."
        )
    if given in operand.types:
        return array
    if given in _FLOATS:
        if operand.types & _FLOATS:
            return array
        if operand.types <= {"tensor(bool)"}:
            return np.rint(array) != 0
        if operand.types & _INTEGERS:
            target = "int64" if "tensor(int64)" in operand.types else "int32"
            return np.rint(array).astype(target)
    if array.dtype.kind in "iu" and operand.types == {"tensor(int64)"}:
        # Shapes and axes: any integer dtype says the same.
        return array.astype(np.int64)
    accepted = ", ".join(sorted(t for t in operand.types if t in _TYPE_NAMES.values()))
    raise InvalidTypeError(
        f"{name}: the input {operand.name!r} has the dtype {array.dtype}, which this operator does"
        f" not take. Accepted: {accepted}. Add a Cast before it."
    )


def _unify(
    signature: Signature, arrays: list[Array | None], positions: list[int], plain: list[bool]
) -> None:
    """Give one dtype to the operands at ``positions`` (in place)."""
    members = {position: array for position in positions if (array := arrays[position]) is not None}
    strong = {
        members[p].dtype for p, is_plain in zip(positions, plain, strict=True) if not is_plain
    }
    dtypes = strong or {array.dtype for array in members.values()}
    if len(dtypes) > 1 and any(dtype.kind != "f" for dtype in dtypes):
        listed = ", ".join(f"{signature.operand(p).name}: {a.dtype}" for p, a in members.items())
        raise InvalidTypeError(
            f"{signature.name} takes operands of one dtype, but was given {listed}."
            " Convert them to one dtype first."
        )
    target = np.result_type(*dtypes)
    for position, array in members.items():
        if array.dtype != target:
            _check_plain(signature, position, array, target)
            arrays[position] = array.astype(target)


def _check_plain(signature: Signature, position: int, array: Array, target: np.dtype[Any]) -> None:
    """Refuse a plain Python number that the dtype of the other operands cannot hold."""
    if target.kind != "f" and not np.array_equal(array, array.astype(target)):
        raise InvalidTypeError(
            f"{signature.name}: {array.tolist()!r}, given as {signature.operand(position).name!r},"
            f" is not a value of {target}, the dtype of the other operands."
        )
