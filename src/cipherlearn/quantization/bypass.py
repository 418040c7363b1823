"""Activations whose linear part goes around the look-up.

Before a look-up, an accumulator ``a`` is rounded, and the rounding error ``e`` reaches the result
as ``f'(a) * e``. An activation is written as ``f(a) = slope * a + g(a)`` with a slope for each
channel. Only ``g`` is looked up, which costs what ``f`` costs. The linear part is a linear function
of what the layer before read, and those integers are not rounded: what is left of the error is
``(f'(a) - slope) * e``. For ReLU with a share ``p`` of active values and ``slope = p``, that has
``1 - p`` times the variance. The range of ``g`` is shorter as well, so its grid is finer.

The float graph is rewritten, and means the same as before (which is checked):

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
from cipherlearn.quantization.chains import Activation, Chains, Finder
from cipherlearn.quantization.client_side import unused_name, used_nodes, with_sums
from cipherlearn.quantization.n_bits import LayerBits
from cipherlearn.quantization.prepare import Parts

#: What goes around look-ups: nothing, what stays on the server, or outputs of their own as well.
BYPASS = ("none", "hidden", "outputs")

#: Slopes that are tried: so many deviations of the derivative beside its mean.
SHARES = np.linspace(-0.6, 0.6, 13)

#: Calibration rows on which the rewritten graph has to give what the float model gives.
CHECKED_ROWS = 16
#: By how much of its largest value a tensor may differ: arithmetic of the float model.
TOLERANCE = 1e-5


def around_lookups(parts: Parts, bits: Callable[[str], LayerBits], bypass: str) -> Parts:
    """Let linear parts of activations go around their look-ups, wherever that is possible.

    Parameters
    ----------
    parts : Parts
        Every operator of the body has a table or an integer form.
    bits : callable
        `LayerBits` of a layer, by the name of its node. Where it is not rounded, nothing can be
        gained.
    bypass : {"hidden", "outputs"}
        Whether linear parts may become outputs, which tell the client more of the model.

    Returns
    -------
    Parts
        The same function; the given parts where nothing goes around.
    """
    body = parts.body
    chains = Chains(body, intermediate_values(body, *(array[:1] for array in parts.data)))
    found = Finder(chains, bits, bypass, len(parts.data[0])).run()
    if not found:
        return parts
    values = intermediate_values(body, *parts.data)
    rewriting = _Rewriting(parts, chains, values, bits)
    for activation in found:
        rewriting.go_around(activation)
    graph = rewriting.result()
    rows = intermediate_values(graph, *(array[:CHECKED_ROWS] for array in parts.data))
    if not (_is_same(rows, values, rewriting.sums) and _is_clean(graph, found)):
        return parts
    return replace(
        parts,
        body=graph,
        tail=with_sums(graph, parts.tail, body.output_names, rewriting.sums),
        samples={name: value[:1] if value.ndim else value for name, value in rows.items()},
        sums=rewriting.sums,
        plain=body,
        side_by_side=rewriting.side_by_side,
        bypassed={one.name: "outputs" if one.is_last else "hidden" for one in found},
    )


def _is_same(
    found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], sums: dict[str, tuple[str, ...]]
) -> bool:
    """Whether all tensors that both graphs name are the same, and sums are what they stand for."""
    totals = {name: sum(found[part] for part in names) for name, names in sums.items()}
    for name in wanted.keys() & {*found, *totals}:
        value = np.asarray(totals[name] if name in totals else found[name])
        known = wanted[name][: len(value)] if value.ndim else wanted[name]
        numbers = np.abs(known[np.isfinite(known)])
        tolerance = TOLERANCE * float(numbers.max(initial=0.0))
        if not np.allclose(value, known, rtol=TOLERANCE, atol=tolerance, equal_nan=True):
            return False
    return True


def _is_clean(graph: Graph, found: list[Activation]) -> bool:
    """Whether nothing is computed twice: no layer is, and no activation is looked up whole."""
    names = {node.name for node in graph.nodes}
    readers = (graph.consumers(activation.name) for activation in found)
    return len(names) == len(graph.nodes) and all(len(nodes) == 1 for nodes in readers)


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
    """A graph that is rewritten, activation by activation.

    Attributes
    ----------
    sums : dict of str to tuple of str
        Output of the graph as it was -> the outputs whose sum it is.
    side_by_side : dict of str to tuple of str
        Node that puts codes side by side -> the layers that read them.
    """

    def __init__(
        self,
        parts: Parts,
        chains: Chains,
        values: dict[str, np.ndarray],
        bits: Callable[[str], LayerBits],
    ) -> None:
        self.graph = parts.body
        self.chains = chains
        self.values = values
        self.bits = bits
        self.constants = dict(self.graph.constants)
        self.sums: dict[str, tuple[str, ...]] = {}
        self.side_by_side: dict[str, tuple[str, ...]] = {}
        self._codes: dict[str, _Codes] = {}
        self._first: list[Node] = []
        self._after: dict[str, list[Node]] = {}
        self._replaced: set[str] = set()
        # The samples name what the model had before it was cut and written with other operators.
        self._taken = {*parts.samples, *values, *self.constants}
        self._taken |= {node.name for node in self.graph.nodes}

    def go_around(self, found: Activation) -> None:
        """Rewrite an activation and what reads it."""
        name, root, chains = found.name, found.root, self.chains
        slope = self._slope(found)
        nodes = self._after.setdefault(chains.producer(name).name, [])
        slopes = self._constant(f"{name}/slope", slope)
        linear = self._add(nodes, "Mul", f"{name}/linear", (root, slopes))
        rest = self._add(nodes, "Sub", f"{name}/rest", (name, linear))
        before = self._pushed(self._codes_of(found.base), chains.path(found.base, root))
        factors = np.broadcast_to(slope, (1, *chains.shapes[name])).reshape(-1)
        around = replace(before, matrix=before.matrix * factors, offset=before.offset * factors)
        if found.is_last:
            for end in found.readers:
                self._split_output(nodes, found, end, rest, around)
            return
        codes = self._beside(nodes, found, rest, around)
        self._codes[name] = codes
        for end, reader in found.readers.items():
            self._read_codes(nodes, found, codes, end, reader)

    def _split_output(
        self, nodes: list[Node], found: Activation, end: str, rest: str, around: _Codes
    ) -> None:
        """An output of the rest, and outputs of the linear part: of look-ups, and of inputs."""
        path = self.chains.path(found.name, end)
        renamed, names = {found.name: rest}, []
        for node in path:
            (output,) = (name for name in node.outputs if name)
            renamed[output] = self._named(f"{output}/rest")
            inputs = tuple(renamed.get(name, name) for name in node.inputs)
            outputs = tuple(renamed.get(name, name) for name in node.outputs)
            nodes.append(replace(node, inputs=inputs, outputs=outputs))
        names.append(renamed[end])
        linear = self._pushed(around, path)
        # The offset of the rest stays where it was.
        nothing = np.zeros((1, self.chains.size(found.name)))
        offset = linear.offset - self._applied(path, nothing)[0]
        looked, fresh = np.split(linear.matrix, [around.count])
        for source, matrix in ((around.looked, looked), (around.fresh, fresh)):
            if source is not None:
                output = self._named(f"{end}/around")
                self._product(nodes, output, source, matrix, offset, output, end)
                names.append(output)
                offset = np.zeros_like(offset)
        self.sums[end] = tuple(names)

    def _beside(self, nodes: list[Node], found: Activation, rest: str, around: _Codes) -> _Codes:
        """The rest of an activation and its linear part as a function of codes."""
        size = self.chains.size(found.name)
        flat = self._flat(nodes, rest, found.name)
        operands = (flat,) if around.looked is None else (flat, around.looked)
        joined = self._joined(nodes, f"{found.name}/codes", operands, found)
        matrix = np.concatenate([np.eye(size), around.matrix])
        return _Codes(joined, around.fresh, size + around.count, matrix, around.offset)

    def _read_codes(
        self, nodes: list[Node], found: Activation, codes: _Codes, end: str, reader: str
    ) -> None:
        """Replace what a layer reads by the codes that it is a function of."""
        linear = self._pushed(codes, self.chains.path(found.name, end))
        sources = tuple(name for name in (codes.looked, codes.fresh) if name is not None)
        source = sources[0]
        if len(sources) > 1:
            source = self._joined(nodes, f"{end}/codes", sources, found)
        self._replaced.add(self.chains.producer(end).name)
        self._product(nodes, reader, source, linear.matrix, linear.offset, end, end)

    def _joined(
        self, nodes: list[Node], wanted: str, operands: tuple[str, ...], found: Activation
    ) -> str:
        """Codes side by side."""
        name = self._add(nodes, "Concat", wanted, operands, {"axis": -1})
        self.side_by_side[name] = tuple(found.readers.values())
        return name

    def _product(
        self,
        nodes: list[Node],
        node: str,
        source: str,
        matrix: np.ndarray,
        offset: np.ndarray,
        output: str,
        like: str,
    ) -> None:
        """A product with weights, which gives a tensor with the shape of another one."""
        weights = self._constant(f"{output}/around/weights", matrix)
        bias = self._constant(f"{output}/around/bias", offset)
        shape = self.chains.shapes[like]
        is_flat = len(shape) == 1
        flat = output if is_flat else self._named(f"{output}/flat")
        nodes.append(Node("Gemm", node, (source, weights, bias), (flat,)))
        if not is_flat:
            sizes = self._constant(f"{output}/around/shape", np.array([-1, *shape]))
            nodes.append(Node("Reshape", self._named(f"{output}/shaped"), (flat, sizes), (output,)))

    def _codes_of(self, base: str) -> _Codes:
        """The codes of a tensor that affine functions start from: of an input, or as rewritten."""
        if base not in self._codes:
            size = self.chains.size(base)
            flat = self._flat(self._first, base, base)
            self._codes[base] = _Codes(None, flat, 0, np.eye(size), np.zeros(size))
        return self._codes[base]

    def _flat(self, nodes: list[Node], tensor: str, like: str) -> str:
        """A tensor, of the shape of another one, with one axis beside that of the rows."""
        if len(self.chains.shapes[like]) == 1:
            return tensor
        return self._add(nodes, "Flatten", f"{tensor}/flat", (tensor,), {"axis": 1})

    def _add(
        self,
        nodes: list[Node],
        op: str,
        wanted: str,
        inputs: tuple[str, ...],
        attributes: dict[str, int] | None = None,
    ) -> str:
        """Append a node that is called like its result."""
        name = self._named(wanted)
        nodes.append(Node(op, name, inputs, (name,), attributes or {}))
        return name

    def _constant(self, wanted: str, value: np.ndarray) -> str:
        name = self._named(wanted)
        self.constants[name] = value
        return name

    def _named(self, wanted: str) -> str:
        return unused_name(wanted, self._taken)

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

    def _slope(self, found: Activation) -> np.ndarray:
        """The slopes that leave least error, one a channel.

        What counts is the rounding error before the look-up, which the derivative of the rest
        amplifies, and the error of the grid after it, which goes with the range of the rest.
        """
        root = found.root
        values = self.values[root].astype(np.float64)
        axis = self._channel_axis(found.channels)
        axes = tuple(a for a in range(values.ndim) if a != axis)
        low, high = expected_range(values, axes)
        step = (high - low) / (2 ** (self.bits(found.layer).kept or 1) - 1)
        step = np.where(step > 0, step, 1.0)
        codes = max(self.bits(reader).inputs for reader in found.readers.values())
        nodes = self.chains.between(root, found.name)
        result, above, below = (
            _run(self.graph, nodes, root, found.name, values + half * step).astype(np.float64)
            for half in (0.0, 0.5, -0.5)
        )
        derivative = (above - below) / step
        mean, spread = (f(derivative, axis=axes, keepdims=True) for f in (np.mean, np.std))
        best, least = mean, np.full(mean.shape, np.inf)
        for share in SHARES:
            tried = mean + share * spread
            rest = result - tried * values
            grid = np.ptp(rest, axis=axes, keepdims=True) / (2**codes - 1)
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
        nodes = list(self._first)
        for node in self.graph.nodes:
            nodes += [] if node.name in self._replaced else [node]
            nodes += self._after.get(node.name, [])
        infos = tuple(
            replace(info, name=name)
            for info in self.graph.outputs
            for name in self.sums.get(info.name, (info.name,))
        )
        graph = replace(self.graph, outputs=infos, constants=self.constants)
        return replace(graph, nodes=tuple(used_nodes(graph, nodes)))


def _real(name: str) -> TensorInfo:
    return TensorInfo(name, np.dtype(np.float64), None)


def _run(
    graph: Graph, nodes: Iterable[Node], start: str, end: str, values: np.ndarray
) -> np.ndarray:
    """One tensor from another, by some nodes of a graph."""
    part = replace(graph, inputs=(_real(start),), outputs=(_real(end),), nodes=tuple(nodes))
    return np.asarray(execute(part, values)[0])
