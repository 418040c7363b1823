"""Export of PyTorch modules to ONNX."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
)
from cipherlearn.torch._quantizers import (
    check_brevitas,
    check_fake_quantizers,
    exportable,
    name_quantizers,
)
from cipherlearn.torch._translations import translations

if TYPE_CHECKING:
    import torch

Exporter = Callable[..., onnx.ModelProto]

_BATCH = "batch"
# The TorchScript exporter knows no operator set beyond 20; 17 is the one it is tested with most.
_TORCHSCRIPT_OPSET = 17
#: By how much of their size results of an exported model may differ, on average.
MOST_DIFFERENCE = 0.05
_NOISY_LOGGERS = ("torch", "onnx", "onnxscript", "onnx_ir")


def to_onnx(
    module: torch.nn.Module,
    dummy_inputs: Any,
    output_onnx_file: str | os.PathLike[str] | None = None,
) -> onnx.ModelProto:
    """Export a PyTorch module to ONNX.

    Quantizers of Brevitas, and torch's own fake quantization, are exported as ``Quant`` nodes of
    QONNX. The current exporter is tried first, then the older one based on TorchScript; each with
    an open batch size, then with that of the examples. The module is traced in evaluation mode and
    left in the mode that it was in.

    Parameters
    ----------
    module : torch.nn.Module
        Module to export.
    dummy_inputs : tensor, ndarray or tuple of them
        One example of each input, with the batch on the first axis. Floating NumPy arrays get the
        dtype of the module's parameters.
    output_onnx_file : str or path, default None
        Where to write the exported model.

    Returns
    -------
    ModelProto
        The inputs have the names of the parameters of ``module.forward``.

    Raises
    ------
    InvalidTypeError
        When ``module`` is not a module, or an example is neither a tensor nor an array.
    InvalidParameterError
        When there are no examples, or more than ``forward`` takes.
    ModelError
        When no exporter can export the module; the message shows the reason of each.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise InvalidTypeError(f"Expected a torch.nn.Module, not {type(module).__name__}.")
    check_brevitas(module)
    check_fake_quantizers(module)
    examples = _to_tensors(module, dummy_inputs)
    names = _input_names(module, len(examples))
    _check_forward(module, examples, names)
    model = _with_own_outputs(_export(module, examples, names))
    name_quantizers(model)
    _check_inputs(model, names)
    if output_onnx_file is not None:
        onnx.save_model(model, Path(output_onnx_file))
    return model


def _to_tensors(module: torch.nn.Module, dummy_inputs: Any) -> tuple[torch.Tensor, ...]:
    """Turn the examples into tensors."""
    import torch

    examples = tuple(dummy_inputs) if isinstance(dummy_inputs, tuple | list) else (dummy_inputs,)
    if not examples:
        raise InvalidParameterError("Give at least one example input to trace the module with.")
    parameters = (*module.parameters(), *module.buffers())
    floating = (tensor.dtype for tensor in parameters if tensor.is_floating_point())
    dtype = next(floating, torch.float32)
    tensors = []
    for example in examples:
        if not isinstance(example, torch.Tensor | np.ndarray | np.generic):
            raise InvalidTypeError(
                f"Example inputs must be tensors or NumPy arrays, not {type(example).__name__}."
            )
        tensor = torch.as_tensor(example).detach()
        from_numpy = not isinstance(example, torch.Tensor)
        tensors.append(tensor.to(dtype) if from_numpy and tensor.is_floating_point() else tensor)
    return tuple(tensors)


def check_exported(
    module: torch.nn.Module, dummy_inputs: Any, evaluate: Callable[..., tuple[np.ndarray, ...]]
) -> None:
    """Compare an exported model with its module: exporters leave out what ONNX has no word for.

    Parameters
    ----------
    module : torch.nn.Module
    dummy_inputs : tensor, ndarray or tuple of them
        As for `to_onnx`.
    evaluate : callable
        The exported model, of arrays.

    Raises
    ------
    ModelError
        If results of the examples differ by more than `MOST_DIFFERENCE` of their size.
    """
    import torch

    examples = _to_tensors(module, dummy_inputs)
    with torch.no_grad(), _quiet(), _evaluation_mode(module):
        wanted = module(*examples)
    wanted = list(wanted) if isinstance(wanted, (tuple, list)) else [wanted]
    found = evaluate(*(example.cpu().numpy() for example in examples))
    for ours, theirs in zip(found, wanted, strict=False):
        if not isinstance(theirs, torch.Tensor) or not theirs.is_floating_point():
            continue
        expected = theirs.detach().cpu().double().numpy()
        if ours.shape != expected.shape:
            continue
        away = np.abs(ours - expected).mean() / max(np.abs(expected).mean(), 1e-6)
        if away > MOST_DIFFERENCE:
            raise ModelError(
                f"exported to ONNX, the module gives other results ({away:.0%} away on the "
                "examples): it uses an option that the exporter leaves out, such as "
                "divisor_override of a pool. Write it with other operations"
            )


def _input_names(module: torch.nn.Module, count: int) -> list[str]:
    """Names of the parameters of ``forward`` that the examples are for."""
    names: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names.extend(f"{parameter.name}_{i}" for i in range(count - len(names)))
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    if count > len(names):
        raise InvalidParameterError(
            f"{count} example inputs were given, but `forward` takes {len(names)}:"
            f" {', '.join(names)}."
        )
    return names[:count]


def _check_forward(
    module: torch.nn.Module, examples: tuple[torch.Tensor, ...], names: list[str]
) -> None:
    """Run the module once: data that does not fit it is no matter of exporting."""
    import torch

    try:
        with torch.no_grad(), _quiet(), _evaluation_mode(module):
            module(*examples)
    except Exception as error:
        kind = InvalidShapeError if isinstance(error, RuntimeError) else ModelError
        given = ", ".join(
            f"{name}: (rows, {', '.join(map(str, example.shape[1:]))}) of {example.dtype}"
            for name, example in zip(names, examples, strict=True)
        )
        raise kind(
            f"{type(module).__name__} does not run on inputs like those given ({given}): "
            f"{_short(error)}"
        ) from error


def _with_own_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, where no output has the name of an input.

    A module that returns an input of its own is exported as an identity from a name to itself.
    """
    inputs = {value.name for value in model.graph.input}
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name in inputs:
                node.output[place] = f"{name}_output"
    for output in model.graph.output:
        if output.name in inputs:
            output.name = f"{output.name}_output"
    return model


def _export(
    module: torch.nn.Module, examples: tuple[torch.Tensor, ...], names: list[str]
) -> onnx.ModelProto:
    """Try one exporter after the other, each with an open batch size first."""
    open_first = [True, False] if _has_one_batch_size(examples) else [False]
    reasons = []
    for label, exporter in (
        ("the current exporter", _export_dynamo),
        ("the TorchScript exporter", _export_torchscript),
    ):
        for open_batch in open_first:
            exported = _attempt(exporter, module, examples, names, open_batch)
            if isinstance(exported, onnx.ModelProto):
                return exported
        reasons.append(f"- {label}: {exported}")
    raise ModelError(
        f"The module {type(module).__name__} could not be exported to ONNX. Reasons:\n"
        + "\n".join(reasons)
    )


def _attempt(
    exporter: Exporter,
    module: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    *arguments: Any,
) -> onnx.ModelProto | str:
    """Return the exported model, or why there is none."""
    try:
        traced = exporter is _export_torchscript
        with _quiet(), _evaluation_mode(module), exportable(module, examples, traced):
            model = exporter(module, examples, *arguments)
            # Some exporters write graphs that contradict themselves: then the next one is tried.
            if model.ByteSize() < onnx.checker.MAXIMUM_PROTOBUF:
                onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
            return model
    except Exception as error:  # noqa: BLE001  (exporters fail in any way; all reasons are shown)
        return _short(error)


def _has_one_batch_size(examples: tuple[torch.Tensor, ...]) -> bool:
    sizes = {example.shape[0] if example.ndim else None for example in examples}
    return len(sizes) == 1 and None not in sizes


def _export_dynamo(
    module: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    names: list[str],
    open_batch: bool,
) -> onnx.ModelProto:
    import torch

    options: dict[str, Any] = {"dynamo": True, "input_names": names, "verbose": False}
    if open_batch:
        batch = torch.export.Dim(_BATCH)
        options["dynamic_shapes"] = tuple({0: batch} for _ in examples)
    known = inspect.signature(torch.onnx.export).parameters
    if "fallback" in known:
        # Some versions fall back by themselves, and then hide why.
        options["fallback"] = False
    if "custom_translation_table" in known:
        options["custom_translation_table"] = translations()
    program = torch.onnx.export(module, examples, **options)
    if program is None:
        raise ModelError("it returned nothing")
    return program.model_proto


def _export_torchscript(
    module: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    names: list[str],
    open_batch: bool,
) -> onnx.ModelProto:
    import torch

    options: dict[str, Any] = {"input_names": names, "opset_version": _TORCHSCRIPT_OPSET}
    if open_batch:
        options["dynamic_axes"] = {name: {0: _BATCH} for name in names}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = Path(folder) / "model.onnx"
        with torch.no_grad(), _quiet_descriptor():
            torch.onnx.export(module, examples, path, dynamo=False, **options)
        _refuse_fixed_decisions(caught)
        return onnx.load_model(path)


def _refuse_fixed_decisions(caught: list[warnings.WarningMessage]) -> None:
    """Refuse a trace in which Python code looked at values: they may differ for other inputs."""
    for warning in caught:
        # Brevitas looks at its own constants.
        own = "brevitas" in Path(warning.filename).parts
        if warning.category.__name__ == "TracerWarning" and not own:
            where = f"{Path(warning.filename).name}, line {warning.lineno}"
            raise ModelError(
                f"`forward` looks at values of a tensor in Python ({where}); the exported model"
                " would keep what it saw in the example for all inputs. Use tensor operations such"
                " as torch.where instead."
            )


@contextlib.contextmanager
def _evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each part of it back into its own afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
    except NotImplementedError:  # graphs of torch.export stay in the mode they were exported in
        for part, _ in modes:
            part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quiet_descriptor() -> Iterator[None]:
    """Silence native code, which writes past Python to the standard output."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:
        # There is no standard output to silence.
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what exporters say, and put everything back as it was."""
    known = [name for name in logging.root.manager.loggerDict if _is_noisy(name)]
    loggers = [logging.getLogger(name) for name in {*known, *_NOISY_LOGGERS}]
    levels = [logger.level for logger in loggers]
    output = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _is_noisy(name: str) -> bool:
    return name.partition(".")[0] in _NOISY_LOGGERS


def _short(error: Exception) -> str:
    """Describe an error of an exporter by its innermost cause, in a few lines."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {' '.join(lines[:3])}"


def _check_inputs(model: onnx.ModelProto, names: list[str]) -> None:
    """Refuse a model in which an input went missing: its caller would not know which."""
    exported = {value.name for value in model.graph.input}
    missing = [name for name in names if name not in exported]
    if missing:
        raise ModelError(
            f"The module does not use its input(s) {', '.join(missing)}: the exporter removed them."
            " Remove them from `forward` as well."
        )
