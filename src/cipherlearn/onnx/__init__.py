"""ONNX models: reading, checking, simplifying, and evaluating them in NumPy.

The usual way is ``prepare(source)``, which reads a model, simplifies it and checks that all of it
is supported; then ``execute(model, *arrays)``.
"""

from __future__ import annotations

import onnx as _onnx

from cipherlearn.onnx._batch_axis import check_batch_first
from cipherlearn.onnx.circuits import from_circuit
from cipherlearn.onnx.graph import Graph, Node, TensorInfo, attribute_value
from cipherlearn.onnx.interpreter import (
    check_inputs,
    execute,
    intermediate_values,
    run_node,
    trace,
)
from cipherlearn.onnx.read import ModelSource, load_model
from cipherlearn.onnx.runtime import OnnxRuntimeModel, run_with_onnxruntime
from cipherlearn.onnx.simplify import simplify
from cipherlearn.onnx.support import check_supported
from cipherlearn.onnx.version import get_onnx_opset_version

__all__ = [
    "Graph",
    "ModelSource",
    "Node",
    "OnnxRuntimeModel",
    "TensorInfo",
    "attribute_value",
    "check_batch_first",
    "check_inputs",
    "check_supported",
    "execute",
    "from_circuit",
    "get_onnx_opset_version",
    "intermediate_values",
    "load_model",
    "prepare",
    "run_node",
    "run_with_onnxruntime",
    "simplify",
    "trace",
]


def prepare(source: ModelSource) -> _onnx.ModelProto:
    """Read a model, simplify it, and check that all of it is supported.

    Parameters
    ----------
    source : ModelProto, bytes, str or path
        A model in memory, the content of a file, or the path of a file.

    Returns
    -------
    ModelProto
        Simplified model: every operator in it is supported, in the way that it is used.

    Raises
    ------
    ModelError
        When it cannot be read, is not valid, or holds something that is not supported.
    """
    model = simplify(load_model(source))
    check_supported(model)
    return model
