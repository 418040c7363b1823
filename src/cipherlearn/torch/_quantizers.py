"""Quantizers inside PyTorch modules: those of Brevitas, and torch's own fake quantization.

Exporters know neither of them, or not all of their widths. While `exportable` is entered, they are
traced as what ONNX models declare grids with: ``Quant`` nodes (`cipherlearn.ops.qonnx`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cipherlearn.errors import MissingDependencyError, ModelError
from cipherlearn.ops import qonnx

if TYPE_CHECKING:
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
#: Why others are not supported, by a part of their name.
_REASONS = {
    "Groupwise": "one scale for every group of weights or activations",
    "Float": "floating-point numbers of few bits",
    "Dynamic": "scales that are chosen anew for every sample",
    "Clamp": "accumulators that are clamped",
}
_RECURRENT = frozenset({"QuantLSTM", "QuantRNN"})


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


#: Bases of layers, which say nothing to who wrote a network.
_ABSTRACT = frozenset(
    {
        "QuantInputOutputLayer",
        "QuantNonLinearActLayer",
        "QuantWeightBiasInputOutputLayer",
    }
)


def require_brevitas() -> None:
    """Raise `MissingDependencyError` if Brevitas is not installed."""
    try:
        with _silent():
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
        stack.enter_context(_fake_quantize_exportable(module))
        yield


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
        kept = {part: part.weight.data for part in weights}
        try:
            # Brevitas exports the weights that it has yet to quantize, and always rounds these to
            # the nearest integers, whatever training does.
            for part, quantized in weights.items():
                part.weight.data = quantized.value.detach().clone()
            yield
        finally:
            for part, data in kept.items():
                part.weight.data = data
            manager.set_export_mode(module, enabled=False)
            for part in handled:
                part.export_handler = None


@contextlib.contextmanager
def _fake_quantize_exportable(module: torch.nn.Module) -> Iterator[None]:
    """Let torch's own fake quantization be traced."""
    patched = []
    try:
        for part in fake_quantizers(module):
            part.forward = _Traced(part)
            patched.append(part)
        yield
    finally:
        for part in patched:
            del part.forward


def fake_quantizers(module: torch.nn.Module) -> list[Any]:
    """Modules of torch's own that quantize and dequantize, and are not switched off."""
    known = sys.modules.get("torch.ao.quantization.fake_quantize")
    if known is None:
        return []
    parts = (part for part in module.modules() if isinstance(part, known.FakeQuantize))
    return [part for part in parts if int(part.fake_quant_enabled[0])]


def check_fake_quantizers(module: torch.nn.Module) -> None:
    """Refuse fake quantization that goes on observing, or has a range without a number of bits.

    Raises
    ------
    ModelError
        Lists all of them.
    """
    names = {id(part): name for name, part in module.named_modules()}
    problems = []
    for part in fake_quantizers(module):
        name = names[id(part)]
        lo, hi = _limits(part)
        if int(part.observer_enabled[0]):
            problems.append(
                f"- {name} still observes values, which would change its scale: "
                "module.apply(torch.ao.quantization.disable_observer)"
            )
        elif qonnx.IntegerRange.of(lo, hi) is None:
            problems.append(f"- {name} has integers from {lo} to {hi}: no number of bits does")
    if problems:
        raise ModelError("fake quantization that cannot be exported:\n" + "\n".join(problems))


def _limits(part: Any) -> tuple[int, int]:
    observer = part.activation_post_process
    return int(observer.quant_min), int(observer.quant_max)


class _Traced:
    """What a fake quantizer computes, as one node."""

    def __init__(self, part: Any) -> None:
        self._range = qonnx.IntegerRange.of(*_limits(part))
        self._part = part

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        part, known = self._part, self._range
        if known is None:
            raise ModelError("fake quantization without a number of bits")
        shape = [1] * x.ndim
        if bool(getattr(part, "is_per_channel", False)):
            shape[part.ch_axis] = -1
        scale = part.scale.detach().to(x.dtype).reshape(shape)
        zero = part.zero_point.detach().to(x.dtype).reshape(shape) + known.shift
        bits = torch.tensor(float(known.n_bits))
        result: torch.Tensor = torch.onnx.ops.symbolic(
            f"{qonnx.DOMAIN}::Quant",
            (x, scale, zero, bits),
            known.attributes,
            dtype=x.dtype,
            shape=x.shape,
            version=1,
        )
        return result


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
