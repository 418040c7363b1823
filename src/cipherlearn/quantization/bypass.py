"""Activations whose linear part goes around the look-up.

Before a look-up, an accumulator ``a`` is rounded, and the rounding error ``e`` reaches the result
as ``f'(a) * e``. An activation is written as ``f(a) = slope * a + g(a)`` with a slope for each
channel. Only ``g`` is looked up, which costs what ``f`` costs. The linear part is a linear function
of what the layer before read, and those integers are not rounded: what is left of the error is
``(f'(a) - slope) * e``. For ReLU with a share ``p`` of active values and ``slope = p``, that has
``1 - p`` times the variance. The range of ``g`` is shorter as well, so its grid is finer.

The float graph is rewritten, and means the same as before:

- An activation between layers: the next layer reads ``g`` and, beside it, what the layer before
  read. Nobody sees more of the model.
- An activation before an output of the model: its linear part becomes an output of its own, which
  the client adds after decryption. **The client then learns two partial results instead of their
  sum**: a few chosen inputs tell the linear part of the model, ``W2 @ diag(slope) @ W1``, entry by
  entry. So that is done only where it is asked for.

An activation that is on, or off, for all calibration rows has nothing left to look up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from cipherlearn import ops
from cipherlearn.onnx import Graph, Node, execute, intermediate_values
from cipherlearn.onnx.graph import TensorInfo
from cipherlearn.quantization.accumulators import expected_range
from cipherlearn.quantization.client_side import used_nodes, with_sums
from cipherlearn.quantization.expand import is_fused
from cipherlearn.quantization.prepare import Parts

#: What goes around look-ups: nothing, what stays on the server, or outputs of their own as well.
BYPASS = ("none", "hidden", "outputs")

#: Most weights of a product that a linear part is computed in.
MOST_WEIGHTS = 250_000
#: Most numbers that any tensor holds while unit vectors are pushed through a graph.
MOST_PUSHED = 20_000_000

#: What the node is called, beside the layer that reads them, that makes codes of activations.
CODES = "/codes"

#: Slopes that are tried: so many deviations of the derivative beside its mean.
SHARES = np.linspace(-0.6, 0.6, 13)

#: Operators that are affine in one operand if all others are constants.
_AFFINE = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "MatMul",
        "Mul",
        "Neg",
        "ReduceMean",
        "ReduceSum",
        "Sub",
    }
)


def around_lookups(parts: Parts, kept: Callable[[str], int | None], bypass: str) -> Parts:
    """Let linear parts of activations go around their look-ups, wherever that is possible.

    Parameters
    ----------
    parts : Parts
        Every operator of the body has a table or an integer form.
    kept : callable
        Bits that the look-up after a layer reads, by the name of the layer's node; None where it is
        not rounded, and nothing can be gained.
    bypass : {"hidden", "outputs"}
        Whether linear parts may become outputs, which tell the client more of the model.

    Returns
    -------
    Parts
        The same function.
    """
    body = parts.body
    values = intermediate_values(body, *parts.data)
    rewriting = _Rewriting(body, values, kept, bypass)
    for node in body.nodes:
        rewriting.visit(node)
    if not rewriting.added:
        return parts
    graph = rewriting.result()
    samples = intermediate_values(graph, *(array[:1] for array in parts.data))
    tail = with_sums(graph, parts.tail, rewriting.sums)
    return replace(parts, body=graph, tail=tail, samples=samples, sums=rewriting.sums)


class _Chains:
    """What tensors are affine, or element-wise, functions of."""

    def __init__(self, graph: Graph, values: dict[str, np.ndarray]) -> None:
        self.graph = graph
        self.shapes = {name: np.shape(value)[1:] for name, value in values.items()}
        #: The tensor that one is an element-wise function of.
        self.root = {name: name for name in graph.input_names}
        #: The tensor that one is an affine function of.
        self.base = dict(self.root)
        #: The last layer with weights on the way from there.
        self.layer: dict[str, Node | None] = dict.fromkeys(graph.input_names)
        for node in graph.nodes:
            self._record(node)

    def variable(self, node: Node) -> list[str]:
        """Operands that depend on an input."""
        return [name for name in node.inputs if name in self.root]

    def is_affine(self, node: Node) -> bool:
        """Whether the result is an affine function of one operand."""
        variable = self.variable(node)
        kind = ops.get(node.op).kind
        return (
            len(variable) == 1
            and len([name for name in node.outputs if name]) == 1
            and (
                node.op in _AFFINE
                or kind is ops.Kind.MOVEMENT
                or (node.op == "Div" and node.inputs[0] == variable[0])
            )
        )

    def path(self, start: str, end: str) -> list[Node]:
        """The affine nodes between two tensors."""
        nodes: list[Node] = []
        while end != start:
            node = self.graph.producer(end)
            if node is None:
                raise ValueError(f"{end!r} is no affine function of {start!r}")
            nodes.append(node)
            (end,) = self.variable(node)
        return nodes[::-1]

    def between(self, root: str, end: str) -> list[Node]:
        """The element-wise nodes that compute a tensor from its root."""
        needed = {end}
        nodes: list[Node] = []
        for node in reversed(self.graph.nodes):
            if needed.intersection(node.outputs) and node.outputs[0] != root:
                nodes.append(node)
                needed.update(name for name in self.variable(node) if name != root)
        return nodes[::-1]

    def ends(self, start: str) -> list[tuple[str, bool]] | None:
        """Where the affine functions of a tensor end: tensors, and whether they are outputs.

        None where one of them ends elsewhere than before a look-up or in an output, or has no
        weights.
        """
        found: list[tuple[str, bool]] = []
        readers = self.graph.consumers(start)
        is_output = start in self.graph.output_names
        onward = [node for node in readers if self.is_affine(node)]
        others = [node for node in readers if not self.is_affine(node)]
        if others or is_output:
            looked_up = all(self._is_table(node) for node in others)
            if onward or (others and is_output) or not looked_up or self.layer[start] is None:
                return None
            return [(start, is_output)]
        for node in onward:
            (output,) = (name for name in node.outputs if name)
            more = self.ends(output)
            if more is None:
                return None
            found += more
        return found

    def _record(self, node: Node) -> None:
        variable, is_affine = self.variable(node), self.is_affine(node)
        for output in filter(None, node.outputs):
            self.root[output] = self.base[output] = output
            self.layer[output] = None
            same = all(self.shapes[name] == self.shapes[output] for name in variable)
            if self._is_table(node) and same:
                self.root[output] = self.root[variable[0]]
            if is_affine:
                self.base[output] = self.base[variable[0]]
                self.layer[output] = node if self._has_weights(node) else self.layer[variable[0]]

    def _is_table(self, node: Node) -> bool:
        """Whether it is computed element by element, from one integer value."""
        op = ops.get(node.op)
        roots = {self.root[name] for name in self.variable(node)}
        return op.kind is ops.Kind.ELEMENTWISE and len(roots) == 1 and is_fused(op, 1)

    def _has_weights(self, node: Node) -> bool:
        form = ops.get(node.op).integer
        return form is not None and form.layout is not None and node.inputs[1] not in self.root


@dataclass(frozen=True, eq=False)
class _Codes:
    """A tensor as an affine function of integers: ``codes @ matrix + offset``.

    Parameters
    ----------
    looked, fresh : str or None
        Results of look-ups side by side, and inputs; in this order.
    count : int
        Of the first kind.
    matrix : numpy.ndarray of shape (codes, size)
    offset : numpy.ndarray of shape (size,)
    """

    looked: str | None
    fresh: str | None
    count: int
    matrix: np.ndarray
    offset: np.ndarray


class _Rewriting:
    def __init__(
        self,
        graph: Graph,
        values: dict[str, np.ndarray],
        kept: Callable[[str], int | None],
        bypass: str,
    ) -> None:
        self.graph = graph
        self.values = values
        self.kept = kept
        self.bypass = bypass
        self.chains = _Chains(graph, values)
        self.constants = dict(graph.constants)
        self.first: list[Node] = []
        self.added: dict[str, list[Node]] = {}
        self.replaced: dict[str, list[Node]] = {}
        self.codes: dict[str, _Codes] = {}
        self.sums: dict[str, tuple[str, ...]] = {}
        self.reads: dict[str, dict[str, str]] = {}

    def visit(self, node: Node) -> None:
        """Rewrite an activation, if the node is one and everything fits."""
        chains, name = self.chains, node.outputs[0]
        root = chains.root.get(name, name)
        layer = chains.layer.get(root)
        is_real = name in self.values and self.values[name].dtype.kind == "f"
        if root == name or layer is None or chains.is_affine(node) or not is_real:
            return
        ends, kept = chains.ends(name), self.kept(layer.name)
        if not ends or kept is None:
            return
        is_last = [is_output for _, is_output in ends]
        if any(is_last) and not (self.bypass == "outputs" and all(is_last)):
            return
        before = self._codes_of(chains.base[root])
        if before is None or not self._is_small(before, name, root, [end for end, _ in ends]):
            return
        if not any(is_last) and not self._is_told(before, name, [end for end, _ in ends]):
            return
        self._rewrite(node, root, before, ends, kept)

    def _is_small(self, before: _Codes, name: str, root: str, ends: list[str]) -> bool:
        """Whether the linear part can be computed as a product of its own."""
        paths = [self.chains.path(self.chains.base[root], root)]
        paths += [self.chains.path(name, end) for end in ends]
        widest = max(self._size(node.outputs[0]) for path in paths for node in path)
        count = len(before.matrix) + self._size(name)
        most = max(map(self._size, ends))
        return count * most <= MOST_WEIGHTS and count * widest <= MOST_PUSHED

    def _is_told(self, before: _Codes, name: str, ends: list[str]) -> bool:
        """Whether there are rows enough, where a product replaces weights that places share."""
        shared = any(node.op == "Conv" for end in ends for node in self.chains.path(name, end))
        count = len(before.matrix) + self._size(name)
        return not shared or len(self.values[name]) >= count

    def _rewrite(
        self, node: Node, root: str, before: _Codes, ends: list[tuple[str, bool]], kept: int
    ) -> None:
        name = node.outputs[0]
        slope = self._slope(root, name, kept)
        rest = f"{name}/rest"
        linear = self._named(f"{name}/linear", "Mul", (root, self._constant(name, "slope", slope)))
        self.added.setdefault(node.name, []).extend(
            [linear, Node("Sub", rest, (name, linear.outputs[0]), (rest,))]
        )
        affine = self._pushed(before, self.chains.path(self.chains.base[root], root))
        slopes = np.broadcast_to(slope, (1, *self.chains.shapes[name])).reshape(-1)
        around = replace(before, matrix=affine.matrix * slopes, offset=affine.offset * slopes)
        if ends[0][1]:
            self._add_outputs(node, rest, around, ends)
            return
        codes = self._beside(node, rest, around, self._layer(ends[0][0]).name)
        self.codes[name] = codes
        for end, _ in ends:
            self._read_codes(name, codes, end)

    def _add_outputs(
        self, node: Node, rest: str, around: _Codes, ends: list[tuple[str, bool]]
    ) -> None:
        """The linear part of the last activation: of look-ups, and of inputs."""
        name = node.outputs[0]
        self.reads[name] = {name: rest}
        for end, _ in ends:
            path = self.chains.path(name, end)
            linear = self._pushed(around, path)
            # The offset of the rest stays where it was.
            offset = linear.offset - self._applied(path, np.zeros((1, self._size(name))))[0]
            looked, fresh = np.split(linear.matrix, [around.count])
            added: list[str] = []
            for source, matrix in ((around.looked, looked), (around.fresh, fresh)):
                if source is not None:
                    added.append(f"{end}/around{len(added) or ''}")
                    self._product(end, source, matrix, offset, added[-1])
                    offset = np.zeros_like(offset)
            self.sums[end] = tuple(added)

    def _beside(self, node: Node, rest: str, around: _Codes, layer: str) -> _Codes:
        """The rest of an activation and its linear part as a function of codes.

        The layer that reads them says how many bits they have.
        """
        size = self._size(node.outputs[0])
        flat = self._flat(rest, node.outputs[0], node.name)
        operands = (flat,) if around.looked is None else (flat, around.looked)
        joined = f"{rest}/codes"
        self.added[node.name].append(
            Node("Concat", f"{layer}{CODES}", operands, (joined,), {"axis": -1})
        )
        matrix = np.concatenate([np.eye(size), around.matrix])
        return _Codes(joined, around.fresh, size + around.count, matrix, around.offset)

    def _read_codes(self, name: str, codes: _Codes, end: str) -> None:
        """Replace what a layer reads by the codes that it is a function of."""
        linear = self._pushed(codes, self.chains.path(name, end))
        source = codes.looked or codes.fresh or ""
        if codes.looked is not None and codes.fresh is not None:
            both = (codes.looked, codes.fresh)
            joined = self._named(f"{end}/codes", "Concat", both, {"axis": -1})
            self.added.setdefault(self._producer(name).name, []).append(joined)
            source = joined.outputs[0]
        self._product(end, source, linear.matrix, linear.offset, end)

    def _layer(self, end: str) -> Node:
        layer = self.chains.layer[end]
        if layer is None:
            raise ValueError(f"{end!r} has no weights")
        return layer

    def _product(
        self, end: str, source: str, matrix: np.ndarray, offset: np.ndarray, output: str
    ) -> None:
        """A product with weights, which gives the tensor ``output`` with the shape of ``end``."""
        name = self._layer(end).name if output == end else output
        weights = self._constant(name, "around/weights", matrix)
        bias = self._constant(name, "around/bias", offset)
        shape = self.chains.shapes[end]
        place = self.replaced if output == end else self.added
        nodes = place.setdefault(self._producer(end).name, [])
        flat = output if len(shape) == 1 else f"{output}/flat"
        nodes.append(Node("Gemm", name, (source, weights, bias), (flat,)))
        if flat != output:
            sizes = self._constant(name, "around/shape", np.array([-1, *shape]))
            nodes.append(Node("Reshape", f"{output}/shaped", (flat, sizes), (output,)))

    def _producer(self, tensor: str) -> Node:
        producer = self.graph.producer(tensor)
        if producer is None:
            raise ValueError(f"{tensor!r} is an input")
        return producer

    def _codes_of(self, base: str) -> _Codes | None:
        """The codes of a tensor that affine functions start from: of an input, or as rewritten.

        None for anything else: one more reader would quantize it a second time.
        """
        size = self._size(base)
        is_input = base in self.graph.input_names
        if base not in self.codes and is_input and size * size <= MOST_PUSHED:
            flat = self._flat(base, base, None)
            self.codes[base] = _Codes(None, flat, 0, np.eye(size), np.zeros(size))
        return self.codes.get(base)

    def _flat(self, tensor: str, like: str, after: str | None) -> str:
        """A tensor, of the shape of another one, with one axis beside that of the rows."""
        if len(self.chains.shapes[like]) == 1:
            return tensor
        node = self._named(f"{tensor}/flat", "Flatten", (tensor,), {"axis": 1})
        (self.first if after is None else self.added.setdefault(after, [])).append(node)
        return node.outputs[0]

    def _named(
        self, name: str, op: str, inputs: tuple[str, ...], attributes: dict[str, int] | None = None
    ) -> Node:
        return Node(op, name, inputs, (name,), attributes or {})

    def _constant(self, owner: str, what: str, value: np.ndarray) -> str:
        name = f"{owner}/{what}"
        self.constants[name] = value
        return name

    def _size(self, tensor: str) -> int:
        return int(np.prod(self.chains.shapes[tensor]))

    def _pushed(self, codes: _Codes, path: list[Node]) -> _Codes:
        """An affine function of what codes stand for."""
        if not path:
            return codes
        rows = np.concatenate([np.zeros((1, codes.matrix.shape[1])), codes.matrix])
        results = self._applied(path, rows + codes.offset)
        return replace(codes, matrix=results[1:] - results[0], offset=results[0])

    def _applied(self, path: list[Node], rows: np.ndarray) -> np.ndarray:
        """Affine nodes on flat rows."""
        if not path:
            return rows
        (start,) = self.chains.variable(path[0])
        shaped = rows.reshape(-1, *self.chains.shapes[start])
        return _run(self.graph, path, start, path[-1].outputs[0], shaped).reshape(len(rows), -1)

    def _slope(self, root: str, name: str, kept: int) -> np.ndarray:
        """The slopes that leave least error, one a channel.

        What counts is the rounding error before the look-up, which the derivative of the rest
        amplifies, and the error of the grid after it, which goes with the range of the rest.
        """
        values = self.values[root].astype(np.float64)
        axis = self._channel_axis(root)
        axes = tuple(a for a in range(values.ndim) if a != axis)
        low, high = expected_range(values, axes)
        step = (high - low) / (2**kept - 1)
        step = np.where(step > 0, step, 1.0)
        nodes = self.chains.between(root, name)
        result, above, below = (
            _run(self.graph, nodes, root, name, values + half * step).astype(np.float64)
            for half in (0.0, 0.5, -0.5)
        )
        derivative = (above - below) / step
        mean, spread = (f(derivative, axis=axes, keepdims=True) for f in (np.mean, np.std))
        best, least = mean, np.full(mean.shape, np.inf)
        for share in SHARES:
            tried = mean + share * spread
            rest = result - tried * values
            grid = np.ptp(rest, axis=axes, keepdims=True) / (2**kept - 1)
            error = np.square(step * spread) * (1.0 + share**2) + np.square(grid)
            best, least = np.where(error < least, tried, best), np.minimum(error, least)
        return np.where(np.isfinite(best), best, 0.0)

    def _channel_axis(self, tensor: str) -> int:
        """The axis whose entries have slopes of their own; rows share one always."""
        node = self.graph.producer(tensor)
        form = None if node is None else ops.get(node.op).integer
        axis = None if form is None else form.channel_axis
        return -1 if axis is None else axis % self.values[tensor].ndim

    def result(self) -> Graph:
        """The graph with what is used of it."""
        nodes = list(self.first)
        for node in self.graph.nodes:
            nodes += self.replaced.get(node.name) or [self._reading(node)]
            nodes += self.added.get(node.name, [])
        infos: list[TensorInfo] = []
        for info in self.graph.outputs:
            infos.append(info)
            infos += [replace(info, name=name) for name in self.sums.get(info.name, ())]
        graph = replace(self.graph, outputs=tuple(infos), constants=self.constants)
        return replace(graph, nodes=tuple(used_nodes(graph, nodes)))

    def _reading(self, node: Node) -> Node:
        """A node that reads the rest of an activation instead of all of it."""
        names = {old: new for reads in self.reads.values() for old, new in reads.items()}
        if names.keys().isdisjoint(node.inputs):
            return node
        return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))


def _real(name: str) -> TensorInfo:
    return TensorInfo(name, np.dtype(np.float64), None)


def _run(
    graph: Graph, nodes: Iterable[Node], start: str, end: str, values: np.ndarray
) -> np.ndarray:
    """One tensor from another, by some nodes of a graph."""
    part = replace(graph, inputs=(_real(start),), outputs=(_real(end),), nodes=tuple(nodes))
    return np.asarray(execute(part, values)[0])
