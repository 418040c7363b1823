"""Linear layers that train as they will be encrypted: on integers, with the rounding of look-ups.

Forwards, a layer computes with the very integers that its part of a circuit computes with.
Backwards, rounding passes gradients on as they are (straight-through).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from cipherlearn.circuit import IntValue, tabulate
from cipherlearn.errors import InvalidParameterError
from cipherlearn.quantization.accumulators import AccumulatorPlan, top_of_range
from cipherlearn.torch._differentiable import rounded, rounded_with_noise
from cipherlearn.torch._integer_grids import IntegerGrid, Levels, Precision, one_way, shrunk
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


def check_elementwise(function: nn.Module, values: torch.Tensor) -> None:
    """Raise `InvalidParameterError` unless a function gives a number for each value by itself."""
    found = function(values)
    if found.shape != values.shape or not bool(torch.isfinite(found).all()):
        raise InvalidParameterError(
            f"activation_function gives values of shape {tuple(found.shape)} for {values.numel()} "
            f"sums of shape {tuple(values.shape)}; needed is a number for each"
        )
    rows, columns = (torch.arange(size, device=values.device) for size in values.shape)
    kept = (rows[:, None] + columns) % 2 == 0
    alone = function(torch.where(kept, values, values + 1))
    if not torch.allclose(alone[kept], found[kept], rtol=1e-4, atol=1e-6):
        raise InvalidParameterError(
            "activation_function is not element-wise: one value changes the results of others. A "
            "look-up gives a function of one value each"
        )


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
        return self.precision.snapped(torch.stack([scale, *self._needed(x)]).amax(dim=0))

    def _needed(self, x: Levels) -> list[torch.Tensor]:
        """The least scales with which sums stay within limits."""
        return self._scales(x.grid.lo, x.grid.hi, self.sums.hi)

    def _scales(self, low: int, high: int, most: int, besides: Any = 0.0) -> list[torch.Tensor]:
        """Scales with which sums of values from low to high are no larger than a limit.

        ``besides``, in steps of a scale of 1, is added to the sums.
        """
        parts = one_way(self.weight.detach(), low, high)
        return [(part.abs().sum(dim=1) * top + besides) / most for part, top in parts]

    def _limits(self, x: Levels, unit: torch.Tensor) -> list[tuple[int, int, Any]]:
        """Least and largest value that meets a weight, and how large sums of these may be."""
        del unit
        return [(x.grid.lo, x.grid.hi, self.sums.hi)]

    def integers(self, scale: torch.Tensor, x: Levels) -> torch.Tensor:
        """The integer weights, shape (outputs, inputs), with gradients of the real ones."""
        values = self.weight / scale[:, None]
        with torch.no_grad():
            known = values.clamp(self.precision.weights.lo, self.precision.weights.hi)
            nearest = torch.round(known)
            for low, high, most in self._limits(x, scale * x.scale):
                parts = zip(one_way(known, low, high), one_way(nearest, low, high), strict=True)
                for (reals, top), (part, _) in parts:  # of other signs, or all of them
                    nearest = nearest - part + shrunk(part, reals, most // top)
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
        # Training that diverges is told of when it ends.
        zero = grid.lo + round(
            float(torch.nan_to_num(-low.detach() / scale.detach(), 0.0, 0.0, 0.0))
        )
        return scale, min(max(zero, grid.lo), grid.hi)

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
        placed = (sums + self.offset(unit)).clamp(self._start, self._start + self._top)
        noisy = self.training and not self.precision.is_exact
        steps = rounded_with_noise((placed - self._start) / self._step, SIGMA if noisy else 0.0)
        return self._looked_up(steps, unit)

    def _looked_up(self, steps: torch.Tensor, unit: torch.Tensor) -> Levels:
        """Activations of steps of the window, counted from 0."""
        sums = (steps * self._step + self._start - self.offset(unit)) * unit
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

    @property
    def _start(self) -> int:
        """Where the window begins: around 0, so that it has no more bits than it needs."""
        return -int(2 ** (self.precision.lookup_bits + int(self.lsbs) - 1))

    def offset(self, unit: torch.Tensor) -> torch.Tensor:
        """What brings sums of a unit to the middle of the window, in integers."""
        middle = torch.zeros_like(unit) if self.precision.is_proved else self.range.middle
        return torch.round(self._start + self._top / 2 - middle / unit).detach()

    def scale(self, x: Levels) -> torch.Tensor:
        """What one step of the weights stands for: sums fill the window."""
        spread = self.weight.detach().square().mean(dim=1).sqrt()
        cut = spread * LEAST_CUT / self.precision.weights.hi
        least = torch.maximum(cut, self._finest)
        if self.precision.is_proved:
            return self._at_least(least, x)
        filling = self.range.reach / (self._top * x.scale.detach())
        return self._at_least(torch.maximum(filling, least), x)

    def _needed(self, x: Levels) -> list[torch.Tensor]:
        ends = x.grid.lo - x.zero, x.grid.hi - x.zero
        if self.precision.is_proved:  # half a window on each side of the zero
            return [*super()._needed(x), *self._scales(*ends, max(self._top // 2, 1))]
        # Sums as look-ups read them, from the middle of their range on, are sums as well.
        moved = self.range.middle.abs() / x.scale.detach()
        return [*super()._needed(x), *self._scales(*ends, self.sums.hi - self._step, moved)]

    def _limits(self, x: Levels, unit: torch.Tensor) -> list[tuple[int, int, Any]]:
        ends = x.grid.lo - x.zero, x.grid.hi - x.zero
        room = self.sums.hi - self.offset(unit).abs()
        most = self._top // 2 if self.precision.is_proved else room
        return [*super()._limits(x, unit), (*ends, most)]

    @torch.no_grad()
    def _calibrate(self, x: Levels) -> None:
        """Choose how many bits rounding takes off, from a first batch, and first ranges."""
        sums = ((x.integers - x.zero) * x.scale) @ self.weight.T
        self.range.widen(sums)
        self._choose_rounding(x)
        check_elementwise(self.function, sums + self.bias)
        reals = self.function(sums + self.bias)
        self.high.fill_(max(float(reals.max()), 1e-3) * FIRST_CLIP)
        self.low.fill_(min(float(reals.min()), 0.0) * FIRST_CLIP)

    def _choose_rounding(self, x: Levels) -> None:
        """How many bits rounding takes off: as many as let weights have their best steps."""
        most = self.precision.accumulator_bits - self.precision.lookup_bits
        best = self._usual * x.scale.detach()
        reach = self.range.reach.clamp(min=1e-9)
        if self.precision.is_proved:
            largest = max(x.grid.hi - x.zero, x.zero - x.grid.lo)
            reach = self.weight.detach().abs().sum(dim=1) * 2 * largest * x.scale.detach()
        filling = torch.log2(reach / (best * self.precision.steps)).median()
        self.lsbs.fill_(int(torch.nan_to_num(filling, 0.0).round().clamp(0, most)))

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
            self.function = copy.deepcopy(other.function)
            for part in self.function.modules():  # parameters of single neurons, as of PReLU
                for name, values in list(part.named_parameters(recurse=False)):
                    if len(values) == len(other.bias) > 1:
                        setattr(part, name, nn.Parameter(values[rows].clone()))
            for name in ("lsbs", "low", "high"):
                getattr(self, name).copy_(getattr(other, name))

    @torch.no_grad()
    def reach_of_activations(self, x: Levels) -> tuple[Levels, torch.Tensor]:
        """What activations stand for, and how far those of each neuron vary over the window."""
        unit = self.scale(x) * x.scale
        steps = torch.arange(self.precision.steps + 1, dtype=torch.float32, device=unit.device)
        found = self._looked_up(steps[:, None].expand(-1, len(unit)), unit)
        reach = found.integers.amax(dim=0) - found.integers.amin(dim=0)
        return found, reach * found.scale

    def emit(self, value: IntValue, x: Levels) -> tuple[IntValue, Levels]:
        """The layer in a circuit: activations of integers, and what these stand for."""
        weights, unit = self.matrix(x)
        units = torch.tensor(unit, dtype=torch.float32)
        shift = self.offset(units).numpy().astype(np.int64) - x.zero * weights.sum(axis=0)
        plan = AccumulatorPlan(
            np.ones_like(shift),
            shift,
            np.array(self._start),
            np.array(self._start + self._top),
            int(self.lsbs),
            self.precision.is_exact,
        )
        with torch.no_grad():
            result = tabulate(self._table(units), plan.round(plan.place(value @ weights)))
            levels = self._looked_up(torch.zeros(1, len(unit)), units)
        return result.astype(np.int64), levels  # type: ignore[return-value]

    def _table(self, unit: torch.Tensor) -> Callable[[np.ndarray], np.ndarray]:
        """Activations of what a look-up reads: arrays (n, 1, channels), or one for all of them."""

        def function(placed: np.ndarray) -> np.ndarray:
            read = (placed.reshape(len(placed), -1) - self._start) / self._step
            steps = torch.tensor(read, dtype=torch.float32).expand(-1, len(unit))
            return self._looked_up(steps, unit).integers.numpy().astype(np.float64)[:, None]

        return function
