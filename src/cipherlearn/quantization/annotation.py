"""The float model with its quantization written beside every node, for viewers of ONNX graphs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx

from cipherlearn.onnx.graph import infer_shapes
from cipherlearn.ops import qualified_name
from cipherlearn.quantization.base_quantized_op import QuantizedOp
from cipherlearn.quantization.inspection import HeldIntegers
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.widths import Layers

#: Begins the keys of all metadata written here.
PREFIX = "cipherlearn."

_IN_A_TABLE = "computed inside a table look-up"
_ON_CLIENT = "computed by the client, in the clear"


def annotated_model(
    model: onnx.ModelProto,
    held: Mapping[str, HeldIntegers],
    layers: Layers,
    on_client: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of a model with the quantization of its tensors as metadata and documentation.

    Parameters
    ----------
    model : ModelProto
        The float model.
    held : mapping of str to HeldIntegers
        Tensors that exist as integers.
    layers : mapping
        Output tensor -> (input tensors, quantized operator).
    on_client : collection of str, default=()
        Tensors that the client computes in the clear.

    Returns
    -------
    ModelProto
        It computes what ``model`` computes.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    # Only tensors whose type and shape are written down can carry metadata.
    known = {info.name for info in result.graph.value_info}
    for info in infer_shapes(model).graph.value_info:
        if info.name not in known and info.type.tensor_type.HasField("shape"):
            result.graph.value_info.append(info)
    tensors = {name: _fields_of(integers) for name, integers in held.items()}
    graph = result.graph
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.name in tensors:
            _write(result, "tensor", info.name, info, tensors[info.name])
    constants: dict[str, dict[str, Any]] = {}
    for node in graph.node:
        for output in node.output:
            if output in layers:
                constants.update(_constants(node, layers[output][1]))
                fields = tensors.get(output, {"held": _IN_A_TABLE})
            elif output in on_client:
                fields = {"held": _ON_CLIENT}
            else:
                continue
            part = output if len(node.output) > 1 else ""
            _write(result, "node", node.name or output, node, fields, part)
    for tensor in graph.initializer:
        if tensor.name in constants:
            _write(result, "constant", tensor.name, tensor, constants[tensor.name])
    return result


def _fields_of(held: HeldIntegers) -> dict[str, Any]:
    fields = {
        "bits": held.bitwidth,
        "scale": _plain(held.scale),
        "zero_point": _plain(held.zero_point),
        "range": list(held.range),
        "range_is": "proved" if held.is_proved else "observed",
        "real_range": list(held.real_range),
    }
    if held.lsbs_to_remove:
        fields["bits_read"] = held.bitwidth - held.lsbs_to_remove
    return fields


def _constants(node: onnx.NodeProto, op: QuantizedOp) -> dict[str, dict[str, Any]]:
    """Quantization of the constant operands of a node, by name."""
    if qualified_name(node.domain, node.op_type) != op.op_type():
        # Written with simpler operators, which have constants of their own.
        return {}
    return {
        node.input[position]: {
            "bits": constant.n_bits,
            "scale": _plain(constant.quantizer.scale),
            "zero_point": _plain(constant.quantizer.zero_point),
            "range": [int(constant.qvalues.min()), int(constant.qvalues.max())],
        }
        for position, constant in op.constant_inputs.items()
        if isinstance(constant, QuantizedArray) and constant.qvalues.size
        if position < len(node.input)
    }


def _plain(value: Any) -> Any:
    array = np.asarray(value)
    return array.item() if array.size == 1 else array.tolist()


def _write(
    model: onnx.ModelProto,
    kind: str,
    name: str,
    target: Any,
    fields: Mapping[str, Any],
    part: str = "",
) -> None:
    """Write fields to a node or tensor; to the model where the installed ``onnx`` knows no other.

    Parameters
    ----------
    part : str, default=""
        Which of several outputs of a node the fields describe.
    """
    before = f"{PREFIX}{part}." if part else PREFIX
    entries = {before + key: json.dumps(value) for key, value in fields.items()}
    owner: Any = target
    if not has_metadata(target):
        owner = model
        entries = {f"{PREFIX}{kind}.{name}{'.' + part if part else ''}": json.dumps(fields)}
    for key, value in entries.items():
        owner.metadata_props.add(key=key, value=value)
    text = (f"{part}: " if part else "") + _sentence(fields)
    target.doc_string = f"{target.doc_string}\n{text}" if target.doc_string else text


def has_metadata(target: Any) -> bool:
    """Whether the installed ``onnx`` lets a node or tensor carry metadata."""
    return "metadata_props" in target.DESCRIPTOR.fields_by_name


def _sentence(fields: Mapping[str, Any]) -> str:
    if "bits" not in fields:
        return str(fields["held"])
    low, high = fields["range"]
    kind = f" ({fields['range_is']})" if "range_is" in fields else ""
    read = f", {fields['bits_read']} bits read by look-ups" if "bits_read" in fields else ""
    return (
        f"{fields['bits']} bits, integers {low} to {high}{kind}{read}, "
        f"scale {_short(fields['scale'])}, zero-point {_short(fields['zero_point'])}"
    )


def _short(value: Any) -> str:
    array = np.asarray(value, dtype=np.float64)
    if array.size == 1:
        return f"{array.item():.6g}"
    return f"{array.min():.6g} to {array.max():.6g} ({array.size} values)"
