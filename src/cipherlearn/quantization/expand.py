"""A float graph in which every operator can be quantized.

Operators that have neither a table nor an integer form of their own are written with simpler ones
(`cipherlearn.ops._expand`). Which ones need it depends on where their operands come from: any
element-wise function of one integer value is a table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.errors import CipherlearnError, ModelError
from cipherlearn.onnx import Graph, Node
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.quantization import quantized_ops
from cipherlearn.quantization.base_quantized_op import ONNX_OPS_TO_QUANTIZED_IMPL


class Provenance:
    """For every tensor, the integer values that it is an element-wise function of.

    Parameters
    ----------
    inputs : iterable of str
        Tensors that hold integers of their own: the inputs of the model.
    """

    def __init__(self, inputs: Iterable[str]) -> None:
        self._sources = {name: frozenset({name}) for name in inputs}

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """All integer values behind some tensors."""
        return frozenset().union(*(self._sources[name] for name in names))

    def variable(self, node: Node) -> tuple[str, ...]:
        """The operands of a node that are not part of the model."""
        return tuple(name for name in node.inputs if name in self._sources)

    def record(
        self,
        node: Node,
        fuses: bool,
        shape: tuple[int, ...],
        constants: Mapping[str, np.ndarray],
    ) -> None:
        """Take note of the outputs of a node.

        Parameters
        ----------
        node : Node
        fuses : bool
            Whether it computes element by element, or only moves elements.
        shape : tuple of int
            Of its first operand that is not a constant.
        constants : mapping of str to numpy.ndarray
            Constants of the graph.
        """
        for name in filter(None, node.outputs):
            if not fuses:
                self._sources[name] = frozenset({name})
                continue
            union = self.of(self.variable(node))
            if ops.get(node.op).kind is ops.Kind.MOVEMENT:
                # The same movement of the same value is the same value again.
                attributes = sorted(node.attributes.items())
                text = repr((node.op, shape, attributes, _digest(node, constants)))
                union = frozenset(f"{text}({source})" for source in union)
            self._sources[name] = union


def expand(
    graph: Graph,
    samples: dict[str, np.ndarray],
    only: Callable[[Node], bool] = lambda node: True,
) -> Graph:
    """Write operators with simpler ones, wherever that is needed.

    Parameters
    ----------
    graph : Graph
    samples : dict of str to numpy.ndarray
        Every tensor for one row; tensors that are new are added.
    only : callable, optional
        Which nodes to consider. Default: all.

    Returns
    -------
    Graph

    Raises
    ------
    CipherlearnError
        If an operator cannot be expanded; the message names the node.
    """
    expansion = _Expansion(graph, samples, only)
    for node in graph.nodes:
        expansion.visit(node)
    new = {name: value for name, value in expansion.samples.items() if name not in graph.dtypes}
    dtypes = {**graph.dtypes, **{name: np.asarray(value).dtype for name, value in new.items()}}
    nodes = tuple(expansion.nodes)
    return replace(graph, nodes=nodes, constants=expansion.constants, dtypes=dtypes)


class _Expansion:
    def __init__(
        self, graph: Graph, samples: dict[str, np.ndarray], only: Callable[[Node], bool]
    ) -> None:
        self.opset = graph.opset
        self.samples = samples
        self.only = only
        self.constants = dict(graph.constants)
        self.nodes: list[Node] = []
        self.provenance = Provenance(graph.input_names)

    def visit(self, node: Node) -> None:
        variable = self.provenance.variable(node)
        op = ops.get(node.op)
        sources = self.provenance.of(variable)
        if op.expand is None or not self.only(node) or not self._is_needed(node, op):
            self.nodes.append(node)
            if variable:
                shape = np.shape(self.samples[variable[0]])
                fuses = is_fused(op, len(sources))
                self.provenance.record(node, fuses, shape, self.constants)
            return
        try:
            parts = self._parts(node, op)
        except CipherlearnError as error:
            if repr(node.name) in str(error):
                raise
            raise type(error)(f"node {node.name!r} ({node.op}): {error}") from error
        for part in parts:
            self.visit(part)

    def _is_needed(self, node: Node, op: ops.Op) -> bool:
        variable = self.provenance.variable(node)
        by_hand = ONNX_OPS_TO_QUANTIZED_IMPL.get(op.name)
        if not variable or (by_hand and by_hand.__module__ != quantized_ops.__name__):
            return False
        if op.integer is not None:
            real = [node.inputs[p] for p in op.integer.real_inputs if p < len(node.inputs)]
            return not set(real).isdisjoint(variable)
        raw = {node.inputs[p] for p in op.raw_inputs if p < len(node.inputs)}
        if not raw.isdisjoint(variable):
            return True  # a table that is read at an encrypted place, for example
        return not is_fused(op, len(self.provenance.of(variable)))

    def _parts(self, node: Node, op: ops.Op) -> list[Node]:
        composer = Composer(node.name, self.opset, _evaluate)
        operands = [self._tensor(name) if name else None for name in node.inputs]
        defaults = op.signature(self.opset).defaults
        expansion = op.expand(composer, operands, {**defaults, **node.attributes})  # type: ignore[misc]
        results = [expansion] if isinstance(expansion, Tensor) else list(expansion)
        self.constants.update(composer.constants)
        self.samples.update({**composer.constants, **composer.samples})
        return _with_output_names(composer, node, results)

    def _tensor(self, name: str) -> Tensor:
        constant = name in self.constants
        return Tensor(name, np.asarray(self.samples[name]), constant)


def is_fused(op: ops.Op, sources: int) -> bool:
    """Whether an operator on functions of that many integer values is a table, or free."""
    if op.kind is ops.Kind.MOVEMENT:
        return True
    if op.integer is not None and not op.integer.univariate:
        return False
    return op.kind is ops.Kind.ELEMENTWISE and sources == 1


def _with_output_names(composer: Composer, node: Node, results: Sequence[Tensor]) -> list[Node]:
    """The steps as nodes, the last ones with the names of the outputs of the node they replace."""
    made = {step.output for step in composer.steps}
    renamed: dict[str, str] = {}
    copied: list[tuple[str, str]] = []
    for output, result in zip(node.outputs, results, strict=False):
        if output and result.name in made and result.name not in renamed:
            renamed[result.name] = output
        elif output:
            copied.append((output, result.name))
    nodes = [
        Node(
            step.op,
            step.output,
            tuple(renamed.get(name, name) for name in step.inputs),
            (renamed.get(step.output, step.output),),
            step.attributes,
        )
        for step in composer.steps
    ]
    missing = [name for name in node.outputs[len(results) :] if name]
    if missing:
        raise ModelError(f"the outputs {', '.join(missing)} are not supported; do not use them")
    for output, source in copied:
        name = f"{node.name}/{output}"
        nodes.append(Node("Identity", name, (renamed.get(source, source),), (output,)))
    return nodes


def _evaluate(
    op: str, operands: Sequence[Any], opset: int, attributes: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    result: tuple[np.ndarray, ...] = ops.get(op).numpy(*operands, opset=opset, **attributes)
    return result


def _digest(node: Node, constants: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for position, name in enumerate(node.inputs):
        if name in constants:
            array = np.ascontiguousarray(constants[name])
            digest.update(f"{position}{array.shape}{array.dtype}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
