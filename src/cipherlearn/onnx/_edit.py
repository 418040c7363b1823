"""Small edits of graphs that simplification is made of. All of them change their argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cipherlearn.onnx.graph import Array


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node holds (branches, loop bodies)."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def reads(graph: onnx.GraphProto) -> Counter[str]:
    """Count how often each tensor is read: by nodes, by inner graphs, as an output."""
    counted: Counter[str] = Counter(output.name for output in graph.output)
    for node in graph.node:
        counted.update(name for name in node.input if name)
        for inner in inner_graphs(node):
            counted.update(reads(inner))
    return counted


def rename_reads(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let everything that reads ``old`` read ``new``; graph outputs keep their names."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == old:
                node.input[position] = new
        for inner in inner_graphs(node):
            rename_reads(inner, old, new)
            for output in inner.output:
                if output.name == old:
                    output.name = new


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor of a graph another name, wherever it is computed, read or an output."""
    rename_reads(graph, old, new)
    for value in (*graph.initializer, *graph.output):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for position, name in enumerate(node.output):
            if name == old:
                node.output[position] = new


def names(graph: onnx.GraphProto) -> set[str]:
    """Names of all tensors of a graph and of the graphs inside its nodes."""
    taken = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        taken.update((*node.input, *node.output))
        for inner in inner_graphs(node):
            taken |= names(inner)
    return taken


def fresh_name(graph: onnx.GraphProto, base: str, taken: Iterable[str] = ()) -> str:
    """Return a tensor name that neither the graph nor ``taken`` uses yet."""
    used = names(graph).union(taken)
    name, number = base, 1
    while name in used:
        name, number = f"{base}_{number}", number + 1
    return name


def keep_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace the nodes of a graph."""
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)


def remove_dead(graph: onnx.GraphProto) -> bool:
    """Remove nodes and initializers that no output depends on; tell whether there were any."""
    needed = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(name for name in node.input if name)
            for inner in inner_graphs(node):
                needed.update(reads(inner))
    changed = len(kept) < len(graph.node)
    if changed:
        keep_nodes(graph, kept[::-1])
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    if len(tensors) < len(graph.initializer):
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
        del graph.initializer[:]
        graph.initializer.extend(copies)
        changed = True
    return changed


def initializers_out_of_inputs(graph: onnx.GraphProto) -> None:
    """Stop listing initializers as inputs: they are constants, not replaceable defaults."""
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    if len(inputs) < len(graph.input):
        copies = []
        for value in inputs:
            copy = onnx.ValueInfoProto()
            copy.CopyFrom(value)
            copies.append(copy)
        del graph.input[:]
        graph.input.extend(copies)


def constants(graph: onnx.GraphProto, names: Iterable[str]) -> dict[str, Array]:
    """Values of those of the named tensors that are initializers."""
    wanted = set(names)
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in wanted}


def add_constant(graph: onnx.GraphProto, base: str, value: Array) -> str:
    """Add an initializer under a name that is not taken yet; return the name."""
    name = fresh_name(graph, base)
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def merge(graph: onnx.GraphProto, source: str, target: str) -> bool:
    """Let ``source`` stand for ``target``, which has the same value.

    Afterwards nothing reads ``target``, and its producer can go. Names of graph outputs stay: where
    ``target`` is one, the node that computes the value takes its name. ``False``, and nothing
    changed, where both names must stay.
    """
    outputs = {output.name for output in graph.output}
    if target not in outputs:
        rename_reads(graph, target, source)
        return True
    producer = next((node for node in graph.node if source in node.output), None)
    if producer is None or source in outputs:
        return False
    producer.output[list(producer.output).index(source)] = target
    rename_reads(graph, source, target)
    return True


def set_attribute(node: onnx.NodeProto, name: str, value: Any = None) -> None:
    """Give an attribute of a node another value; take it away where ``value`` is ``None``."""
    for position, item in enumerate(node.attribute):
        if item.name == name:
            del node.attribute[position]
            break
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def import_domain(model: onnx.ModelProto, domain: str) -> None:
    """Name a domain among those that a model uses."""
    if all(entry.domain != domain for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(domain, 1))
