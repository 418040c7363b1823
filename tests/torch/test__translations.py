"""Torch's own quantization in ONNX: the values, and the widths that its exporter forgets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import nn

from cipherlearn.onnx import execute, load_model, simplify
from cipherlearn.torch.export import to_onnx
from tests.onnx_models import op_types

X = torch.linspace(-4, 4, 40).reshape(10, 4)
SCALES, ZEROS = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0, 1, -1, 2])


class Fake(nn.Module):
    """Fake quantization, called as a function."""

    def __init__(self, lo: int, hi: int, per_channel: bool = False) -> None:
        super().__init__()
        self.limits, self.per_channel = (lo, hi), per_channel
        self.register_buffer("scales", SCALES)
        self.register_buffer("zeros", ZEROS.to(torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.per_channel:
            return torch.fake_quantize_per_channel_affine(
                x, self.scales, self.zeros, 1, *self.limits
            )
        return torch.fake_quantize_per_tensor_affine(x, 0.1, 3, *self.limits)


class Decomposed(Fake):
    """The operators of torch's export quantization."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = torch.ops.quantized_decomposed
        if self.per_channel:
            given = (self.scales, self.zeros.to(torch.int64), 1, *self.limits, torch.int8)
            quantized = known.quantize_per_channel(x, *given)
            return known.dequantize_per_channel(quantized, *given)  # type: ignore[no-any-return]
        given = (0.1, 3, *self.limits, torch.int8)
        return known.dequantize_per_tensor(  # type: ignore[no-any-return]
            known.quantize_per_tensor(x, *given), *given
        )


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", [Fake, Decomposed])
def test_widths_are_kept(kind: type[Fake], per_channel: bool) -> None:
    module = kind(-8, 7, per_channel)
    model = simplify(load_model(to_onnx(module, X)))
    assert op_types(model) == ["Quant"]
    np.testing.assert_allclose(execute(model, X.numpy())[0], module(X).numpy(), atol=1e-6)
