"""The float meaning of the standard operators, taken from ``onnx.reference``.

One call runs a model of one node. The evaluator of that model is kept for the next call with the
same operator, operator set, attributes, dtypes and number of inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
    UnknownKeyError,
    UnsupportedAttributeError,
)
from cipherlearn.ops import _operands, _signature
from cipherlearn.ops._operands import Array
from cipherlearn.ops._signature import NEWEST_OPSET, REQUIRED, Attribute, Signature

Check = Callable[[Mapping[str, Any]], str | None]
NumpyFunction = Callable[..., tuple[Array, ...]]

_Kind = onnx.AttributeProto
_CONVERTERS: Final[dict[int, Callable[[Any], Any]]] = {
    _Kind.FLOAT: float,
    _Kind.INT: int,
    _Kind.STRING: lambda value: value.decode() if isinstance(value, bytes) else str(value),
    _Kind.FLOATS: lambda value: tuple(float(item) for item in value),
    _Kind.INTS: lambda value: tuple(int(item) for item in value),
    _Kind.STRINGS: lambda value: tuple(str(item) for item in value),
    _Kind.TENSOR: lambda value: (
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value))
    ),
}


def numpy_function(
    name: str, check: Check | None = None, *, elementwise: bool = False
) -> NumpyFunction:
    """Make the NumPy function of a standard operator.

    Parameters
    ----------
    name : str
        Name of the operator.
    check : callable or None, default None
        Given the attributes and operands of a call by name, says what is not supported.
    elementwise : bool, default False
        Whether the operator is element-wise.

    Returns
    -------
    callable
        ``(*inputs, opset=NEWEST_OPSET, **attributes) -> tuple of ndarray``.
    """

    def function(*inputs: Any, opset: int = NEWEST_OPSET, **attributes: Any) -> tuple[Array, ...]:
        signature = _signature.of_schema(name, opset)
        arrays = _operands.prepare(signature, inputs)
        values = convert_attributes(signature, attributes)
        if check is not None:
            named = {signature.operand(i).name: array for i, array in enumerate(arrays)}
            message = check({**named, **values})
            if message is not None:
                raise UnsupportedAttributeError(f"{name}: {message}")
        # Some reference kernels refuse scalars, or give them another dtype: they get one element.
        scalar = elementwise and all(array is None or array.ndim == 0 for array in arrays)
        if scalar:
            arrays = [None if array is None else array.reshape(1) for array in arrays]
        count = _count_outputs(signature, arrays, values)
        values = {key: value for key, value in values.items() if key in signature.declared}
        outputs = run(name, arrays, values, opset=opset, n_outputs=count)
        return tuple(output.reshape(()) for output in outputs) if scalar else outputs

    plain_name = _signature.split_name(name)[1].lower()
    function.__name__ = function.__qualname__ = f"numpy_{plain_name}"
    function.__doc__ = f"Evaluate the ONNX operator {name}; returns a tuple of arrays."
    return function


def _count_outputs(
    signature: Signature, arrays: Sequence[Array | None], values: Mapping[str, Any]
) -> int:
    """Number of outputs that a call has."""
    if signature.name == "BatchNormalization":
        # The other outputs are those of training.
        return 1
    if signature.name != "Split":
        return signature.n_outputs
    sizes = arrays[1] if len(arrays) > 1 else None
    count = values.get("num_outputs") if sizes is None else sizes.size
    if not count:
        raise InvalidParameterError(
            "Split: neither the operand 'split' nor the attribute 'num_outputs' says how many parts"
            " there are; give one of them."
        )
    return int(count)


def convert_attributes(signature: Signature, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Convert attribute values to the types of the schema.

    Parameters
    ----------
    signature : Signature
        What the operator takes.
    attributes : mapping
        Values by name; ``None`` counts as not given.

    Returns
    -------
    dict
        The given values, converted.

    Raises
    ------
    UnknownKeyError
        When a name is not an attribute of the operator.
    InvalidParameterError
        When a required attribute is missing.
    InvalidTypeError
        When a value does not have the attribute's type.
    """
    given = {key: value for key, value in attributes.items() if value is not None}
    unknown = sorted(set(given) - set(signature.attributes))
    if unknown:
        known = ", ".join(sorted(signature.attributes)) or "none at all"
        raise UnknownKeyError(
            f"{signature.name} has no attribute {', '.join(unknown)} (operator set"
            f" {signature.since_version}). Its attributes: {known}."
        )
    for key, attribute in signature.attributes.items():
        if attribute.default is REQUIRED and key not in given:
            raise InvalidParameterError(f"{signature.name} needs the attribute {key!r}.")
    return {
        key: _convert(signature.name, signature.attributes[key], value)
        for key, value in given.items()
    }


def _convert(name: str, attribute: Attribute, value: Any) -> Any:
    if attribute.kind is None:
        return value
    if attribute.kind not in _CONVERTERS:
        raise UnsupportedAttributeError(
            f"{name}: the attribute {attribute.name!r} holds a graph, a type or a sparse tensor,"
            " which is not supported."
        )
    try:
        return _CONVERTERS[attribute.kind](value)
    except (TypeError, ValueError) as error:
        kind = _Kind.AttributeType.Name(attribute.kind).lower()
        raise InvalidTypeError(
            f"{name}: the attribute {attribute.name!r} must be of type {kind}, not {value!r}."
        ) from error


def evaluate(
    name: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    *,
    opset: int = NEWEST_OPSET,
    n_outputs: int = 1,
) -> tuple[Array, ...]:
    """Evaluate any operator of the standard domain, registered or not, on its exact dtypes.

    Parameters
    ----------
    name : str
        Name of the operator.
    inputs : sequence of ndarray or None
        Operands; ``None`` for optional ones that are not given.
    attributes : mapping
        Attribute values by name.
    opset : int, default NEWEST_OPSET
        Operator set that gives the operator its meaning.
    n_outputs : int, default 1
        Number of outputs of the node.

    Returns
    -------
    tuple of ndarray

    Raises
    ------
    UnsupportedOperatorError
        When ONNX has no such operator.
    CipherlearnError
        When attributes or operands do not fit.
    """
    values = convert_attributes(_signature.of_schema(name, opset), attributes)
    return run(name, inputs, values, opset=opset, n_outputs=n_outputs)


def run(
    name: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    *,
    opset: int,
    n_outputs: int = 1,
) -> tuple[Array, ...]:
    """Run one standard operator, registered here or not, without converting anything.

    Parameters
    ----------
    name : str
        Name of the operator.
    inputs : sequence of ndarray or None
        Operands; ``None`` for optional ones that are not given.
    attributes : mapping
        Values as :func:`convert_attributes` returns them.
    opset : int
        Operator set that gives the operator its meaning.
    n_outputs : int, default 1
        Number of outputs of the node.

    Returns
    -------
    tuple of ndarray

    Raises
    ------
    ModelError
        When the operands do not fit together, with the reason.
    """
    dtypes = tuple(None if array is None else array.dtype for array in inputs)
    items = tuple(sorted(attributes.items()))
    # Tensors are neither hashable nor worth keeping alive.
    cachable = not any(isinstance(value, onnx.TensorProto) for _, value in items)
    build = _evaluator if cachable else _evaluator.__wrapped__
    try:
        evaluator = build(name, opset, items, dtypes, n_outputs)
    except (NotImplementedError, RuntimeError) as error:
        raise ModelError(f"onnx.reference cannot evaluate {name}: {error}") from error
    feeds = {f"x{i}": array for i, array in enumerate(inputs) if array is not None}
    try:
        # Infinities and NaN are legal results: a table may cover inputs like 0 for 1/x.
        with np.errstate(all="ignore"):
            outputs = evaluator.run(None, feeds)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        shapes = ", ".join("none" if a is None else f"{a.dtype}{list(a.shape)}" for a in inputs)
        reason = error.__cause__ or error
        message = f"{name} cannot be computed on {shapes}: {reason}"
        shape_problem = isinstance(reason, ValueError)
        raise (InvalidShapeError if shape_problem else ModelError)(message) from error
    return tuple(np.asarray(output) for output in outputs)


@functools.lru_cache(maxsize=4096)
def _evaluator(
    name: str,
    opset: int,
    attributes: tuple[tuple[str, Any], ...],
    dtypes: tuple[np.dtype[Any] | None, ...],
    n_outputs: int,
) -> Any:
    """Build the evaluator of a model of one node."""
    # onnx.reference takes a third of a second to import: only who evaluates pays for it.
    from cipherlearn.ops._kernels import Evaluator

    names = ["" if dtype is None else f"x{i}" for i, dtype in enumerate(dtypes)]
    outputs = [f"y{i}" for i in range(n_outputs)]
    domain, op_type = _signature.split_name(name)
    node = helper.make_node(op_type, names, outputs, domain=domain)
    kinds = {key: item.kind for key, item in _signature.of_schema(name, opset).attributes.items()}
    for key, value in attributes:
        converted = list(value) if isinstance(value, tuple) else value
        node.attribute.append(helper.make_attribute(key, converted, attr_type=kinds[key]))
    infos = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(dtype), None)
        for i, dtype in enumerate(dtypes)
        if dtype is not None
    ]
    graph = helper.make_graph([node], "node", infos, [onnx.ValueInfoProto(name=o) for o in outputs])
    versions = {"": opset, domain: _signature.domain_version(domain, opset)}
    imports = [helper.make_opsetid(*item) for item in versions.items()]
    return Evaluator(helper.make_model(graph, opset_imports=imports))
