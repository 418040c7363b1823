"""Outputs that classifiers have for people: dictionaries of probabilities, names of classes."""

from __future__ import annotations

from typing import Final

import onnx

from cipherlearn.errors import CipherlearnWarning, warn
from cipherlearn.onnx import _edit
from cipherlearn.onnx.graph import tensor_types

_STRING: Final = onnx.TensorProto.STRING
# Attribute with the numbers of the classes; `classlabels_ints` in all other operators.
_NUMBERS: Final = {"TreeEnsembleClassifier": "classlabels_int64s"}


def plain_outputs(model: onnx.ModelProto) -> None:
    """Turn the outputs of a classifier into plain numbers (in place).

    A ZipMap goes: its output becomes the table of probabilities that it reads. Outputs that are
    strings are left out, with a warning, as long as others remain.

    Parameters
    ----------
    model : ModelProto
        Model to change.
    """
    _drop_maps(model)
    _drop_strings(model)


def _drop_maps(model: onnx.ModelProto) -> None:
    graph = model.graph
    outputs = {output.name: output for output in graph.output}
    types = tensor_types(model)
    for node in list(graph.node):
        if node.op_type != "ZipMap" or node.domain != "ai.onnx.ml":
            continue
        output = outputs.get(node.output[0])
        if output is not None:
            known = types.get(node.input[0])
            output.type.Clear()
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            if known is not None:
                output.type.tensor_type.CopyFrom(known)
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]


def _drop_strings(model: onnx.ModelProto) -> None:
    graph = model.graph
    strings = [o for o in graph.output if o.type.tensor_type.elem_type == _STRING]
    if not strings or len(strings) == len(graph.output):
        return
    names = ", ".join(repr(output.name) for output in strings)
    kept = ", ".join(repr(output.name) for output in graph.output if output not in strings)
    for output in strings:
        graph.output.remove(output)
    warn(
        f"The output {names} holds strings, which cannot be computed on encrypted values: it is"
        f" left out. The names of the classes follow from what remains ({kept}).",
        CipherlearnWarning,
    )
    _edit.remove_dead(graph)
    counted = _edit.reads(graph)
    for node in graph.node:
        if node.domain == "ai.onnx.ml" and not counted[node.output[0]]:
            _number_classes(node)


def _number_classes(node: onnx.NodeProto) -> None:
    """Let a classifier whose labels nobody reads name its classes by numbers."""
    for item in node.attribute:
        if item.name == "classlabels_strings":
            numbers = list(range(len(item.strings)))
            _edit.set_attribute(node, item.name)
            _edit.set_attribute(node, _NUMBERS.get(node.op_type, "classlabels_ints"), numbers)
            return
