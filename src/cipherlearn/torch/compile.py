"""From a float network to a compiled quantized module, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherlearn.circuit import count_lookups, simulate
from cipherlearn.engines import CompileOptions
from cipherlearn.errors import (
    CalibrationWarning,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    LookupWidthError,
    warn,
)
from cipherlearn.onnx import load_model
from cipherlearn.quantization.agreement import agreement_score
from cipherlearn.quantization.calibration import as_array
from cipherlearn.quantization.circuit_model import check_encryption_status
from cipherlearn.quantization.n_bits import (
    ROUNDING_RANGE,
    Rounding,
    get_n_bits_dict,
    process_rounding_threshold_bits,
)
from cipherlearn.quantization.post_training import (
    PostTrainingAffineQuantization,
    PostTrainingQATImporter,
)
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.search import search_bits
from cipherlearn.torch.numpy_module import NumpyModule

if TYPE_CHECKING:
    import torch

    from cipherlearn.onnx import ModelSource

#: Width of weights and activations where none is asked for.
DEFAULT_N_BITS = 8

#: Agreement with the unrounded model that ``rounding_threshold_bits="auto"`` keeps.
AUTO_ROUNDING_AGREEMENT = 0.99

#: Layers of Brevitas that mark a network as quantization-aware.
_BREVITAS_LAYERS = {"QuantConv1d", "QuantConv2d", "QuantIdentity", "QuantLinear", "QuantReLU"}


def compile_torch_model(
    torch_model: torch.nn.Module,
    torch_inputset: Any,
    import_qat: bool = False,
    configuration: Any = None,
    artifacts: Any = None,
    show_mlir: bool = False,
    n_bits: int | str | Mapping[str, int] = DEFAULT_N_BITS,
    rounding_threshold_bits: Any = None,
    p_error: float | None = None,
    global_p_error: float | None = None,
    verbose: bool = False,
    inputs_encryption_status: Sequence[str] | None = None,
    reduce_sum_copy: bool = False,
    device: str = "cpu",
    *,
    labels: Any = None,
    max_drop: float = 0.01,
    max_seconds: float | None = None,
) -> QuantizedModule:
    """Quantize a PyTorch module after training and compile it. No key is made.

    Parameters
    ----------
    torch_model : torch.nn.Module
        Trained network.
    torch_inputset : tensor, ndarray, or tuple of them (one an input), first axis = rows
        Calibration data: a few hundred rows like those that the model will see.
    import_qat : bool, default=False
        The network quantizes its own weights and activations on uniform grids: take them over.
    configuration, artifacts : object, optional
        The engine's own configuration and artifacts collector.
    show_mlir : bool, default=False
        Print the engine's intermediate code.
    n_bits : int, dict or "auto", default=8
        Width of weights and activations: see `cipherlearn.quantization.get_n_bits_dict`.
        ``"auto"`` finds the cheapest bits of every layer, rounding included, that are accurate
        enough (`cipherlearn.quantization.search_bits`); the engine is asked for the price of every
        candidate, which takes minutes for networks of some size.
    rounding_threshold_bits : None, int or dict, default=None
        Bits of the accumulators that look-ups read, 2 to 8; or ``{"n_bits": ..., "method": ...}``
        with ``"auto"`` or bits, and ``"exact"`` or ``"approximate"``. ``"auto"`` takes the fewest
        bits that agree with the unrounded model on 99 % of the calibration rows.
    p_error : float, optional
        Error probability of one table look-up. Default: 2**-40.
    global_p_error : float, optional
        Error probability of a whole prediction, instead of ``p_error``.
    verbose : bool, default=False
        Print the engine's compilation.
    inputs_encryption_status : sequence of {"encrypted", "clear"}, optional
        One an input. Default: all encrypted.
    reduce_sum_copy : bool, default=False
        Changes nothing: operands and sums have widths of their own without a copy.
    device : {"cpu", "cuda"}, default="cpu"
    labels : array-like of shape (rows,), optional
        Classes or targets of the calibration rows, which ``n_bits="auto"`` scores against. Default:
        the float model's results.
    max_drop : float, default=0.01
        Accuracy, agreement or R2 that ``n_bits="auto"`` may lose.
    max_seconds : float, optional
        Longest estimated prediction: ``n_bits="auto"`` then takes the most accurate bits within it.

    Returns
    -------
    QuantizedModule

    Raises
    ------
    InvalidTypeError
        If ``torch_model`` is not a module, or the data are not floating-point numbers.
    InvalidParameterError
        If an option or the data is out of what is accepted.
    ModelError
        If the network cannot be exported, or uses operators that are not supported.
    CompilationError
        If the engine refuses the circuit; the message names the layer.
    """
    del reduce_sum_copy
    _check_torch_module(torch_model)
    return _quantize_and_compile(
        torch_model,
        torch_inputset,
        import_qat=import_qat,
        n_bits=n_bits,
        rounding_threshold_bits=rounding_threshold_bits,
        configuration=configuration,
        artifacts=artifacts,
        show_mlir=show_mlir,
        p_error=p_error,
        global_p_error=global_p_error,
        verbose=verbose,
        inputs_encryption_status=inputs_encryption_status,
        device=device,
        target=_Target(labels, max_drop, max_seconds),
    )


def compile_onnx_model(
    onnx_model: ModelSource,
    torch_inputset: Any,
    import_qat: bool = False,
    configuration: Any = None,
    artifacts: Any = None,
    show_mlir: bool = False,
    n_bits: int | str | Mapping[str, int] = DEFAULT_N_BITS,
    rounding_threshold_bits: Any = None,
    p_error: float | None = None,
    global_p_error: float | None = None,
    verbose: bool = False,
    inputs_encryption_status: Sequence[str] | None = None,
    reduce_sum_copy: bool = False,
    device: str = "cpu",
    *,
    labels: Any = None,
    max_drop: float = 0.01,
    max_seconds: float | None = None,
) -> QuantizedModule:
    """Quantize an ONNX model and compile it. No key is made.

    Parameters
    ----------
    onnx_model : onnx.ModelProto, bytes, str or path
        Trained model: in memory, as the content of a file, or as its path.
    torch_inputset, import_qat, configuration, artifacts, show_mlir, n_bits, \
    rounding_threshold_bits, p_error, global_p_error, verbose, inputs_encryption_status, \
    reduce_sum_copy, device, labels, max_drop, max_seconds
        As for `compile_torch_model`.

    Returns
    -------
    QuantizedModule
    """
    del reduce_sum_copy
    return _quantize_and_compile(
        load_model(onnx_model),
        torch_inputset,
        import_qat=import_qat,
        n_bits=n_bits,
        rounding_threshold_bits=rounding_threshold_bits,
        configuration=configuration,
        artifacts=artifacts,
        show_mlir=show_mlir,
        p_error=p_error,
        global_p_error=global_p_error,
        verbose=verbose,
        inputs_encryption_status=inputs_encryption_status,
        device=device,
        target=_Target(labels, max_drop, max_seconds),
    )


def build_quantized_module(
    model: torch.nn.Module | ModelSource,
    torch_inputset: Any,
    import_qat: bool = False,
    n_bits: int | str | Mapping[str, int] = DEFAULT_N_BITS,
    rounding_threshold_bits: Any = None,
    reduce_sum_copy: bool = False,
    keep_onnx: bool = True,
    device: str = "cpu",
    *,
    labels: Any = None,
    max_drop: float = 0.01,
    max_seconds: float | None = None,
) -> QuantizedModule:
    """Quantize a PyTorch or ONNX model, without compiling it.

    Parameters
    ----------
    model : torch.nn.Module, onnx.ModelProto, bytes, str or path
    torch_inputset, import_qat, n_bits, rounding_threshold_bits, reduce_sum_copy, device, labels, \
    max_drop, max_seconds
        As for `compile_torch_model`.
    keep_onnx : bool, default=True
        Whether the module keeps the float model, for `QuantizedModule.agreement`.

    Returns
    -------
    QuantizedModule
    """
    del reduce_sum_copy
    options = CompileOptions.of(device=device)
    target = _Target(labels, max_drop, max_seconds)
    return _quantize(
        model,
        torch_inputset,
        import_qat,
        n_bits,
        rounding_threshold_bits,
        keep_onnx,
        options,
        target,
    )


@dataclass(frozen=True)
class _Target:
    """What ``n_bits="auto"`` looks for: see `compile_torch_model`."""

    labels: Any
    max_drop: float
    max_seconds: float | None


def _quantize_and_compile(
    model: Any,
    inputset: Any,
    *,
    import_qat: bool,
    n_bits: int | str | Mapping[str, int],
    rounding_threshold_bits: Any,
    p_error: float | None,
    global_p_error: float | None,
    inputs_encryption_status: Sequence[str] | None,
    device: str,
    target: _Target,
    **options: Any,
) -> QuantizedModule:
    """What the compile functions share. Options are checked before the model is exported."""
    errors = CompileOptions.of(p_error, global_p_error, device=device)
    if inputs_encryption_status is not None:
        check_encryption_status(inputs_encryption_status)
    module = _quantize(
        model, inputset, import_qat, n_bits, rounding_threshold_bits, True, errors, target
    )
    module.compile(
        to_numpy_inputs(inputset),
        p_error=p_error,
        global_p_error=global_p_error,
        inputs_encryption_status=inputs_encryption_status,
        device=device,
        **options,
    )
    return module


def _quantize(
    model: Any,
    inputset: Any,
    import_qat: bool,
    n_bits: int | str | Mapping[str, int],
    rounding_threshold_bits: Any,
    keep_onnx: bool,
    options: CompileOptions,
    target: _Target,
) -> QuantizedModule:
    # What can be wrong without looking at the model is found before it is exported.
    rounding = process_rounding_threshold_bits(rounding_threshold_bits)
    if isinstance(n_bits, str):
        _check_auto(n_bits, rounding, import_qat)
    else:
        get_n_bits_dict(n_bits)
    arrays = to_numpy_inputs(inputset)
    # Two rows, so that the exporter does not take a batch of one for a fixed size.
    numpy_model = NumpyModule(model, dummy_input=tuple(array[:2] for array in arrays))
    if isinstance(n_bits, str):
        return search_bits(
            numpy_model,
            *arrays,
            labels=target.labels,
            max_drop=target.max_drop,
            max_seconds=target.max_seconds,
            exact=rounding is not None and rounding.exact,
            options=options,
            keep_onnx=keep_onnx,
        )
    known: int | Mapping[str, int] = n_bits
    converter = PostTrainingQATImporter if import_qat else PostTrainingAffineQuantization

    def quantize(chosen: Rounding | None) -> QuantizedModule:
        return converter(known, numpy_model, chosen).quantize_module(*arrays, keep_onnx=keep_onnx)

    if rounding is None or rounding.n_bits != "auto":
        return quantize(rounding)
    return _fewest_kept_bits(quantize, numpy_model, arrays, rounding, options)


def _check_auto(n_bits: str, rounding: Rounding | None, import_qat: bool) -> None:
    """Check what is given together with ``n_bits="auto"``."""
    if n_bits != "auto":
        raise InvalidParameterError(
            f"n_bits is a number of bits, a dictionary or 'auto', not {n_bits!r}"
        )
    if import_qat:
        raise InvalidParameterError(
            "n_bits='auto' chooses bits, and import_qat=True takes those that the network was "
            "trained for: give one of them"
        )
    if rounding is not None and rounding.n_bits != "auto":
        raise InvalidParameterError(
            "n_bits='auto' chooses the kept bits of every layer: leave rounding_threshold_bits "
            "out, or give {'n_bits': 'auto', 'method': ...}"
        )


def to_numpy_inputs(inputset: Any) -> tuple[np.ndarray, ...]:
    """Calibration data as arrays, one an input."""
    given = inputset if isinstance(inputset, (tuple, list)) else (inputset,)
    if not given:
        raise InvalidShapeError("the input-set is empty: give rows to calibrate on")
    return tuple(_to_array(value) for value in given)


def convert_torch_tensor_or_numpy_array_to_numpy_array(value: Any) -> np.ndarray:
    """A tensor (of any device, with or without gradients) as an array; arrays as they are."""
    return as_array(value)


def has_any_qnn_layers(module: torch.nn.Module) -> bool:
    """Whether a module holds layers of Brevitas, which quantize in training."""
    return bool(_brevitas_layers(module))


def _brevitas_layers(module: torch.nn.Module) -> list[str]:
    return sorted({type(layer).__name__ for layer in module.modules()} & _BREVITAS_LAYERS)


def _to_array(value: Any) -> np.ndarray:
    array = as_array(value)
    if array.dtype.kind not in "fiub":
        raise InvalidTypeError(
            f"calibration data has dtype {array.dtype}; numbers are needed: floating-point "
            "ones, or integers where the model takes tokens"
        )
    if array.ndim < 1 or not array.shape[0]:
        raise InvalidParameterError(
            f"calibration data of shape {array.shape} has no rows: ranges need at least two"
        )
    return array


def _check_torch_module(model: Any) -> None:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise InvalidTypeError(
            f"compile_torch_model takes a torch.nn.Module, not {type(model).__name__}; "
            "compile_onnx_model takes ONNX models"
        )
    brevitas = _brevitas_layers(model)
    if brevitas:
        raise InvalidTypeError(
            f"the network holds Brevitas layers ({', '.join(brevitas)}), which post-training "
            "quantization would quantize a second time; they are not supported here"
        )


def _fewest_kept_bits(
    quantize: Callable[[Rounding | None], QuantizedModule],
    numpy_model: NumpyModule,
    arrays: tuple[np.ndarray, ...],
    rounding: Rounding,
    options: CompileOptions,
) -> QuantizedModule:
    """The module that rounds to the fewest bits and still agrees with the unrounded one."""
    try:
        reference = _outputs(quantize(None), arrays, options)
    except LookupWidthError:  # the unrounded model cannot be built: the float model stands in
        reference = numpy_model.numpy_forward(*arrays)
    lowest, highest = ROUNDING_RANGE
    for kept in range(lowest, highest + 1):
        module = quantize(Rounding(kept, rounding.exact))
        found = _outputs(module, arrays, options)
        score = min(agreement_score(f, r) for f, r in zip(found, reference, strict=True))
        if score >= AUTO_ROUNDING_AGREEMENT:
            return module
    warn(
        f"rounding to {highest} bits agrees with the unrounded model on {score:.3f} of the "
        f"calibration data, less than {AUTO_ROUNDING_AGREEMENT}; {highest} bits are kept",
        CalibrationWarning,
    )
    return module


def _outputs(
    module: QuantizedModule, arrays: tuple[np.ndarray, ...], options: CompileOptions
) -> tuple[np.ndarray, ...]:
    """Outputs with the errors that approximate rounding, and ``p_error``, may make."""
    p_error = options.p_error_of(count_lookups(module.circuit).total)
    noisy = simulate(module.circuit, *module.samples(*arrays), p_error=p_error)
    return module.real_outputs(noisy.outputs)
