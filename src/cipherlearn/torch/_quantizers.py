"""Quantizers inside PyTorch modules: those of Brevitas, and torch's own fake quantization.

While `exportable` is entered, those of Brevitas are traced as ``Quant`` nodes of QONNX, as Brevitas
itself exports them, and those of torch as functions that `cipherlearn.torch._translations` knows.
"""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cipherlearn.errors import MissingDependencyError, ModelError
from cipherlearn.onnx import _edit
from cipherlearn.ops import qonnx

if TYPE_CHECKING:
    import onnx
    import torch

#: Quantizers of Brevitas whose scales are numbers of the model, and whose integers are integers.
_SUPPORTED = frozenset(
    {
        "ActQuantProxyFromInjector",
        "BiasQuantProxyFromInjector",
        "DecoupledWeightQuantProxyFromInjector",
        "DecoupledWeightQuantWithInputProxyFromInjector",
        "TruncQuantProxyFromInjector",
        "WeightQuantProxyFromInjector",
    }
)
#: Where torch's exporter writes which modules a node comes from.
_SCOPES = "pkg.torch.onnx.name_scopes"

#: Why others are not supported, by a part of their name.
_REASONS = {
    "Groupwise": "one scale for every group of weights or activations",
    "Float": "floating-point numbers of few bits",
    "Dynamic": "scales that are chosen anew for every sample",
    "Clamp": "accumulators that are clamped",
}
_RECURRENT = frozenset({"QuantLSTM", "QuantRNN"})

#: Bases of layers, which say nothing to who wrote a network.
_ABSTRACT = frozenset(
    {
        "QuantInputOutputLayer",
        "QuantNonLinearActLayer",
        "QuantWeightBiasInputOutputLayer",
    }
)


def brevitas_layers(module: torch.nn.Module) -> list[str]:
    """Names of the classes of layers of Brevitas in a module, sorted.

    Parameters
    ----------
    module : torch.nn.Module
    """
    kinds = {kind for part in module.modules() for kind in type(part).__mro__}
    return sorted(
        kind.__name__
        for kind in kinds
        if kind.__module__.startswith("brevitas.nn.quant_") and kind.__name__ not in _ABSTRACT
    )


def trains_on_integers(model: Any) -> bool:
    """Whether a model is, or holds, a network that computes with integers in training."""
    return hasattr(model, "modules") and bool(_parts(model, "_integer_layers", "IntegerLinear"))


def trained_rounding(module: torch.nn.Module) -> dict[str, Any] | None:
    """The rounding that a network of `to_qat` was trained for, as users would give it."""
    parts = _parts(module, "_rounded_sums", "RoundedSums")
    if not parts:
        return None
    exact = all(part.exact for part in parts)
    kept = max(part.kept for part in parts)
    return {"n_bits": kept, "method": "exact" if exact else "approximate"}


def _parts(module: torch.nn.Module, file: str, kind: str) -> list[Any]:
    """Parts of a class of this package, if its file was imported at all: it loads torch."""
    known = sys.modules.get(f"cipherlearn.torch.{file}")
    parts = [] if known is None else list(module.modules())
    return [part for part in parts if isinstance(part, getattr(known, kind))]


def require_brevitas() -> None:
    """Raise `MissingDependencyError` if Brevitas is not installed."""
    try:
        with silent():
            import brevitas  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "Brevitas is needed for networks of its layers, and is not installed: "
            '`pip install "cipherlearn[nn]"`'
        ) from error


def check_brevitas(module: torch.nn.Module) -> None:
    """Refuse layers and quantizers of Brevitas that integers cannot be computed for.

    Raises
    ------
    ModelError
        Lists all of them.
    """
    problems = []
    for name, part in module.named_modules():
        kind = type(part).__name__
        if kind in _RECURRENT and type(part).__module__.startswith("brevitas."):
            problems.append(f"- {name or kind} ({kind}): recurrent layers are not supported")
        is_unknown = kind.endswith("ProxyFromInjector") and kind not in _SUPPORTED
        if is_unknown and getattr(part, "is_quant_enabled", False):
            problems.append(f"- {name} ({kind}): {_reason(kind)}")
    if problems:
        raise ModelError(
            "the network holds quantizers that are not supported:\n"
            + "\n".join(problems)
            + "\nSupported are integers with a learned, observed or constant scale: one for a "
            "tensor, or for weights one for each output channel"
        )


def _reason(kind: str) -> str:
    return next((why for part, why in _REASONS.items() if part in kind), "a quantizer of its own")


@contextlib.contextmanager
def exportable(
    module: torch.nn.Module, examples: tuple[torch.Tensor, ...], traced: bool
) -> Iterator[None]:
    """Let exporters see the quantizers of a module.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode.
    examples : tuple of torch.Tensor
    traced : bool
        Whether the exporter is that of TorchScript.
    """
    with contextlib.ExitStack() as stack:
        if brevitas_layers(module):
            stack.enter_context(_brevitas_exportable(module, examples, traced))
        stack.enter_context(_replaced(_exported_forwards(module, traced)))
        yield


def name_quantizers(model: onnx.ModelProto) -> None:
    """Give ``Quant`` nodes, and what they compute, the names of modules (in place)."""
    for node in model.graph.node:
        scopes = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
        if node.domain != qonnx.DOMAIN or not scopes:
            continue
        modules = [name for name in ast.literal_eval(scopes[0]) if name.endswith("_quant")]
        if modules:
            node.name = _edit.fresh_name(model.graph, modules[-1])
            _edit.rename(model.graph, node.output[0], node.name)


@contextlib.contextmanager
def _brevitas_exportable(
    module: torch.nn.Module, examples: tuple[torch.Tensor, ...], traced: bool
) -> Iterator[None]:
    """As Brevitas exports to QONNX, without the optimizer of graphs that it asks for."""
    require_brevitas()
    import torch
    from brevitas.export.manager import ExportContext  # type: ignore[import-untyped]
    from brevitas.export.onnx.qonnx.manager import (  # type: ignore[import-untyped]
        QONNXDynamoManager,
        QONNXManager,
    )

    manager = QONNXManager if traced else QONNXDynamoManager
    parts: list[Any] = list(module.modules())
    handled = [part for part in parts if getattr(part, "export_handler", 0) is None]
    with torch.no_grad(), ExportContext(manager):
        module.apply(manager.set_export_handler)
        manager._cache_inp_out(module, *examples)  # noqa: SLF001  (its own export does the same)
        weights = {
            part: part.quant_weight()
            for part in parts
            if hasattr(part, "quant_weight") and part.weight_quant.is_quant_enabled
        }
        manager.set_export_mode(module, enabled=True)
        kept = {part: part.weight for part in weights}
        try:
            # Brevitas exports the weights that it has yet to quantize, and always rounds these to
            # the nearest integers, whatever training does. Layers may share weights, not integers;
            # and Brevitas begins anew with weights that are set in the usual way.
            for part, quantized in weights.items():
                held = torch.nn.Parameter(quantized.value.detach().clone())
                part._parameters["weight"] = held  # noqa: SLF001
            yield
        finally:
            for part, parameter in kept.items():
                part._parameters["weight"] = parameter  # noqa: SLF001
            manager.set_export_mode(module, enabled=False)
            for part in handled:
                part.export_handler = None


def _exported_forwards(module: torch.nn.Module, traced: bool) -> dict[Any, Callable[..., Any]]:
    """What is traced in place of parts that only training computes, or that look at values.

    Sums that training rounds pass as they are: whoever compiles the network rounds them, in the
    same ranges. The exporter of TorchScript does not tell these.
    """
    rounding = _parts(module, "_rounded_sums", "RoundedSums")
    return {
        **{part: _Traced(part) for part in fake_quantizers(module)},
        **{part: _unchanged if traced else part.declared for part in rounding},
    }


@contextlib.contextmanager
def _replaced(forwards: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """Let parts compute something else."""
    for part, forward in forwards.items():
        part.forward = forward
    try:
        yield
    finally:
        for part in forwards:
            del part.forward


def fake_quantizers(module: torch.nn.Module) -> list[Any]:
    """Modules of torch's own that quantize and dequantize, and are not switched off."""
    known = sys.modules.get("torch.ao.quantization.fake_quantize")
    if known is None:
        return []
    parts = (part for part in module.modules() if isinstance(part, known.FakeQuantize))
    return [part for part in parts if int(part.fake_quant_enabled[0])]


def check_fake_quantizers(module: torch.nn.Module) -> None:
    """Refuse fake quantization that goes on observing.

    Raises
    ------
    ModelError
        Lists all of them.
    """
    prepared = sorted({type(part).__name__ for part in module.modules() if _is_torchao(part)})
    if prepared:
        raise ModelError(
            f"the network was prepared for quantization by torchao, and not converted: it holds "
            f"{', '.join(prepared)}. Give what convert_pt2e makes of it"
        )
    names = {id(part): name for name, part in module.named_modules()}
    observing = [
        names[id(part)] for part in fake_quantizers(module) if int(part.observer_enabled[0])
    ]
    if observing:
        raise ModelError(
            f"the fake quantization in {', '.join(observing)} still observes values, which would "
            "change its scale: module.apply(torch.ao.quantization.disable_observer)"
        )


def _is_torchao(part: Any) -> bool:
    """Whether a module is an observer or a fake quantizer of torchao."""
    bases = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(part).__mro__}
    return not bases.isdisjoint({("torchao", "ObserverBase"), ("torchao", "FakeQuantizeBase")})


def _limits(part: Any) -> tuple[int, int]:
    observer = part.activation_post_process
    return int(observer.quant_min), int(observer.quant_max)


def _unchanged(values: torch.Tensor) -> torch.Tensor:
    return values


class _Traced:
    """What a fake quantizer computes, without looking at its switches."""

    def __init__(self, part: Any) -> None:
        self._limits = _limits(part)
        self._scale, self._zero = part.scale.detach(), part.zero_point.detach()
        # Numbers, not tensors: what is traced must not ask for them.
        self._numbers = (float(self._scale[0]), int(self._zero[0]))
        self._axis = int(part.ch_axis) if bool(getattr(part, "is_per_channel", False)) else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        if self._axis is None:
            return torch.fake_quantize_per_tensor_affine(x, *self._numbers, *self._limits)
        return torch.fake_quantize_per_channel_affine(
            x, self._scale, self._zero, self._axis, *self._limits
        )


@contextlib.contextmanager
def silent() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
