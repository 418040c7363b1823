"""The range of sums that training leads to, and their rounding to the bits that look-ups read."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import torch
from torch import nn

from cipherlearn.engines import DEFAULT_P_ERROR
from cipherlearn.ops.seen_range import DOMAIN
from cipherlearn.torch._differentiable import rounded_with_noise

#: By how much a range is wider than what was seen; and which share of all batches so far it
#: follows: the first ones, when weights change most, do not count for long.
MARGIN, MEMORY = 0.35, 0.1

#: Noise that decides approximate rounding, in steps: see `cipherlearn.circuit.simulate`.
SIGMA = 0.5 / -NormalDist().inv_cdf(DEFAULT_P_ERROR / 2.0)


class SeenRange(nn.Module):
    """The range that sums of each channel reach in training.

    Parameters
    ----------
    channels : int
    """

    lowest: torch.Tensor
    highest: torch.Tensor
    batches: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("lowest", torch.zeros(channels))
        self.register_buffer("highest", torch.zeros(channels))
        self.register_buffer("batches", torch.tensor(0))

    @property
    def middle(self) -> torch.Tensor:
        """The middle of each range."""
        return (self.lowest + self.highest) / 2

    @property
    def reach(self) -> torch.Tensor:
        """How wide each range is, with a margin."""
        return (self.highest - self.lowest) * (1 + MARGIN)

    def widen(self, sums: torch.Tensor) -> bool:
        """Widen the ranges to some sums, shape (batch, channels); whether that changed them."""
        low, high = sums.detach().amin(dim=0), sums.detach().amax(dim=0)
        if not int(self.batches):  # the first ones
            self.batches += 1
            self.lowest, self.highest = low, high
            return True
        known = self.lowest, self.highest
        self.lowest, self.highest = torch.minimum(known[0], low), torch.maximum(known[1], high)
        return not (torch.equal(known[0], self.lowest) and torch.equal(known[1], self.highest))

    def follow(self, sums: torch.Tensor) -> None:
        """Widen them to what is seen; narrow them slowly where nothing reaches as far."""
        if int(self.batches):
            kept = 1 - 1 / (1 + MEMORY * int(self.batches))
            middle = self.middle
            self.lowest = middle + (self.lowest - middle) * kept
            self.highest = middle + (self.highest - middle) * kept
        self.widen(sums)
        self.batches += 1

    def take_over(self, other: SeenRange, channels: Any) -> None:
        """Begin with the ranges of some channels of another."""
        self.lowest, self.highest = other.lowest[channels].clone(), other.highest[channels].clone()
        self.batches = other.batches.clone()


class RoundedSums(nn.Module):
    """Rounds sums to the bits that look-ups will read, as training for them does.

    Parameters
    ----------
    channels : int
        How many ranges there are; 1 where ``axis`` is None.
    axis : int or None
        That of the channels; None where all sums share a range.
    kept : int
        Bits that look-ups read.
    exact : bool
        Whether rounding is exact; approximate rounding is noisy in training.
    """

    def __init__(self, channels: int, axis: int | None, kept: int, exact: bool) -> None:
        super().__init__()
        self.axis, self.kept, self.exact = axis, kept, exact
        self.range = SeenRange(channels)

    def forward(self, sums: torch.Tensor) -> torch.Tensor:
        """Rounded sums."""
        moved = sums.unsqueeze(-1) if self.axis is None else sums.movedim(self.axis, -1)
        if self.training:
            self.range.follow(moved.reshape(-1, moved.shape[-1]))
        step = self.range.reach.clamp(min=1e-9) / (2**self.kept - 1)
        start = self.range.middle - self.range.reach / 2
        noisy = self.training and not self.exact
        steps = rounded_with_noise((moved - start) / step, SIGMA if noisy else 0.0)
        rounded = steps * step + start
        return rounded.squeeze(-1) if self.axis is None else rounded.movedim(-1, self.axis)

    def declared(self, sums: torch.Tensor) -> torch.Tensor:
        """The sums as they are, exported with the range that they were rounded in."""
        shape = [1] * sums.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        middle, half = self.range.middle, self.range.reach / 2
        ends = [each.reshape(shape) for each in (middle - half, middle + half)]
        made: torch.Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::SeenRange", (sums, *ends), dtype=sums.dtype, shape=sums.shape, version=1
        )
        return made
