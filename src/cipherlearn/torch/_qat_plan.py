"""What `to_qat` does with the operations of a network: products, what is quantized, and sums."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.torch._operations import (
    ELEMENTWISE,
    JOINING,
    MIXING,
    MOVING,
    NOT_IN_PLACE,
    PRODUCTS,
    kind_of_module,
)

#: What joins by addition.
_ADDING = frozenset({("joining", "add"), ("joining", "sub")})


def traced_copy(net: nn.Module) -> fx.GraphModule:
    """A copy whose operations are nodes of a graph.

    Raises
    ------
    ModelError
        If the network cannot be copied or traced.
    """
    try:
        copied = copy.deepcopy(net).float().eval()
    except RuntimeError as error:
        raise ModelError(
            f"the network cannot be copied ({first_line(error)}). Take off what computes weights "
            "(torch.nn.utils.remove_weight_norm, ...)"
        ) from error
    try:
        # A single layer would be traced into.
        traced = fx.symbolic_trace(nn.Sequential(copied) if type(net) in PRODUCTS else copied)
    except Exception as error:
        raise ModelError(
            f"torch.fx cannot trace the network ({first_line(error)}): what it computes must not "
            "depend on values. Write it with layers of Brevitas instead (see "
            "compile_brevitas_qat_model)"
        ) from error
    for node in traced.graph.nodes:  # what is quantized must not be changed in place
        node.target = NOT_IN_PLACE.get(node.target, node.target)
    traced.recompile()
    return traced


@dataclass(frozen=True)
class Seen:
    """What a tensor was for some rows.

    Parameters
    ----------
    shape : tuple of int
        With the rows.
    least : float
        Its smallest value.
    """

    shape: tuple[int, ...] = ()
    least: float = 0.0


@dataclass(frozen=True)
class Sum:
    """A node whose integers are sums or products of others.

    Parameters
    ----------
    node : fx.Node
    sources : tuple of fx.Node
        What is quantized of the tensors that it reads.
    axis : int or None
        Of channels, whose sums have ranges of their own; None where there are none.
    channels : int
        How many.
    terms : int
        Of what is encrypted; 0 for products with weights, whose sums are wide at any rate.
    is_product : bool
        Whether terms are products of what is encrypted.
    """

    node: fx.Node
    sources: tuple[fx.Node, ...]
    axis: int | None
    channels: int
    terms: int = 0
    is_product: bool = False

    def fits(self, widths: Mapping[fx.Node, int], kept: int) -> bool:
        """Whether so few bits hold all of its integers: they are read unrounded.

        Parameters
        ----------
        widths : mapping of fx.Node to int
            Bits of what is quantized.
        kept : int
        """
        tops = [2 ** widths[source] - 1 for source in self.sources]
        largest = math.prod(tops) if self.is_product else max(tops)
        return bool(self.terms) and self.terms * largest < 2**kept


@dataclass(frozen=True)
class Plan:
    """What is replaced, and what is quantized.

    Parameters
    ----------
    products : tuple of fx.Node
        Layers with weights, in order.
    groups : tuple of tuple of fx.Node
        What is quantized; what is added or joined has one quantizer.
    readers : dict of fx.Node to tuple of int
        Numbers of the products that read what is quantized.
    kinds : dict of fx.Node to str
        What nodes do to tensors.
    sums : tuple of Sum
        What sums integers: products, pools, and what is added.
    """

    products: tuple[fx.Node, ...]
    groups: tuple[tuple[fx.Node, ...], ...]
    readers: dict[fx.Node, tuple[int, ...]]
    kinds: dict[fx.Node, str]
    sums: tuple[Sum, ...]

    @classmethod
    def of(cls, traced: fx.GraphModule, seen: Mapping[fx.Node, Seen]) -> Plan:
        """For a traced network, and nodes that have tensors for values.

        Raises
        ------
        ModelError
            If there are operations that are not known; all are listed.
        """
        kinds = _kinds(traced, seen)
        unknown = [
            f"- {node.name}: {_told(node, traced)}" for node, kind in kinds.items() if not kind
        ]
        if unknown:
            raise ModelError(
                "to_qat does not know how these operations are quantized:\n"
                + "\n".join(unknown)
                + "\nWrite linear and convolution as layers (torch.nn.Linear, ...), take "
                "parametrizations and hooks off (torch.nn.utils.remove_weight_norm, ...), and use "
                "layers of Brevitas for the rest, or leave it to the client"
            )
        products = tuple(node for node, kind in kinds.items() if kind == "product")
        if not products:
            raise ModelError("the network has no layers with weights: there is nothing to train")
        group_of: dict[fx.Node, set[fx.Node]] = {}
        readers: dict[fx.Node, tuple[int, ...]] = {}
        for node, kind in kinds.items():
            sources = [_source(each, kinds) for each in node.all_input_nodes if each in kinds]
            if kind == "elementwise":  # the client quantizes what it encrypts
                sources = [source for source in sources if source.op == "placeholder"]
            elif kind not in ("product", "mixing", "joining"):
                continue
            for source in sources:
                group_of.setdefault(source, {source})
                if kind == "product":
                    readers[source] = (*readers.get(source, ()), products.index(node))
            if kind == "joining":
                whole = set().union(*(group_of[source] for source in sources))
                group_of.update(dict.fromkeys(whole, whole))
        order = {node: place for place, node in enumerate(traced.graph.nodes)}
        distinct = {id(group): sorted(group, key=order.__getitem__) for group in group_of.values()}
        groups = sorted((tuple(g) for g in distinct.values()), key=lambda g: order[g[0]])
        sums = (_sum(node, kinds, traced, seen) for node in kinds)
        return cls(products, tuple(groups), readers, kinds, tuple(s for s in sums if s is not None))


def first_line(error: Exception) -> str:
    """What an error says, without what torch adds below."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _name(node: fx.Node) -> str:
    """What a node calls, in short."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.rstrip("_").lstrip("_")


def _kinds(traced: fx.GraphModule, seen: Mapping[fx.Node, Seen]) -> dict[fx.Node, str]:
    """What nodes do to tensors; empty where that is not known."""
    nodes = (node for node in traced.graph.nodes if node in seen or node.op == "output")
    return {node: _kind(node, traced, seen) for node in nodes if node.op != "get_attr"}


def _kind(node: fx.Node, traced: fx.GraphModule, seen: Mapping[fx.Node, Seen]) -> str:
    """What a node does to tensors; empty if that is not known."""
    if node.op in ("placeholder", "output"):
        return node.op
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        is_changed = _has_hooks(module) or getattr(module, "divisor_override", None) is not None
        return "" if is_changed else kind_of_module(module)
    name = _name(node)
    tensors = [each for each in node.all_input_nodes if each in seen]
    several, held = len(tensors) > 1, any(each.op == "get_attr" for each in tensors)
    if node.kwargs.get("alpha", 1) != 1 or node.kwargs.get("divisor_override") is not None:
        return ""
    if name in JOINING or name == "mul":
        if not several or (held and name in ("add", "sub", "mul")):
            return "elementwise"
        return "" if held else "joining" if name in JOINING else "mixing"
    if name in MIXING:
        return "" if held else "mixing"
    if name in MOVING:
        return "moving"
    return "elementwise" if name in ELEMENTWISE and not several else ""


def _told(node: fx.Node, traced: fx.GraphModule) -> str:
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        return f"{type(module).__name__}{' with hooks' if _has_hooks(module) else ''}"
    return _name(node)


def _has_hooks(module: nn.Module) -> bool:
    """Whether more is computed than the layer's own; norms of weights are written so."""
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001


def _source(node: fx.Node, kinds: Mapping[fx.Node, str]) -> fx.Node:
    """Where values come from that are only moved."""
    while kinds[node] == "moving":
        node = next(each for each in node.all_input_nodes if each in kinds)
    return node


def _sum(
    node: fx.Node,
    kinds: Mapping[fx.Node, str],
    traced: fx.GraphModule,
    seen: Mapping[fx.Node, Seen],
) -> Sum | None:
    """What a node sums; None if it does not."""
    kind, name = kinds[node], _told(node, traced)
    if kind not in ("product", "mixing") and (kind, name) not in _ADDING:
        return None
    read = [each for each in node.all_input_nodes if each in kinds]
    sources = tuple(_source(each, kinds) for each in read)
    before, shape = seen[read[0]].shape, seen[node].shape
    if kind == "product":
        axis = -1 if name == nn.Linear.__name__ else 1
        return Sum(node, sources, axis, shape[axis])
    if kind == "joining":
        return Sum(node, sources, None, 1, terms=2)
    if name in ("bmm", "matmul", "mul"):
        sources = (sources * 2)[:2]  # what is multiplied by itself is read once
        if name == "mul":
            return Sum(node, sources, None, 1, terms=1, is_product=True)
        return Sum(node, sources, -1, shape[-1], terms=before[-1], is_product=True)
    terms = math.ceil(math.prod(before) / math.prod(shape))
    if (window := _window(node, traced)) is not None:
        sizes = window if isinstance(window, tuple) else (window,) * (len(shape) - 2)
        terms = math.prod(sizes)
    if len(shape) < 2:
        return Sum(node, sources, None, 1, terms)
    return Sum(node, sources, 1, shape[1], terms)


def _window(node: fx.Node, traced: fx.GraphModule) -> Any:
    """The size of the windows of a pool; None where it follows from the shapes."""
    if node.op == "call_module":
        return getattr(traced.get_submodule(str(node.target)), "kernel_size", None)
    if not _name(node).startswith("avg_pool"):
        return None
    return node.kwargs.get("kernel_size", node.args[1] if len(node.args) > 1 else None)


class _Noting(fx.Interpreter):
    """Notes what each tensor is while the network is run."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.seen: dict[fx.Node, Seen] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and n.op != "output":
            self.seen[n] = Seen(tuple(value.shape), float(value.min()))
        elif isinstance(value, (tuple, list)) and any(isinstance(v, torch.Tensor) for v in value):
            self.seen[n] = Seen()  # parts, which are taken out before they are used
        return value


def seen_on(traced: fx.GraphModule, rows: tuple[torch.Tensor, ...]) -> dict[fx.Node, Seen]:
    """Each tensor that is computed for some rows.

    Raises
    ------
    InvalidParameterError
        If the network does not take the rows.
    """
    noting = _Noting(traced)
    try:
        with torch.no_grad():
            noting.run(*rows)
    except Exception as error:  # whatever layers raise
        shapes = ", ".join(str(tuple(each.shape)) for each in rows)
        raise InvalidParameterError(
            f"the network does not take the inputset, of shape {shapes}: {first_line(error)}"
        ) from error
    return noting.seen
