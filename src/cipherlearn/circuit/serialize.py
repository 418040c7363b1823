"""Circuits as JSON text: versioned, and rebuilt node by node when loaded.

Nothing in a file is trusted: primitives are looked up by name, shapes and ranges are inferred
again, arrays are plain bytes of a declared dtype and shape. Loading cannot run code.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import fields
from typing import Any

import numpy as np

from cipherlearn.circuit import ir
from cipherlearn.circuit.builder import Builder, IntValue
from cipherlearn.errors import CipherlearnError, FormatError, InvalidTypeError

#: Written into every file; files with a higher number come from a newer version.
FORMAT_VERSION = 1

#: Elements of all nodes of a circuit: few bytes of a file can ask for many large nodes.
MAXIMUM_TOTAL_ELEMENTS = 2**27

_DTYPES = {
    "bool",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
}


def circuit_to_dict(circuit: ir.Circuit) -> dict[str, Any]:
    """A circuit as JSON-compatible data."""
    return {
        "format": "cipherlearn.circuit",
        "version": FORMAT_VERSION,
        "nodes": [
            {
                "primitive": node.primitive.name,
                "inputs": list(node.inputs),
                "label": node.label,
                "parameters": {
                    f.name: encode(getattr(node.primitive, f.name)) for f in fields(node.primitive)
                },
            }
            for node in circuit.nodes
        ],
        "outputs": list(circuit.outputs),
        "output_names": list(circuit.output_names),
    }


def circuit_from_dict(data: Any) -> ir.Circuit:
    """The circuit that `circuit_to_dict` described.

    Raises
    ------
    FormatError
        If the data is damaged, of another kind, or of a newer version.
    """
    if not isinstance(data, dict) or data.get("format") != "cipherlearn.circuit":
        raise FormatError("this is not a saved cipherlearn circuit")
    if data.get("version") != FORMAT_VERSION:
        raise FormatError(
            f"the circuit was saved in format version {data.get('version')!r}; this cipherlearn "
            f"reads version {FORMAT_VERSION}"
        )
    try:
        return _build(data)
    except FormatError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        CipherlearnError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error) or type(error).__name__
        raise FormatError(f"the saved circuit is damaged: {reason}") from error


def _build(data: dict[str, Any]) -> ir.Circuit:
    builder = Builder()
    values: list[IntValue] = []
    elements = 0
    for entry in data["nodes"]:
        kind = ir.PRIMITIVES[entry["primitive"]]
        primitive = kind(**{name: decode(part) for name, part in entry["parameters"].items()})
        operands = [values[_position(index, len(values))] for index in entry["inputs"]]
        with builder.scope(str(entry["label"])):
            values.append(builder.add(primitive, *operands))
        elements += values[-1].size
        if elements > MAXIMUM_TOTAL_ELEMENTS:
            raise FormatError(f"the saved circuit has more than {MAXIMUM_TOTAL_ELEMENTS} elements")
    outputs = [values[_position(index, len(values))] for index in data["outputs"]]
    return builder.finish(outputs, [str(name) for name in data["output_names"]])


def dumps(circuit: ir.Circuit) -> str:
    """A circuit as JSON text."""
    return json.dumps(circuit_to_dict(circuit))


def loads(text: str | bytes) -> ir.Circuit:
    """The circuit in a JSON text.

    Raises
    ------
    FormatError
        If the text is not one that `dumps` wrote.
    """
    return circuit_from_dict(parse_json(text))


def parse_json(text: str | bytes) -> Any:
    """Data of a JSON text, or a `FormatError`."""
    try:
        return json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError(f"this is not a saved cipherlearn file: {error}") from error


def encode(value: Any) -> Any:
    """JSON-compatible form of numbers, strings, arrays, slices and tuples of these.

    Raises
    ------
    InvalidTypeError
        If an array holds neither numbers nor booleans.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.name not in _DTYPES:
            raise InvalidTypeError(f"an array of {value.dtype} cannot be saved")
        data = base64.b64encode(value.astype(value.dtype.newbyteorder("<")).tobytes())
        return {
            "array": data.decode("ascii"),
            "dtype": value.dtype.name,
            "shape": list(value.shape),
        }
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, (tuple, list)):
        return {"tuple": [encode(part) for part in value]}
    if isinstance(value, np.generic):
        return value.item()
    return value


def decode(data: Any) -> Any:
    """The value that `encode` described.

    Raises
    ------
    FormatError
        If the data is none of what `encode` makes: an array's dtype, shape and bytes do not agree,
        for example.
    """
    if not isinstance(data, dict):
        return data
    if "tuple" in data:
        return tuple(decode(part) for part in _list_of(data["tuple"]))
    if "slice" in data:
        return slice(*_list_of(data["slice"], 3))
    if "array" not in data:
        raise FormatError(f"unknown kind of value with the keys {sorted(data)}")
    return _decode_array(data["array"], data.get("dtype"), data.get("shape"))


def _decode_array(text: Any, dtype_name: Any, shape: Any) -> np.ndarray:
    if not isinstance(dtype_name, str) or dtype_name not in _DTYPES:
        raise FormatError(f"an array of dtype {dtype_name!r} is not accepted")
    extents = tuple(_list_of(shape))
    if any(type(extent) is not int or extent < 0 for extent in extents):
        raise FormatError(f"{shape!r} is not the shape of an array")
    try:
        raw = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise FormatError(f"the bytes of an array are damaged: {error}") from error
    dtype = np.dtype(dtype_name)
    if len(raw) != math.prod(extents) * dtype.itemsize:
        raise FormatError(
            f"an array of shape {extents} and dtype {dtype} cannot have {len(raw)} bytes"
        )
    try:
        return np.frombuffer(raw, dtype=dtype.newbyteorder("<")).reshape(extents).astype(dtype)
    except ValueError as error:  # more axes, or larger ones beside an empty one, than NumPy has
        raise FormatError(f"{shape!r} is not the shape of an array: {error}") from error


def _list_of(data: Any, length: int | None = None) -> list[Any]:
    if not isinstance(data, list) or (length is not None and len(data) != length):
        raise FormatError(f"{data!r} is not a list{'' if length is None else f' of {length}'}")
    return data


def _position(index: Any, known: int) -> int:
    if type(index) is not int or not 0 <= index < known:
        raise FormatError(f"a node reads {index!r}, which is not an earlier node")
    return index
