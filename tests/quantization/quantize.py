"""Quantizing small models, and the checks that every quantized module must pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from cipherlearn.quantization import PostTrainingAffineQuantization, QuantizedModule
from cipherlearn.quantization.circuit_model import as_tuple
from cipherlearn.torch import NumpyModule


def quantize(
    model: onnx.ModelProto, *data: np.ndarray, n_bits: Any = 8, rounding: Any = None
) -> QuantizedModule:
    converter = PostTrainingAffineQuantization(n_bits, NumpyModule(model), rounding)
    return converter.quantize_module(*data)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def float_outputs(module: QuantizedModule, *data: np.ndarray) -> tuple[np.ndarray, ...]:
    outputs: tuple[np.ndarray, ...] = module.numpy_model.numpy_forward(*data)
    return outputs


def r2(values: np.ndarray, truth: np.ndarray) -> float:
    values, truth = np.asarray(values, np.float64), np.asarray(truth, np.float64)
    assert values.shape == truth.shape
    spread = float(((truth - truth.mean()) ** 2).sum())
    residual = float(((values - truth) ** 2).sum())
    return 1.0 - residual / spread if spread else float(residual == 0.0)


def check_integers_agree(module: QuantizedModule, *data: np.ndarray) -> None:
    """Layer by layer on arrays, as a circuit, and behind an engine: the same integers."""
    q_x = as_tuple(module.quantize_input(*data))
    expected = as_tuple(module.quantized_forward(*q_x))
    _, layers = module.forward(*data, debug=True)
    by_output = {
        output: layers[op.op_instance_name]["output"].qvalues
        for output, (_, op) in module.quant_layers_dict.items()
    }
    for name, integers in zip(module.ordered_module_output_names, expected, strict=True):
        if name in by_output:
            np.testing.assert_array_equal(by_output[name], integers)
    module.compile(engine="clear")
    rows = tuple(q[:3] for q in q_x)
    executed = as_tuple(module.quantized_forward(*rows, fhe="execute"))
    for integers, found in zip(expected, executed, strict=True):
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, integers[:3])


def check(module: QuantizedModule, *data: np.ndarray, score: float = 0.99) -> None:
    """The same integers everywhere, near the float model."""
    check_integers_agree(module, *data)
    outputs = as_tuple(module.forward(*data))
    for output, truth in zip(outputs, float_outputs(module, *data), strict=True):
        assert output.dtype == np.float64
        assert r2(output, truth) >= score


def lookups(module: QuantizedModule) -> dict[int, int]:
    from cipherlearn.circuit import count_lookups

    return dict(count_lookups(module.circuit).by_width)
