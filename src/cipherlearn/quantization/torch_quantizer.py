"""Uniform quantization of torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from cipherlearn.quantization.quantizers import UniformQuantizer


class TorchUniformQuantizer:
    """The same quantizer on torch tensors.

    Parameters
    ----------
    quantizer : UniformQuantizer
        Calibrated; its scale and zero-point are used as they are.
    """

    def __init__(self, quantizer: UniformQuantizer) -> None:
        self.quantizer = quantizer

    def quant(self, values: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Integers of a real tensor, as ``dtype`` (that of ``values`` if None)."""
        import torch

        scale, zero_point = self._parameters(values)
        # In doubles, as NumPy's side does: ties would fall differently in single precision.
        integers = torch.round(values.to(torch.float64) / scale + zero_point)
        if not self.quantizer.no_clipping:
            lowest, highest = self.quantizer.integer_limits
            integers = torch.clamp(integers, lowest, highest)
        return integers.to(values.dtype if dtype is None else dtype)

    def dequant(self, values: torch.Tensor) -> torch.Tensor:
        """Real values that a tensor of integers stands for (doubles for an integer dtype)."""
        import torch

        scale, zero_point = self._parameters(values)
        reals = scale * (values.to(torch.float64) - zero_point)
        return reals.to(values.dtype) if values.is_floating_point() else reals

    def _parameters(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        self.quantizer.check_calibrated()
        known = self.quantizer.scale, self.quantizer.zero_point
        scale, zero_point = (
            torch.as_tensor(part, dtype=torch.float64, device=like.device) for part in known
        )
        return scale, zero_point
