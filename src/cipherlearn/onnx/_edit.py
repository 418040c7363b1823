"""Small edits of graphs that simplification is made of. All of them change their argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx


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


def fresh_name(graph: onnx.GraphProto, base: str) -> str:
    """Return a tensor name that the graph does not use yet."""
    taken = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        taken.update((*node.input, *node.output))
    name, number = base, 1
    while name in taken:
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
