"""From a float network to a compiled quantized module, in one call."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherlearn.engines import CompileOptions
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
)
from cipherlearn.onnx import load_model
from cipherlearn.quantization.calibration import as_array
from cipherlearn.quantization.circuit_model import check_encryption_status
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.torch._quantize import AUTO, Request
from cipherlearn.torch._quantizers import (
    brevitas_layers,
    require_brevitas,
    trained_rounding,
    trains_on_integers,
)
from cipherlearn.torch.numpy_module import NumpyModule

if TYPE_CHECKING:
    import torch

    from cipherlearn.onnx import ModelSource


def compile_torch_model(
    torch_model: torch.nn.Module,
    torch_inputset: Any,
    import_qat: bool = False,
    configuration: Any = None,
    artifacts: Any = None,
    show_mlir: bool = False,
    n_bits: int | str | Mapping[str, int] = "auto",
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
    bounds: str = "observed",
    distill: bool = False,
    bypass: str = "hidden",
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
        See `cipherlearn.quantization.PostTrainingQATImporter`. Also for a
        `SparseQuantNeuralNetwork`.
    configuration, artifacts : object, optional
        The engine's own configuration and artifacts collector.
    show_mlir : bool, default=False
        Print the engine's intermediate code.
    n_bits : "auto", int or dict, default="auto"
        Width of weights and activations: see `cipherlearn.quantization.get_n_bits_dict`.
        ``"auto"`` finds the cheapest bits of every layer that are accurate enough
        (`cipherlearn.quantization.search_bits`); the engine is asked for the price of every
        candidate, which takes a minute or so, and more for deep networks. With ``import_qat`` it
        takes the bits that the network declares, and others are an error.
    rounding_threshold_bits : None, "auto", int or dict, default=None
        Bits of the accumulators that look-ups read, 2 to 8; or ``{"n_bits": ..., "method": ...}``
        with ``"auto"`` or bits, and ``"exact"`` or ``"approximate"``. ``"auto"`` chooses them layer
        by layer. None does not round if ``n_bits`` is given, and leaves everything to ``"auto"``
        otherwise.
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
        Classes or targets of the calibration rows, which ``"auto"`` scores against. Default: the
        float model's results.
    max_drop : float, default=0.01
        Accuracy, agreement or R2 that ``"auto"`` may lose.
    max_seconds : float, optional
        Longest estimated prediction: ``"auto"`` then takes the most accurate bits within it.
    bounds : {"observed", "proved"}, default="observed"
        Whether rounded accumulators get the range that calibration data leads to expect, or one
        that no input can leave: see `cipherlearn.quantization.PostTrainingLookupQuantization`.
    distill : bool, default=False
        Train the quantized weights to give the float model's results: see
        `cipherlearn.torch.distill`. Takes about a minute, and needs no labels.
    bypass : {"hidden", "none", "outputs"}, default="hidden"
        Linear parts of activations that go around rounded look-ups. ``"outputs"`` is the most
        accurate and tells the client more of the model: two partial results instead of their sum.
        See `cipherlearn.quantization.PostTrainingLookupQuantization`.

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
    given = locals()
    _check_torch_module(torch_model)
    return _compile(torch_model, given)


def compile_onnx_model(
    onnx_model: ModelSource,
    torch_inputset: Any,
    import_qat: bool = False,
    configuration: Any = None,
    artifacts: Any = None,
    show_mlir: bool = False,
    n_bits: int | str | Mapping[str, int] = "auto",
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
    bounds: str = "observed",
    distill: bool = False,
    bypass: str = "hidden",
) -> QuantizedModule:
    """Quantize an ONNX model and compile it. No key is made.

    Parameters
    ----------
    onnx_model : onnx.ModelProto, bytes, str or path
        Trained model: in memory, as the content of a file, or as its path.
    torch_inputset, import_qat, configuration, artifacts, show_mlir, n_bits, \
    rounding_threshold_bits, p_error, global_p_error, verbose, inputs_encryption_status, \
    reduce_sum_copy, device, labels, max_drop, max_seconds, bounds, distill, bypass
        As for `compile_torch_model`.

    Returns
    -------
    QuantizedModule
    """
    given = locals()
    return _compile(load_model(onnx_model), given)


def compile_brevitas_qat_model(
    torch_model: torch.nn.Module,
    torch_inputset: Any,
    n_bits: int | Mapping[str, int] | None = None,
    configuration: Any = None,
    artifacts: Any = None,
    show_mlir: bool = False,
    rounding_threshold_bits: Any = None,
    p_error: float | None = None,
    global_p_error: float | None = None,
    output_onnx_file: str | os.PathLike[str] | None = None,
    verbose: bool = False,
    inputs_encryption_status: Sequence[str] | None = None,
    reduce_sum_copy: bool = False,
    device: str = "cpu",
    *,
    bounds: str = "observed",
) -> QuantizedModule:
    """Compile a network of Brevitas with the integers that it was trained with. No key is made.

    Parameters
    ----------
    torch_model : torch.nn.Module
        Trained network that begins with a quantizer (``QuantIdentity``), and whose products, pools
        and sums read what quantizers give. Real functions of single values may stand anywhere.
    torch_inputset : tensor, ndarray, or tuple of them (one an input), first axis = rows
        Tells the ranges of accumulators, and nothing else: scales are those of the network.
    n_bits : int or dict, optional
        Checked against the network's bits; a dictionary has the keys ``model_inputs`` and
        ``model_outputs`` (width of outputs that are real functions). Default: the network's.
    rounding_threshold_bits : optional
        As for `compile_torch_model`. Default: what the network was made for, if it comes from
        `to_qat`; else all bits are read.
    output_onnx_file : str or path, optional
        Where to write the exported model, with ``Quant`` nodes of QONNX.
    bounds : {"observed", "proved"}, default="observed"
        Whether accumulators get the range that the rows of ``torch_inputset`` lead to expect, or
        one that no input can leave: then every result is that of the network, at a higher price.
    configuration, artifacts, show_mlir, p_error, global_p_error, verbose, \
    inputs_encryption_status, reduce_sum_copy, device
        As for `compile_torch_model`.

    Returns
    -------
    QuantizedModule

    Raises
    ------
    MissingDependencyError
        If Brevitas is not installed.
    InvalidTypeError
        If the network holds no layers of Brevitas.
    ModelError
        If it holds layers or scales that are not supported; all of them are listed.
    UnquantizedTensorError
        If tensors reach a layer that computes on integers without being quantized.
    InvalidParameterError
        If ``n_bits`` and the network disagree, or another option is out of what is accepted.
    """
    given = {**locals(), "n_bits": AUTO if n_bits is None else n_bits, "import_qat": True}
    require_brevitas()
    _check_module(torch_model, "compile_brevitas_qat_model")
    if rounding_threshold_bits is None:
        given["rounding_threshold_bits"] = trained_rounding(torch_model)
    if not has_any_qnn_layers(torch_model):
        raise InvalidTypeError(
            "the network holds no layers of Brevitas: compile_torch_model quantizes it after "
            "training, or takes over what other tools quantized (import_qat=True)"
        )
    return _compile(torch_model, given)


def build_quantized_module(
    model: torch.nn.Module | ModelSource,
    torch_inputset: Any,
    import_qat: bool = False,
    n_bits: int | str | Mapping[str, int] = "auto",
    rounding_threshold_bits: Any = None,
    reduce_sum_copy: bool = False,
    keep_onnx: bool = True,
    device: str = "cpu",
    *,
    labels: Any = None,
    max_drop: float = 0.01,
    max_seconds: float | None = None,
    bounds: str = "observed",
    distill: bool = False,
    bypass: str = "hidden",
) -> QuantizedModule:
    """Quantize a PyTorch or ONNX model, without compiling it.

    Parameters
    ----------
    model : torch.nn.Module, onnx.ModelProto, bytes, str or path
    torch_inputset, import_qat, n_bits, rounding_threshold_bits, reduce_sum_copy, device, labels, \
    max_drop, max_seconds, bounds, distill, bypass
        As for `compile_torch_model`.
    keep_onnx : bool, default=True
        Whether the module keeps the float model, for `QuantizedModule.agreement`.

    Returns
    -------
    QuantizedModule
    """
    request = Request.of(locals())
    del reduce_sum_copy
    return _quantize(
        model, torch_inputset, request, CompileOptions.of(device=device), keep_onnx=keep_onnx
    )


#: Parameters of the compile functions that go to `QuantizedModule.compile` as they are.
_ENGINE_PARAMETERS = (
    "configuration",
    "artifacts",
    "show_mlir",
    "p_error",
    "global_p_error",
    "verbose",
    "inputs_encryption_status",
    "device",
)


def _compile(model: Any, given: Mapping[str, Any]) -> QuantizedModule:
    """What the compile functions share. Options are checked before the model is exported.

    Parameters
    ----------
    model : torch.nn.Module or onnx.ModelProto
    given : mapping
        The parameters of the compile function, by name.
    """
    request = Request.of(given)
    errors = CompileOptions.of(given["p_error"], given["global_p_error"], device=given["device"])
    if given["inputs_encryption_status"] is not None:
        check_encryption_status(given["inputs_encryption_status"])
    inputset = given["torch_inputset"]
    module = _quantize(model, inputset, request, errors, given.get("output_onnx_file"))
    module.compile(to_numpy_inputs(inputset), **{name: given[name] for name in _ENGINE_PARAMETERS})
    return module


def _quantize(
    model: Any,
    inputset: Any,
    request: Request,
    options: CompileOptions,
    onnx_file: str | os.PathLike[str] | None = None,
    keep_onnx: bool = True,
) -> QuantizedModule:
    arrays = to_numpy_inputs(inputset)
    if trains_on_integers(model):
        return _quantize_trained(model, arrays, request)
    # Two rows, so that the exporter does not take a batch of one for a fixed size.
    examples = tuple(array[:2] for array in arrays)
    return request.quantize(NumpyModule(model, examples, onnx_file), arrays, options, keep_onnx)


def _quantize_trained(
    model: Any, arrays: tuple[np.ndarray, ...], request: Request
) -> QuantizedModule:
    """The integers of a `SparseQuantNeuralNetwork`, with room for what some rows lead to."""
    import torch

    from cipherlearn.torch.sparse_network import SparseQuantNeuralNetwork

    if not isinstance(model, SparseQuantNeuralNetwork):
        raise ModelError(
            f"a {type(model).__name__} holds layers of a SparseQuantNeuralNetwork: compile that "
            "network itself, and let the client compute what follows"
        )
    if not request.import_qat:
        raise InvalidTypeError(
            "a SparseQuantNeuralNetwork is trained on the integers that it is encrypted with, and "
            "is not quantized a second time: give import_qat=True"
        )
    if request.n_bits != AUTO or request.rounding is not None:
        raise InvalidParameterError(
            "n_bits and rounding_threshold_bits of a SparseQuantNeuralNetwork are those that it "
            "was trained with (n_w_bits, n_a_bits, n_lookup_bits): leave them out"
        )
    if request.bounds == "proved" and not model.precision.is_proved:
        raise InvalidParameterError(
            "bounds='proved': the network was trained with bounds='observed', and look-ups have no "
            "room for more; train it with SparseQuantNeuralNetwork(..., bounds='proved')"
        )
    if len(arrays) != 1:
        raise InvalidShapeError(f"{len(arrays)} arrays were given; the network takes one")
    network = copy.deepcopy(model).cpu()
    network.calibrate(torch.tensor(arrays[0]))
    return network.quantized_module()


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
    return bool(brevitas_layers(module))


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
    _check_module(model, "compile_torch_model")
    brevitas = brevitas_layers(model)
    if brevitas:
        raise InvalidTypeError(
            f"the network holds layers of Brevitas ({', '.join(brevitas)}), which post-training "
            "quantization would quantize a second time: use compile_brevitas_qat_model"
        )


def _check_module(model: Any, function: str) -> None:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise InvalidTypeError(
            f"{function} takes a torch.nn.Module, not {type(model).__name__}; "
            "compile_onnx_model takes ONNX models, and program.module() is that of torch.export"
        )
