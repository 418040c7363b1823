"""Integers that networks train on: which there are, what they stand for, and how large sums get."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class IntegerGrid:
    """Integers of some bits.

    Parameters
    ----------
    n_bits : int
    is_signed : bool
        Whether they count from ``-2 ** (n_bits - 1)``, or else from 0.
    is_narrow : bool, default=False
        Whether the smallest is left out.
    """

    n_bits: int
    is_signed: bool
    is_narrow: bool = False

    @property
    def lo(self) -> int:
        """The smallest."""
        return (-(2 ** (self.n_bits - 1)) if self.is_signed else 0) + int(self.is_narrow)

    @property
    def hi(self) -> int:
        """The largest."""
        return 2 ** (self.n_bits - int(self.is_signed)) - 1

    @property
    def levels(self) -> int:
        """Steps from the smallest to the largest."""
        return self.hi - self.lo

    @property
    def largest(self) -> int:
        """The largest magnitude."""
        return max(-self.lo, self.hi)


@dataclass(frozen=True)
class Precision:
    """Bits of a network, and what is guaranteed.

    Parameters
    ----------
    weights, activations : IntegerGrid
    lookup_bits : int
        Bits of a sum that a look-up reads.
    accumulator_bits : int
        Bits of sums, as signed integers: no input leads to more.
    output_bits : int
        Bits of those that are the result.
    is_exact : bool
        Whether rounding before look-ups is exact.
    is_proved : bool
        Whether what look-ups read has room for all that inputs can lead to, and not only for what
        training led to.
    powers_of_two : bool
        Whether scales are powers of two.
    """

    weights: IntegerGrid
    activations: IntegerGrid
    lookup_bits: int
    accumulator_bits: int
    output_bits: int
    is_exact: bool
    is_proved: bool
    powers_of_two: bool

    @property
    def sums(self) -> IntegerGrid:
        """What sums may be."""
        return IntegerGrid(self.accumulator_bits, is_signed=True)

    @property
    def outputs(self) -> IntegerGrid:
        """What results may be."""
        return IntegerGrid(self.output_bits, is_signed=True)

    @property
    def steps(self) -> int:
        """Steps that a look-up tells apart, less one."""
        return int(2**self.lookup_bits) - 1

    def snapped(self, scale: torch.Tensor) -> torch.Tensor:
        """Scales, or the next larger powers of two."""
        return torch.exp2(torch.ceil(torch.log2(scale))) if self.powers_of_two else scale


@dataclass(frozen=True)
class Levels:
    """Integers that stand for ``scale * (integers - zero)``.

    Parameters
    ----------
    integers : torch.Tensor, shape (batch, features)
    scale : torch.Tensor, shape ()
    zero : int
    grid : IntegerGrid
        Those that may occur.
    """

    integers: torch.Tensor
    scale: torch.Tensor
    zero: int
    grid: IntegerGrid


def shrunk(integers: torch.Tensor, values: torch.Tensor, most: int | torch.Tensor) -> torch.Tensor:
    """Integers whose magnitudes add up to no more than a limit in each row.

    Those that were rounded up most are taken back by one.

    Parameters
    ----------
    integers : torch.Tensor, shape (rows, columns)
        Values, rounded to the nearest.
    values : torch.Tensor, shape (rows, columns)
        Their magnitudes add up to no more than the limit.
    most : int or torch.Tensor of shape (rows,)
    """
    size = integers.abs()
    excess = (size.sum(dim=1) - most).clamp(min=0)
    if not bool(excess.any()):
        return integers
    raised = torch.where(size > 0, size - values.abs(), -torch.inf)
    order = raised.argsort(dim=1, descending=True, stable=True)
    place = torch.empty_like(order)
    place.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return integers - torch.sign(integers) * (place < excess[:, None])


def one_way(weight: torch.Tensor, low: int, high: int) -> list[tuple[torch.Tensor, int]]:
    """Weights that can lead a sum to one side together, and the largest value that meets them.

    Parameters
    ----------
    weight : torch.Tensor, shape (outputs, inputs)
    low, high : int
        Least and largest value that meets a weight: around 0, or from 0 on. Only positive weights
        lead to large sums then, and only negative ones to small sums.
    """
    if low < 0:
        return [(weight, max(-low, high))]
    return [(weight.clamp(min=0), high), (weight.clamp(max=0), high)]
