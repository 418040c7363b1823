"""Writing ONNX models, and running them.

Numbers have double precision, as distances between rows of large values need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cipherlearn.onnx import Graph, execute

#: Operators as of this set; it is one that all readers know.
OPSET = 17

#: The version of the format that came with it.
_IR_VERSION = 8


def node(op: str, inputs: Sequence[str], result: str, **attributes: Any) -> onnx.NodeProto:
    """An operator with one result, that is named for it."""
    return helper.make_node(op, list(inputs), [result], name=f"{result}:{op}", **attributes)


def constant(name: str, values: Any) -> onnx.TensorProto:
    """A constant tensor."""
    return numpy_helper.from_array(np.asarray(values, dtype=np.float64), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto],
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
) -> onnx.ModelProto:
    """A model between tensors of rows, which are given by their names and widths."""
    ends = [
        [helper.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, ["rows", w]) for n, w in of]
        for of in (inputs.items(), outputs.items())
    ]
    graph = helper.make_graph(list(nodes), "network", ends[0], ends[1], list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version = _IR_VERSION
    return made


def run(made: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    """What a model with one input and one output gives for rows."""
    (result,) = execute(Graph.from_model(made), np.asarray(rows, dtype=np.float64))
    return np.asarray(result)
