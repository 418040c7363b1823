"""Which activations have a linear part that can go around their look-up: found in the graph alone.

Shapes and numbers of weights decide; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cipherlearn import ops
from cipherlearn.errors import ModelError
from cipherlearn.onnx import Graph, Node
from cipherlearn.quantization.expand import is_fused
from cipherlearn.quantization.n_bits import LayerBits

#: Most weights of a product that a linear part is computed in.
MOST_WEIGHTS = 250_000
#: Most numbers that any tensor holds while unit vectors are pushed through a graph.
MOST_PUSHED = 20_000_000

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


class Chains:
    """What tensors are affine, or element-wise, functions of.

    Parameters
    ----------
    graph : Graph
    samples : mapping of str to numpy.ndarray
        Every tensor for some rows.
    """

    def __init__(self, graph: Graph, samples: Mapping[str, np.ndarray]) -> None:
        self.graph = graph
        self.shapes = {name: np.shape(value)[1:] for name, value in samples.items()}
        #: Tensors of real numbers.
        self.reals = {name for name, value in samples.items() if value.dtype.kind == "f"}
        #: The tensor that one is an element-wise function of.
        self.root = {name: name for name in graph.input_names}
        #: The tensor that one is an affine function of.
        self.base = dict(self.root)
        #: The last layer with weights on the way from there.
        self.layer: dict[str, Node | None] = dict.fromkeys(graph.input_names)
        for node in graph.nodes:
            self._record(node)

    def size(self, tensor: str) -> int:
        """Numbers in one row of a tensor."""
        return int(np.prod(self.shapes[tensor]))

    def variable(self, node: Node) -> list[str]:
        """Operands that depend on an input."""
        return [name for name in node.inputs if name in self.root]

    def producer(self, tensor: str) -> Node:
        """The node that computes a tensor."""
        node = self.graph.producer(tensor)
        if node is None:
            raise ModelError(f"{tensor!r} is an input of the model: no node computes it")
        return node

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
            node = self.producer(end)
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

    def accumulator(self, root: str, end: str) -> str:
        """The last tensor on the way from a root to what is looked up: after a bias, for example.

        That is where `ends` of the activation before end.
        """
        nodes = self.between(root, end)
        while True:
            readers = [node for node in nodes if root in node.inputs]
            if len(readers) != 1 or not self.is_affine(readers[0]):
                return root
            root = readers[0].outputs[0]

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

    def weights(self, path: list[Node]) -> int:
        """How many weights the layers of a path have."""
        constants = self.graph.constants
        return sum(constants[n.inputs[1]].size for n in path if self._has_weights(n))

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
        is_linear = form is not None and form.layout is not None
        return is_linear and node.inputs[1] in self.graph.constants


@dataclass(frozen=True)
class Activation:
    """An activation whose linear part can go around its look-up.

    Parameters
    ----------
    name, root : str
        Its result, and the accumulator that it is a function of.
    channels : str
        The result of a layer that has the channels of ``root``, whose node knows their axis.
    base : str
        What the accumulator is an affine function of.
    layer : str
        Name of the node whose rounding the look-up reads.
    readers : mapping of str to str
        Tensor before the next look-up, or output of the model -> name of its layer's node.
    is_last : bool
        Whether these are outputs.
    """

    name: str
    root: str
    channels: str
    base: str
    layer: str
    readers: Mapping[str, str]
    is_last: bool


class Finder:
    """Finds the activations, in the order of the graph.

    Parameters
    ----------
    chains : Chains
    bits : callable
        `LayerBits` of a layer, by the name of its node.
    bypass : {"hidden", "outputs"}
    rows : int
        Calibration rows.
    """

    def __init__(
        self, chains: Chains, bits: Callable[[str], LayerBits], bypass: str, rows: int
    ) -> None:
        self.chains = chains
        self.bits = bits
        self.bypass = bypass
        self.rows = rows
        #: Integers that tensors are affine functions of: inputs, and activations gone around.
        self.counts = {name: chains.size(name) for name in chains.graph.input_names}

    def run(self) -> list[Activation]:
        """All activations that can go around."""
        found: list[Activation] = []
        for node in self.chains.graph.nodes:
            activation = self._activation(node)
            if activation is None or not self._fits(activation):
                continue
            found.append(activation)
            if not activation.is_last:
                count = self.counts[activation.base] + self.chains.size(activation.name)
                self.counts[activation.name] = count
        return found

    def _activation(self, node: Node) -> Activation | None:
        """The node as one, if it is one whose neighbours allow it."""
        chains, name = self.chains, node.outputs[0]
        root = chains.root.get(name, name)
        layer = chains.layer.get(root)
        if root == name or layer is None or chains.is_affine(node) or name not in chains.reals:
            return None
        # Anything but inputs and what has gone around would be quantized a second time.
        ends, base = chains.ends(name), chains.base[root]
        if not ends or base not in self.counts or self.bits(layer.name).kept is None:
            return None
        is_last = [is_output for _, is_output in ends]
        readers = {end: chains.layer[end] for end, _ in ends}
        names = {end: reader.name for end, reader in readers.items() if reader is not None}
        # The product that replaces a layer takes its name: it can stand for one tensor only.
        if len(set(names.values())) < len(ends) or any(is_last) != all(is_last):
            return None
        if any(is_last) and self.bypass != "outputs":
            return None
        accumulator = chains.accumulator(root, name)
        return Activation(name, accumulator, root, base, layer.name, names, is_last[0])

    def _fits(self, found: Activation) -> bool:
        """Whether the linear part can be computed as a product, at no higher price."""
        chains = self.chains
        paths = [chains.path(found.base, found.root)]
        paths += [chains.path(found.name, end) for end in found.readers]
        widest = max(chains.size(node.outputs[0]) for path in paths for node in path)
        size, before = chains.size(found.name), self.counts[found.base]
        count = before + size
        most = max(map(chains.size, found.readers))
        if count * most > MOST_WEIGHTS or count * max(widest, before) > MOST_PUSHED:
            return False
        return found.is_last or (self._is_cheap(found) and self._is_told(found, count))

    def _is_cheap(self, found: Activation) -> bool:
        """Whether what reads the codes is rounded approximately.

        The rest has a finer grid than the activation, so finer weights reach farther. Only
        approximate rounding takes off more bits at the same price.
        """
        readers = map(self.bits, found.readers.values())
        return all(bits.kept is not None and not bits.exact for bits in readers)

    def _is_told(self, found: Activation, count: int) -> bool:
        """Whether there are rows enough, where a product replaces weights that places share."""
        size = self.chains.size(found.name)
        return self.rows >= count or all(
            size * self.chains.size(end) <= self.chains.weights(self.chains.path(found.name, end))
            for end in found.readers
        )
