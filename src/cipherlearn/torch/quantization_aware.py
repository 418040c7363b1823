"""From a float network to one of Brevitas, ready for quantization-aware training.

Products get integer weights. What they read, and what is added, joined or pooled, is quantized
first: where a function of single values gives it, so that function and quantizer are one look-up.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cipherlearn.engines import CompileOptions
from cipherlearn.errors import InvalidParameterError, InvalidTypeError, ModelError
from cipherlearn.quantization.n_bits import LayerBits, get_n_bits_dict
from cipherlearn.quantization.quantizers import check_bits
from cipherlearn.quantization.search import INPUT_BITS
from cipherlearn.torch._operations import GEOMETRY, PRODUCTS
from cipherlearn.torch._qat_plan import Plan, Seen, Sum, seen_on, traced_copy
from cipherlearn.torch._quantize import AUTO, Request
from cipherlearn.torch._quantizers import brevitas_layers, require_brevitas, silent
from cipherlearn.torch._rounded_sums import RoundedSums
from cipherlearn.torch.compile import to_numpy_inputs
from cipherlearn.torch.numpy_module import NumpyModule

#: Most bits of weights and activations.
MOST_BITS = 8


@dataclass(frozen=True)
class QatBits:
    """Bits of a network that is to be trained.

    Parameters
    ----------
    model_inputs : int
        Of what the client encrypts.
    layers : tuple of LayerBits
        Of each layer with weights, in order; the last stands for those beyond.
    rounding : dict or None
        As ``rounding_threshold_bits`` takes it.
    """

    model_inputs: int
    layers: tuple[LayerBits, ...]
    rounding: dict[str, Any] | None

    def of(self, number: int) -> LayerBits:
        """Those of a layer, by its number."""
        return self.layers[min(number, len(self.layers) - 1)]


def to_qat(
    net: nn.Module,
    inputset: Any,
    n_bits: int | str | Mapping[str, int] = AUTO,
    rounding_threshold_bits: Any = None,
    *,
    labels: Any = None,
    max_drop: float = 0.01,
    max_seconds: float | None = None,
) -> fx.GraphModule:
    """A network of Brevitas with the weights of a float one, to be trained for a few epochs.

    Parameters
    ----------
    net : torch.nn.Module
        Float network that `torch.fx` can trace. It stays as it is.
    inputset : tensor, ndarray, or tuple of them (one an input), first axis = rows
        Rows like those it is trained on: ranges of activations begin with theirs, and ``"auto"``
        compares bits on them.
    n_bits : "auto", int or dict, default="auto"
        Bits of weights and activations: see `cipherlearn.quantization.get_n_bits_dict`. ``"auto"``
        finds those that are good enough without training: see
        `cipherlearn.quantization.search_bits`. A larger ``max_drop``, or ``max_seconds``, finds
        fewer bits, for training to make up for.
    rounding_threshold_bits : optional
        As for `compile_torch_model`. Training rounds alike, and `compile_brevitas_qat_model` takes
        rounding and ranges from the network: steps are those of training, to the precision of
        whole factors. Where ``n_bits`` is ``"auto"``, None takes what it found.
    labels, max_drop, max_seconds
        As for `compile_torch_model`, where bits are found.

    Returns
    -------
    torch.fx.GraphModule
        In training mode. `compile_brevitas_qat_model` compiles it.

    Raises
    ------
    MissingDependencyError
        If Brevitas is not installed.
    InvalidTypeError
        If ``net`` is no module, or holds layers of Brevitas already.
    ModelError
        If it cannot be traced, or computes what there is no quantized form of; all is listed.
    InvalidParameterError
        If an option or the rows are out of what is accepted.
    """
    if not isinstance(net, nn.Module):
        raise InvalidTypeError(f"to_qat takes a torch.nn.Module, not {type(net).__name__}")
    if brevitas_layers(net):
        raise InvalidTypeError("the network holds layers of Brevitas: it can be trained as it is")
    require_brevitas()
    given = {**locals(), "import_qat": False}
    request = Request.of(given)
    rows = _rows(net, to_numpy_inputs(inputset))
    traced = traced_copy(net)
    seen = seen_on(traced, rows)
    plan = Plan.of(traced, seen)
    bits = _bits(net, request, tuple(each.numpy() for each in rows))
    with silent(), torch.random.fork_rng(devices=[]):
        _quantize(traced, plan, bits, seen)
        _calibrate(traced, rows)
    return traced.train()


def _rows(net: nn.Module, arrays: tuple[np.ndarray, ...]) -> tuple[torch.Tensor, ...]:
    """Rows as the network takes them: real ones in its precision."""
    floats = [p.dtype for p in net.parameters() if p.dtype.is_floating_point]
    if floats and floats[0] not in (torch.float32, torch.float64):
        raise InvalidParameterError(f"the network computes in {floats[0]}: net.float() first")
    if not all(np.isfinite(array).all() for array in arrays):
        raise InvalidParameterError(
            "rows hold values that are infinite or not numbers: no integer stands for them"
        )
    tensors = (torch.tensor(array) for array in arrays)
    return tuple(t.float() if t.dtype.is_floating_point else t for t in tensors)


def _bits(net: nn.Module, request: Request, arrays: tuple[np.ndarray, ...]) -> QatBits:
    """The bits that are asked for, or found."""
    rounding = request.rounding
    if request.n_bits != AUTO:
        if rounding is not None and isinstance(rounding.n_bits, str):
            raise InvalidParameterError(
                "rounding_threshold_bits='auto' needs n_bits='auto': give its bits"
            )
        found = get_n_bits_dict(request.n_bits)  # type: ignore[arg-type]
        check_bits(found["op_weights"], "n_bits of weights", MOST_BITS, lowest=2)
        check_bits(found["op_inputs"], "n_bits of activations", MOST_BITS)
        common = LayerBits(found["op_weights"], found["op_inputs"], None)
        kept = (
            None
            if rounding is None
            else {"n_bits": rounding.n_bits, "method": _method(rounding.exact)}
        )
        return QatBits(found["model_inputs"], (common,), kept)
    with torch.no_grad():
        model = NumpyModule(copy.deepcopy(net).eval(), tuple(array[:2] for array in arrays))
    module = request.quantize(model, arrays, CompileOptions.of(), keep_onnx=False)
    if module.search is None:
        raise ModelError("no bits were found")
    chosen = module.search.chosen.candidate
    layers = tuple(chosen.of(name) for name in module.weight_layers())
    kept = {
        "n_bits": max(each.kept for each in layers if each.kept is not None),
        "method": _method(chosen.common.exact),
    }
    return QatBits(max(INPUT_BITS, chosen.common.inputs), layers, kept)


def _method(exact: bool) -> str:
    return "exact" if exact else "approximate"


def _quantize(
    traced: fx.GraphModule, plan: Plan, bits: QatBits, seen: Mapping[fx.Node, Seen]
) -> None:
    """Replace layers, and add quantizers (in place)."""
    _replace_products(traced, plan, bits)
    kinds = {**dict.fromkeys(traced.graph.nodes, "size"), **plan.kinds}
    widths = _add_quantizers(traced, plan, bits, seen, kinds)
    rounding = bits.rounding
    if rounding is not None:
        for place, each in enumerate(plan.sums):
            fits = each.fits(widths, rounding["n_bits"])
            if not fits and _is_looked_up(each.node, kinds):
                _round(traced, each, f"rounded{place}", rounding)
    traced.graph.lint()
    traced.recompile()


def _replace_products(traced: fx.GraphModule, plan: Plan, bits: QatBits) -> None:
    """Put layers of Brevitas in place of those with weights; what they share stays shared."""
    from brevitas import nn as qnn  # type: ignore[import-untyped]
    from brevitas import quant

    taken: dict[int, nn.Parameter] = {}
    for number, node in enumerate(plan.products):
        layer = traced.get_submodule(str(node.target))
        if type(layer) not in PRODUCTS:
            continue  # the same layer, once more
        made = getattr(qnn, PRODUCTS[type(layer)])(
            **{name: getattr(layer, name) for name in GEOMETRY if hasattr(layer, name)},
            bias=layer.bias is not None,
            weight_quant=(
                quant.Int8WeightPerTensorFloatMSE
                if "Transpose" in type(layer).__name__  # its channels are on another axis
                else quant.Int8WeightPerChannelFloatMSE
            ),
            weight_bit_width=bits.of(number).weights,
        )
        made.load_state_dict(layer.state_dict(), strict=False)
        for part, parameter in layer.named_parameters():
            own = made.get_parameter(part).requires_grad_(parameter.requires_grad)
            if (shared := taken.setdefault(id(parameter), own)) is not own:
                setattr(made, part, shared)
        parent, _, name = str(node.target).rpartition(".")
        setattr(traced.get_submodule(parent), name, made)


def _add_quantizers(
    traced: fx.GraphModule,
    plan: Plan,
    bits: QatBits,
    seen: Mapping[fx.Node, Seen],
    kinds: Mapping[fx.Node, str],
) -> dict[fx.Node, int]:
    """Quantize what is to be quantized; the bits of each such value."""
    from brevitas import nn as qnn
    from brevitas import quant

    found: dict[fx.Node, int] = {}
    for place, group in enumerate(plan.groups):
        signed = any(seen[node].least < 0 for node in group)
        # Ranges that leave the least error: of few bits, those of the largest values are far off.
        kind = quant.ShiftedUint8ActPerTensorFloatMSE if signed else quant.Uint8ActPerTensorFloatMSE
        numbers = [number for node in group for number in plan.readers.get(node, ())]
        widths = [bits.of(number).inputs for number in numbers or [len(plan.products) - 1]]
        is_input = all(node.op == "placeholder" for node in group)
        width = bits.model_inputs if is_input else max(widths)
        name = f"quantizer{place}"
        traced.add_submodule(name, qnn.QuantIdentity(act_quant=kind, bit_width=width))
        for node in group:
            _insert(traced, node, name, kinds)
        found.update(dict.fromkeys(group, width))
    return found


def _is_looked_up(node: fx.Node, kinds: Mapping[fx.Node, str]) -> bool:
    """Whether a function or a quantizer reads a sum, moved or not, and outputs are not all."""
    readers = [user for user in node.users if kinds.get(user) not in ("output", "size")]
    return any(kinds.get(user) != "moving" or _is_looked_up(user, kinds) for user in readers)


def _round(traced: fx.GraphModule, found: Sum, name: str, rounding: Mapping[str, Any]) -> None:
    """Let training know how sums are rounded."""
    exact = rounding["method"] == "exact"
    traced.add_submodule(name, RoundedSums(found.channels, found.axis, rounding["n_bits"], exact))
    with traced.graph.inserting_after(found.node):
        made = traced.graph.call_module(name, (found.node,))
    # Results of the network are decrypted as they are.
    found.node.replace_all_uses_with(made, lambda user: user is not made and user.op != "output")


def _insert(traced: fx.GraphModule, node: fx.Node, name: str, kinds: Mapping[fx.Node, str]) -> None:
    """Let what computes on integers read a value through a quantizer."""
    # The client quantizes what is encrypted; later on, functions are part of look-ups.
    idle = ("output", "size") if node.op == "placeholder" else ("elementwise", "output", "size")
    readers = [user for user in node.users if kinds[user] not in idle]
    after = node
    if node.op == "placeholder":  # these come first, all of them
        after = [each for each in traced.graph.nodes if each.op == "placeholder"][-1]
    with traced.graph.inserting_after(after):
        made = traced.graph.call_module(name, (node,))
    for user in readers:
        user.replace_input_with(node, made)


def _calibrate(traced: fx.GraphModule, rows: tuple[torch.Tensor, ...]) -> None:
    """Let quantizers begin with the ranges of some rows."""
    from brevitas.graph.calibrate import calibration_mode  # type: ignore[import-untyped]

    rounding = [part for part in traced.modules() if isinstance(part, RoundedSums)]
    with torch.no_grad(), calibration_mode(traced):
        for part in rounding:
            part.train()
        traced(*rows)
