"""Quantization: from a float model and calibration data to integers that mean the same.

The operator classes (``QuantizedRelu``, ``QuantizedGemm``, ...) can be imported from here as well
as from `cipherlearn.quantization.quantized_ops`.
"""

from __future__ import annotations

from typing import Any

from cipherlearn.ops._integer import Affine
from cipherlearn.quantization import quantized_ops
from cipherlearn.quantization.base_quantized_op import (
    ALL_QUANTIZED_OPS,
    ONNX_OPS_TO_QUANTIZED_IMPL,
    QuantizedOp,
)
from cipherlearn.quantization.inspection import Trace, TracedTensor
from cipherlearn.quantization.lookup_aware import PostTrainingLookupQuantization
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.n_bits import (
    DEFAULT_MODEL_BITS,
    LayerBits,
    Rounding,
    get_n_bits_dict,
    process_rounding_threshold_bits,
)
from cipherlearn.quantization.post_training import (
    ONNXConverter,
    PostTrainingAffineQuantization,
)
from cipherlearn.quantization.power_of_two import PowerOfTwoScalingRoundPBSAdapter
from cipherlearn.quantization.qat import PostTrainingQATImporter
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)
from cipherlearn.quantization.search import SearchResult, SearchSpace, search_bits
from cipherlearn.quantization.torch_quantizer import TorchUniformQuantizer

__all__ = [
    "ALL_QUANTIZED_OPS",
    "DEFAULT_MODEL_BITS",
    "ONNX_OPS_TO_QUANTIZED_IMPL",
    "Affine",
    "LayerBits",
    "MinMaxQuantizationStats",
    "ONNXConverter",
    "PostTrainingAffineQuantization",
    "PostTrainingLookupQuantization",
    "PostTrainingQATImporter",
    "PowerOfTwoScalingRoundPBSAdapter",
    "QuantizationOptions",
    "QuantizedArray",
    "QuantizedMixingOp",
    "QuantizedModule",
    "QuantizedOp",
    "Rounding",
    "SearchResult",
    "SearchSpace",
    "TorchUniformQuantizer",
    "Trace",
    "TracedTensor",
    "UniformQuantizationParameters",
    "UniformQuantizer",
    "get_n_bits_dict",
    "process_rounding_threshold_bits",
    "quantized_ops",
    "search_bits",
]


def __getattr__(name: str) -> Any:
    if name.startswith("Quantized"):
        return getattr(quantized_ops, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
