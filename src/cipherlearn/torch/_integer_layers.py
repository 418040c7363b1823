"""Linear layers that train as they will be encrypted: on integers, with the rounding of look-ups.

Forwards, a layer computes with the very integers that its part of a circuit computes with.
Backwards, rounding passes gradients on as they are (straight-through).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from cipherlearn.circuit import IntValue, tabulate
from cipherlearn.quantization.accumulators import AccumulatorPlan, top_of_range
from cipherlearn.torch._differentiable import rounded, rounded_with_noise
from cipherlearn.torch._rounded_sums import SIGMA, SeenRange

#: Steps with which weights of a normal distribution lose least, in deviations, by their bits
#: (Max, Quantizing for minimum distortion, IRE Transactions on Information Theory 6, 1960).
BEST_STEPS = {2: 0.9957, 3: 0.5860, 4: 0.3352, 5: 0.1881, 6: 0.1041, 7: 0.0569, 8: 0.0308}

#: Where weights may be cut off, in deviations, so that sums fill a window. The largest integers
#: stand for what is beyond: with a nearer cut, sums would shrink with their steps for ever.
LEAST_CUT = 1.75

#: Batches after which the bits that rounding takes off are chosen once more.
CHOSEN_AFTER = frozenset({1, 2, 4, 8, 16, 32, 64, 128, 256})

#: How often ranges are widened at most until sums stay within.
MOST_TRIALS = 20

#: Share of the largest value of the first batch that activations are first clipped at.
FIRST_CLIP = 0.8


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


def shrunk(integers: torch.Tensor, values: torch.Tensor, most: int) -> torch.Tensor:
    """Integers whose magnitudes add up to no more than a limit in each row.

    Those that were rounded up most are taken back by one.

    Parameters
    ----------
    integers : torch.Tensor, shape (rows, columns)
        Values, rounded to the nearest.
    values : torch.Tensor, shape (rows, columns)
        Their magnitudes add up to no more than the limit.
    most : int
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


def limited(weight: torch.Tensor, low: int, high: int, most: int) -> list[tuple[torch.Tensor, int]]:
    """Parts of weights, and what their magnitudes may add up to, so that no sum is too large.

    Parameters
    ----------
    weight : torch.Tensor, shape (outputs, inputs)
    low, high : int
        Least and largest value that meets a weight: around 0.
    most : int
        Largest magnitude of a sum.
    """
    if low < 0:
        return [(weight, most // max(-low, high))]
    return [(weight.clamp(min=0), most // high), (weight.clamp(max=0), most // high)]


class IntegerLinear(nn.Module):
    """A product with integer weights, one scale for each output.

    However the weights are trained, sums stay within their bits for any input: the L1 norm of the
    integer weights of an output is limited, as in A2Q+ (Colbert et al., 2024), by the scale, and
    by the choice of what is rounded up.

    Parameters
    ----------
    inputs, outputs : int
        Widths.
    precision : Precision
    """

    def __init__(self, inputs: int, outputs: int, precision: Precision) -> None:
        super().__init__()
        self.precision = precision
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, x: Levels) -> torch.Tensor:
        """Real results."""
        scale = self.scale(x)
        weights = self.integers(scale, x)
        return self._sums(x, weights) * (scale * x.scale) + self.bias

    @property
    def sums(self) -> IntegerGrid:
        """What sums may be, whatever the input."""
        return self.precision.outputs

    @staticmethod
    def _sums(x: Levels, weights: torch.Tensor) -> torch.Tensor:
        """Sums of integers, from their zero on."""
        return x.integers @ weights.T - x.zero * weights.sum(dim=1)

    def scale(self, x: Levels) -> torch.Tensor:
        """What one step of the weights of each output stands for, shape (outputs,)."""
        return self._at_least(self._usual, x)

    @property
    def _usual(self) -> torch.Tensor:
        """Scales with which rounding changes the weights least."""
        spread = self.weight.detach().square().mean(dim=1).sqrt()
        return torch.maximum(spread * BEST_STEPS[self.precision.weights.n_bits], self._finest)

    @property
    def _finest(self) -> torch.Tensor:
        """A scale with which no weight is beyond 16 bits; more than 0."""
        return self.weight.detach().abs().amax(dim=1).clamp(min=1e-12) / 2**15

    def _at_least(self, scale: torch.Tensor, x: Levels) -> torch.Tensor:
        """Scales with which sums are within their bits."""
        weight = self.weight.detach()
        needed = [part.abs().sum(dim=1) / max(most, 1) for part, most in self._limited(weight, x)]
        return self.precision.snapped(torch.stack([scale, *needed]).amax(dim=0))

    def _limited(self, weight: torch.Tensor, x: Levels) -> list[tuple[torch.Tensor, int]]:
        """Parts of weights, and what the magnitudes of their integers may add up to."""
        return limited(weight, x.grid.lo, x.grid.hi, self.sums.hi)

    def integers(self, scale: torch.Tensor, x: Levels) -> torch.Tensor:
        """The integer weights, shape (outputs, inputs), with gradients of the real ones."""
        values = self.weight / scale[:, None]
        with torch.no_grad():
            known = values.clamp(self.precision.weights.lo, self.precision.weights.hi)
            nearest = torch.round(known)
            for number, (reals, most) in enumerate(self._limited(known, x)):
                part, _ = self._limited(nearest, x)[number]
                nearest = nearest - part + shrunk(part, reals, most)
        return nearest + (values - values.detach())

    @torch.no_grad()
    def take_over(self, other: IntegerLinear, rows: Any, columns: Any) -> None:
        """Begin with some outputs and inputs of a layer: what training found of these."""
        self.weight.copy_(other.weight[rows][:, columns])
        self.bias.copy_(other.bias[rows])

    def matrix(self, x: Levels) -> tuple[np.ndarray, np.ndarray]:
        """Integer weights of shape (inputs, outputs), and what a sum counts in."""
        with torch.no_grad():
            scale = self.scale(x)
            weights = self.integers(scale, x)
            return weights.numpy().astype(np.int64).T, (scale * x.scale).numpy().astype(np.float64)


class LookupLinear(IntegerLinear):
    """A product, and a function of each sum that a look-up of few bits gives.

    A look-up reads the upper bits of a sum. These are bits of a window, as wide as the sums of
    training went, and the weights are integers of just the scale with which sums fill it.

    Parameters
    ----------
    inputs, outputs : int
    precision : Precision
    function : torch.nn.Module
        Element-wise.
    """

    lsbs: torch.Tensor

    def __init__(
        self, inputs: int, outputs: int, precision: Precision, function: nn.Module
    ) -> None:
        super().__init__(inputs, outputs, precision)
        self.function = function
        # Bits that rounding takes off (-1: not known yet).
        self.register_buffer("lsbs", torch.tensor(-1))
        self.range = SeenRange(outputs)
        # What activations are clipped to.
        self.low = nn.Parameter(torch.tensor(0.0))
        self.high = nn.Parameter(torch.tensor(1.0))

    @property
    def sums(self) -> IntegerGrid:
        """What sums may be, whatever the input."""
        return self.precision.sums

    @property
    def is_calibrated(self) -> bool:
        """Whether it has seen values."""
        return int(self.lsbs) >= 0

    @property
    def levels(self) -> tuple[torch.Tensor, int]:
        """Scale and zero of activations."""
        grid = self.precision.activations
        low = self.low if float(self.low.detach()) < 0 else self.low.detach() * 0.0
        span = (self.high - low).clamp(min=1e-6)
        scale = span / grid.levels
        # Gradients pass, whatever the scale is snapped to.
        scale = self.precision.snapped(scale.detach()) + (scale - scale.detach())
        zero = grid.lo + round(float(-low.detach() / scale.detach()))
        return scale, zero

    def activations(self, x: Levels) -> Levels:
        """What look-ups give for integers."""
        if self.training and not self.is_calibrated:
            self._calibrate(x)
        elif self.training and int(self.range.batches) in CHOSEN_AFTER:
            self._choose_rounding(x)
        scale = self.scale(x)
        unit = scale * x.scale
        sums = self._sums(x, self.integers(scale, x))
        if self.training:
            self.range.follow((sums * unit).detach())
        placed = (sums + self.offset(unit)).clamp(0, self._top)
        noisy = self.training and not self.precision.is_exact
        steps = rounded_with_noise(placed / self._step, SIGMA if noisy else 0.0)
        return self._looked_up(steps, unit)

    def _looked_up(self, steps: torch.Tensor, unit: torch.Tensor) -> Levels:
        """Activations of steps of the window, counted from 0."""
        sums = (steps * self._step - self.offset(unit)) * unit
        reals = self.function(sums + self.bias)
        scale, zero = self.levels
        grid = self.precision.activations
        return Levels(rounded((reals / scale + zero).clamp(grid.lo, grid.hi)), scale, zero, grid)

    @property
    def _step(self) -> int:
        return int(2 ** int(self.lsbs))

    @property
    def _top(self) -> int:
        return top_of_range(self.precision.lookup_bits, int(self.lsbs))

    def offset(self, unit: torch.Tensor) -> torch.Tensor:
        """What brings sums of a unit to the middle of the window, in integers."""
        if self.precision.is_proved:
            return torch.full_like(unit, self._top // 2).detach()
        return torch.round(self._top / 2 - self.range.middle / unit).detach()

    def scale(self, x: Levels) -> torch.Tensor:
        """What one step of the weights stands for: sums fill the window."""
        if self.precision.is_proved:
            return self._at_least(self._finest, x)
        filling = self.range.reach / (self._top * x.scale.detach())
        largest = self.precision.weights.hi
        cut = self.weight.detach().square().mean(dim=1).sqrt() * LEAST_CUT / largest
        return self._at_least(torch.stack([filling, cut, self._finest]).amax(dim=0), x)

    def _limited(self, weight: torch.Tensor, x: Levels) -> list[tuple[torch.Tensor, int]]:
        parts = super()._limited(weight, x)
        if not self.precision.is_proved:
            return parts
        # Half a window on each side of the zero.
        return [*parts, *limited(weight, x.grid.lo - x.zero, x.grid.hi - x.zero, self._top // 2)]

    @torch.no_grad()
    def _calibrate(self, x: Levels) -> None:
        """Choose how many bits rounding takes off, from a first batch, and first ranges."""
        sums = ((x.integers - x.zero) * x.scale) @ self.weight.T
        self.range.widen(sums)
        self._choose_rounding(x)
        reals = self.function(sums + self.bias)
        self.high.fill_(max(float(reals.max()), 1e-3) * FIRST_CLIP)
        self.low.fill_(min(float(reals.min()), 0.0) * FIRST_CLIP)

    def _choose_rounding(self, x: Levels) -> None:
        """How many bits rounding takes off: as many as let weights have their best steps."""
        most = self.precision.accumulator_bits - self.precision.lookup_bits
        best = self._usual * x.scale.detach()
        filling = torch.log2(
            self.range.reach.clamp(min=1e-9) / (best * self.precision.steps)
        ).median()
        proved = self.precision.is_proved
        self.lsbs.fill_(most if proved else int(filling.round().clamp(0, most)))

    @torch.no_grad()
    def cover(self, x: Levels) -> Levels:
        """Widen ranges to the sums of some integers; gives what look-ups then give."""
        for _ in range(MOST_TRIALS):
            scale = self.scale(x)
            sums = self._sums(x, self.integers(scale, x)) * (scale * x.scale)
            if not self.range.widen(sums):
                break  # a wider range has wider steps, and weights round to other ones
        return self.activations(x)

    @torch.no_grad()
    def take_over(self, other: IntegerLinear, rows: Any, columns: Any) -> None:
        """As `IntegerLinear.take_over`, ranges included."""
        super().take_over(other, rows, columns)
        if isinstance(other, LookupLinear):
            self.range.take_over(other.range, rows)
            self.function.load_state_dict(other.function.state_dict())
            for name in ("lsbs", "low", "high"):
                getattr(self, name).copy_(getattr(other, name))

    def emit(self, value: IntValue, x: Levels) -> tuple[IntValue, Levels]:
        """The layer in a circuit: activations of integers, and what these stand for."""
        weights, unit = self.matrix(x)
        units = torch.tensor(unit, dtype=torch.float32)
        shift = self.offset(units).numpy().astype(np.int64) - x.zero * weights.sum(axis=0)
        top = np.array(self._top)
        plan = AccumulatorPlan(
            np.ones_like(shift),
            shift,
            np.zeros_like(top),
            top,
            int(self.lsbs),
            self.precision.is_exact,
        )
        with torch.no_grad():
            result = tabulate(self._table(units), plan.round(plan.place(value @ weights)))
            levels = self._looked_up(torch.zeros(1, len(unit)), units)
        return result.astype(np.int64), levels  # type: ignore[return-value]

    def _table(self, unit: torch.Tensor) -> Callable[[np.ndarray], np.ndarray]:
        def function(placed: np.ndarray) -> np.ndarray:
            steps = torch.tensor(placed.reshape(-1, 1) / self._step, dtype=torch.float32)
            found = self._looked_up(steps.expand(-1, len(unit)), unit).integers
            return found.numpy().astype(np.float64).reshape(len(placed), 1, -1)

        return function
