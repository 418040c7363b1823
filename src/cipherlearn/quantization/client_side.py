"""What the client computes in the clear: both ends of a model, as far as they need no weights.

A softmax or an arg-max after the last layer costs nothing on decrypted scores, and a great deal on
encrypted ones. A token becomes a one-hot vector before encryption: its embedding is then a product
with weights, which stay on the server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.circuit.serialize import decode, encode
from cipherlearn.errors import FormatError, InvalidParameterError, InvalidShapeError, ModelError
from cipherlearn.onnx import Graph, Node, execute
from cipherlearn.onnx.graph import TensorInfo
from cipherlearn.onnx.interpreter import run_node
from cipherlearn.quantization.calibration import check_real_arrays


def split_tail(graph: Graph) -> tuple[Graph, Graph | None]:
    """Cut off what the client computes after decryption.

    That is an operator that the registry marks for it (`cipherlearn.ops.Op.client`), or the bias
    of a product where it is an operator of its own, and whatever follows, as long as none of it
    holds weights of the model: no product with constants (sums and maxima of one value are fine).
    A bias is told to the client in any case: zero-points of results hold it.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    body : Graph
        What is computed on encrypted data.
    tail : Graph or None
        From the outputs of the body to the outputs of the model; None where nothing is cut off.
    """
    nodes = _tail_nodes(graph)
    if not nodes:
        return graph, None
    made = {name for node in nodes for name in node.outputs}
    read = [name for node in nodes for name in node.inputs]
    kept = [name for name in graph.output_names if name not in made]
    outside = [name for name in read if name and name not in made and name not in graph.constants]
    borders = tuple(dict.fromkeys([*outside, *kept]))
    infos = tuple(TensorInfo(name, graph.dtypes.get(name), None) for name in borders)
    body = replace(graph, nodes=_without(graph, nodes), outputs=infos)
    return body, _part(graph, infos, graph.outputs, nodes)


def with_encodings(graph: Graph, samples: dict[str, np.ndarray]) -> Graph:
    """The graph with embeddings of inputs as products of one-hot vectors and tables.

    Parameters
    ----------
    graph : Graph
    samples : dict of str to numpy.ndarray
        Every tensor for one row; tensors that are new are added.
    """
    nodes: list[Node] = []
    constants = dict(graph.constants)
    given = set(graph.input_names)
    for node in graph.nodes:
        moved = ops.get(node.op).kind is ops.Kind.MOVEMENT or node.op == "Cast"
        if moved and given.issuperset(n for n in node.inputs if n and n not in constants):
            given.update(node.outputs)
        table = constants.get(node.inputs[0]) if node.op == "Gather" else None
        if table is None or not _is_embedding(node, table, given):
            nodes.append(node)
            continue
        index, hot = node.inputs[1], f"{node.name}/one_hot"
        depth, levels = f"{hot}/depth", f"{hot}/levels"
        constants[depth] = np.array(len(table), dtype=np.int64)
        constants[levels] = np.array([0, 1], dtype=table.dtype)
        samples[hot] = np.eye(len(table), dtype=table.dtype)[samples[index]]
        samples.update({name: constants[name] for name in (depth, levels)})
        nodes.append(Node("OneHot", hot, (index, depth, levels), (hot,), {"axis": -1}))
        nodes.append(Node("MatMul", node.name, (hot, node.inputs[0]), node.outputs))
    dtypes = {**graph.dtypes, **{name: samples[name].dtype for name in samples}}
    return replace(graph, nodes=tuple(nodes), constants=constants, dtypes=dtypes)


def _is_embedding(node: Node, table: np.ndarray, given: set[str]) -> bool:
    rows = table.ndim == 2 and table.dtype.kind == "f" and not node.attributes.get("axis")
    return rows and node.inputs[1] in given


def split_head(graph: Graph) -> tuple[Graph | None, Graph]:
    """Cut off what the client computes before encryption.

    That is an operator that the registry marks as an encoding (`cipherlearn.ops.Op.encoding`) and
    what moves or converts an input of the model on the way there.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    head : Graph or None
        From the inputs of the model to encodings; None where there are none.
    body : Graph
        Its inputs are those of the model that it still reads, then the encodings.
    """
    ways: dict[str, list[Node]] = {name: [] for name in graph.input_names}
    encodings: dict[str, list[Node]] = {}
    for node in graph.nodes:
        variable = [name for name in node.inputs if name and name not in graph.constants]
        op = ops.get(node.op)
        if len(variable) != 1 or variable[0] not in ways:
            continue
        way = [*ways[variable[0]], node]
        if op.encoding:
            encodings[node.outputs[0]] = way
        elif op.kind is ops.Kind.MOVEMENT or node.op == "Cast":
            ways[node.outputs[0]] = way
    if not encodings:
        return None, graph
    made = {id(node) for way in encodings.values() for node in way}
    nodes = [node for node in graph.nodes if id(node) in made]
    last = {id(way[-1]) for way in encodings.values()}
    body_nodes = used_nodes(graph, [node for node in graph.nodes if id(node) not in last])
    read = {name for node in body_nodes for name in node.inputs} | set(graph.output_names)
    infos = tuple(TensorInfo(name, graph.dtypes.get(name), None) for name in encodings)
    kept = tuple(info for info in graph.inputs if info.name in read)
    body = replace(graph, inputs=(*kept, *infos), nodes=tuple(body_nodes))
    return _part(graph, graph.inputs, (*kept, *infos), nodes), body


def used_nodes(graph: Graph, nodes: list[Node]) -> list[Node]:
    """Those of some nodes, in order, that an output of a graph depends on."""
    needed = set(graph.output_names)
    result = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            result.append(node)
    return result[::-1]


def _without(graph: Graph, nodes: list[Node]) -> tuple[Node, ...]:
    left_out = {id(node) for node in nodes}
    return tuple(node for node in graph.nodes if id(node) not in left_out)


def _part(
    graph: Graph,
    inputs: tuple[TensorInfo, ...],
    outputs: tuple[TensorInfo, ...],
    nodes: list[Node],
) -> Graph:
    """Some nodes of a graph, with the constants that they read."""
    read = {name for node in nodes for name in node.inputs}
    constants = {name: value for name, value in graph.constants.items() if name in read}
    return Graph(inputs, outputs, tuple(nodes), constants, graph.opset)


def _tail_nodes(graph: Graph) -> list[Node]:
    computed = {name for node in graph.nodes for name in node.outputs}
    inside: set[int] = set()
    for node in graph.nodes:
        begins = ops.get(node.op).client or _is_bias_of_results(graph, node)
        if (
            begins
            and id(node) not in inside
            and computed.issuperset(
                name for name in node.inputs if name and name not in graph.constants
            )
        ):
            reached = _reached(graph, node)
            if all(_is_public(follower, graph.constants) for follower in reached[1:]):
                inside.update(id(follower) for follower in reached)
    return [node for node in graph.nodes if id(node) in inside]


def _is_bias_of_results(graph: Graph, node: Node) -> bool:
    """Whether a node adds a constant to a product, and nothing but outputs follows."""
    constants = [name for name in node.inputs if name in graph.constants]
    if node.op != "Add" or len(constants) != 1:
        return False
    (summed,) = (name for name in node.inputs if name not in graph.constants)
    product = graph.producer(summed)
    if product is None or product.op != "MatMul":
        return False
    if graph.constants.keys().isdisjoint(product.inputs):
        return False
    followers = _reached(graph, node)[1:]
    return all(_is_moved_or_left_to_the_client(each) for each in followers)


def _is_moved_or_left_to_the_client(node: Node) -> bool:
    op = ops.get(node.op)
    return op.client or op.kind is ops.Kind.MOVEMENT


def _reached(graph: Graph, start: Node) -> list[Node]:
    """A node and all that depend on it, in order."""
    names = set(start.outputs)
    result = [start]
    for node in graph.nodes:
        if node is not start and names.intersection(filter(None, node.inputs)):
            names.update(node.outputs)
            result.append(node)
    return result


def _is_public(node: Node, constants: Collection[str]) -> bool:
    """Whether the client may compute it: weights stay on the server."""
    op = ops.get(node.op)
    if op.client or op.kind is not ops.Kind.MIXING:
        return True
    # Sums and maxima of one value say nothing of the model; other domains hold weights in
    # attributes.
    read = {n for i, n in enumerate(node.inputs) if n and i not in op.raw_inputs}
    return len(read) == 1 and read.isdisjoint(constants) and "." not in node.op


def unused_name(wanted: str, taken: set[str]) -> str:
    """A name like the wanted one that nothing has; it is taken from then on.

    Parameters
    ----------
    wanted : str
    taken : set of str
        Grows by the name.
    """
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def with_sums(
    graph: Graph,
    tail: Graph | None,
    outputs: tuple[str, ...],
    sums: Mapping[str, tuple[str, ...]],
) -> Graph | None:
    """The tail for outputs that are sums of several: the client adds them first.

    Parameters
    ----------
    graph : Graph
        What is computed on encrypted data.
    tail : Graph or None
        What follows for the client, before there are sums.
    outputs : tuple of str
        What the client has after the sums.
    sums : mapping of str to tuple of str
        Output -> outputs of ``graph`` whose sum it is.
    """
    if not sums:
        return tail
    taken = {node.name for node in (() if tail is None else tail.nodes)}
    added = [
        Node("Sum", unused_name(f"{name}/sum", taken), names, (name,))
        for name, names in sums.items()
    ]
    infos = tuple(replace(info, shape=None) for info in graph.outputs)
    if tail is None:
        totals = tuple(TensorInfo(name, None, None) for name in outputs)
        return Graph(infos, totals, tuple(added), {}, graph.opset)
    return replace(tail, inputs=infos, nodes=(*added, *tail.nodes))


def run_tail(tail: Graph, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """The outputs of the model from decrypted, dequantized values.

    Parameters
    ----------
    tail : Graph
    values : tuple of numpy.ndarray of float64

    Returns
    -------
    tuple of numpy.ndarray
    """
    return execute(tail, *tail_inputs(tail, values))


def tail_inputs(tail: Graph, values: Sequence[Any]) -> list[np.ndarray]:
    """Decrypted values in the types that the tail takes: integers are carried as reals."""
    return [
        value if info.dtype is None or info.dtype.kind == "f" else np.rint(value).astype(info.dtype)
        for info, value in zip(tail.inputs, values, strict=True)
    ]


def run_head(head: Graph, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is encrypted, from the inputs of the model.

    Parameters
    ----------
    head : Graph
    values : tuple of numpy.ndarray or None
        None for what another party gives.

    Returns
    -------
    tuple of numpy.ndarray or None
        None for what depends on values that are not given.
    """
    known: dict[str, Any] = dict(head.constants)
    for info, value in zip(head.inputs, values, strict=True):
        if value is not None:
            known[info.name] = np.asarray(value)
    for node in head.nodes:
        if all(not name or name in known for name in node.inputs):
            operands = [known[name] if name else None for name in node.inputs]
            outputs = run_node(node, operands, opset=head.opset)
            known.update(zip(node.outputs, outputs, strict=False))
    return tuple(known.get(name) for name in head.output_names)


def encoded(head: Graph, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """As `run_head`, for values that users give.

    Raises
    ------
    InvalidShapeError
        If there is not one array an input, or the numbers of rows differ.
    InvalidParameterError
        If an integer is outside of what its encoding knows.
    """
    names = ", ".join(head.input_names)
    if len(values) != len(head.inputs):
        raise InvalidShapeError(
            f"{len(values)} arrays were given; the model takes {len(head.inputs)} ({names})"
        )
    pairs = list(zip(head.inputs, values, strict=True))
    given = [(info, value) for info, value in pairs if value is not None]
    whole = {info.name for info, _ in given if info.dtype is not None and info.dtype.kind != "f"}
    checked = check_real_arrays([i.name for i, _ in given], [v for _, v in given], whole)
    arrays = iter(checked)
    results = run_head(head, tuple(None if value is None else next(arrays) for _, value in pairs))
    one_hot = {name for node in head.nodes if ops.get(node.op).encoding for name in node.outputs}
    for info, result in zip(head.outputs, results, strict=True):
        if result is not None and info.name in one_hot and not _is_one_hot(result):
            raise InvalidParameterError(
                f"an input of the model ({names}) holds integers outside of its table of "
                f"{result.shape[-1]} entries"
            )
    return tuple(None if result is None else result.astype(np.float64) for result in results)


def _is_one_hot(values: np.ndarray) -> bool:
    return bool((values.sum(axis=-1) == 1).all())


def graph_to_dict(graph: Graph) -> dict[str, Any]:
    """A graph as JSON-compatible data."""
    return {
        "inputs": [[info.name, str(info.dtype or "float32")] for info in graph.inputs],
        "outputs": list(graph.output_names),
        "opset": graph.opset,
        "constants": {name: encode(value) for name, value in graph.constants.items()},
        "nodes": [
            {
                "op": node.op,
                "name": node.name,
                "inputs": list(node.inputs),
                "outputs": list(node.outputs),
                "attributes": {key: encode(value) for key, value in node.attributes.items()},
            }
            for node in graph.nodes
        ],
    }


def graph_from_dict(data: Any) -> Graph:
    """The graph whose `graph_to_dict` is given.

    Raises
    ------
    FormatError
        If the data is damaged, or names operators that are not registered.
    """
    try:
        nodes = tuple(_node(entry) for entry in data["nodes"])
        for node in nodes:
            ops.get(node.op)
        return Graph(
            inputs=tuple(TensorInfo(str(n), np.dtype(t), None) for n, t in data["inputs"]),
            outputs=tuple(TensorInfo(str(name), None, None) for name in data["outputs"]),
            nodes=nodes,
            constants={str(k): np.asarray(decode(v)) for k, v in data["constants"].items()},
            opset=int(data["opset"]),
        )
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, ModelError) as error:
        raise FormatError(f"the client's part of the saved model is damaged: {error!r}") from error


def _node(data: Mapping[str, Any]) -> Node:
    attributes = {str(key): decode(value) for key, value in data["attributes"].items()}
    inputs, outputs = (tuple(map(str, data[key])) for key in ("inputs", "outputs"))
    return Node(str(data["op"]), str(data["name"]), inputs, outputs, attributes)
