"""Folding factors and offsets into the convolutions and matrix products beside them.

What is folded are multiplications, additions and normalizations by constants of each channel: the
weights and the bias of a linear operator can do their work.
"""

from __future__ import annotations

import onnx

from cipherlearn import ops
from cipherlearn.onnx import _edit
from cipherlearn.onnx._linear import (
    LINEAR,
    RESCALING,
    Linear,
    Rescaling,
    read_linear,
    read_rescaling,
)
from cipherlearn.onnx.graph import Array, tensor_shapes
from cipherlearn.ops import Kind, qualified_name


def fuse_linear(model: onnx.ModelProto) -> bool:
    """Fold constant factors and offsets into the linear operators before and after them.

    Parameters
    ----------
    model : ModelProto
        Model to change.

    Returns
    -------
    bool
        Whether there were any.
    """
    kinds = {node.op_type for node in model.graph.node if not node.domain}
    if not kinds & LINEAR or not kinds & RESCALING:
        return False
    fusion = _Fusion(model)
    changed = False
    for node in list(model.graph.node):
        changed |= fusion.into_producer(node) or fusion.into_reader(node)
    if changed:
        _edit.remove_dead(model.graph)
    return changed


class _Fusion:
    """One pass over a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.ranks = {name: len(shape) for name, shape in tensor_shapes(model).items()}
        self.reads = _edit.reads(self.graph)
        self.producers = {name: node for node in self.graph.node for name in node.output if name}
        self.readers = {name: node for node in self.graph.node for name in node.input if name}

    def into_producer(self, node: onnx.NodeProto) -> bool:
        """Fold a node into the linear operator that it reads; tell whether that was possible."""
        rescaling = self._rescaling(node)
        if rescaling is None or self.reads[rescaling.source] != 1:
            return False
        old = self._linear(self.producers.get(rescaling.source))
        new = None if old is None else old.then(rescaling)
        if old is None or new is None:
            return False
        new.write(self.graph, old)
        old.node.output[0] = node.output[0]
        self.producers[node.output[0]] = old.node
        self.graph.node.remove(node)
        return True

    def into_reader(self, node: onnx.NodeProto) -> bool:
        """Fold a node into the linear operator that reads it; tell whether that was possible."""
        rescaling = self._rescaling(node)
        if rescaling is None or self.reads[node.output[0]] != 1:
            return False
        old = self._linear(self.readers.get(node.output[0]))
        if old is None or not self._costs_lookups(rescaling.source):
            return False
        new = old.after(rescaling)
        if new is None:
            return False
        new.write(self.graph, old)
        old.node.input[0] = rescaling.source
        self.readers[rescaling.source] = old.node
        self.graph.node.remove(node)
        return True

    def _costs_lookups(self, source: str) -> bool:
        """Tell whether a rescaling of a tensor is not done beside other work anyway.

        On an input the client does it, after a function of each element the look-up of that
        function; and there it may bring channels to one scale, which is good for their precision.
        """
        producer = self.producers.get(source)
        while producer is not None:
            name = qualified_name(producer.domain, producer.op_type)
            kind = ops.get(name).kind if name in ops.ONNX_OPS_TO_NUMPY_IMPL else Kind.MIXING
            if kind is not Kind.MOVEMENT:
                return kind is Kind.MIXING
            producer = self.producers.get(producer.input[0])
        return False

    def _rescaling(self, node: onnx.NodeProto) -> Rescaling | None:
        return read_rescaling(node, self._constants(node)) if node.op_type in RESCALING else None

    def _linear(self, node: onnx.NodeProto | None) -> Linear | None:
        if node is None or node.op_type not in LINEAR:
            return None
        return read_linear(node, self._constants(node), self.ranks.get(node.input[0]))

    def _constants(self, node: onnx.NodeProto) -> dict[str, Array]:
        return _edit.constants(self.graph, node.input)
