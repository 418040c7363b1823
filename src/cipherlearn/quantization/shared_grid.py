"""Operands that are added, compared, or put side by side as integers: what they have in common."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.quantization.base_quantized_op import numbers, requantize
from cipherlearn.quantization.clipping import least_error_quantizer
from cipherlearn.quantization.grid import observed_range
from cipherlearn.quantization.quantized_array import Entries, QuantizedArray
from cipherlearn.quantization.quantizers import (
    STABILITY_CONST,
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)

#: A sum may take this many times finer steps than its largest operand asks for, if that saves the
#: look-ups of another operand.
MOST_REFINEMENT = 4.0

#: Into how many parts a step that training chose is divided at most, to be added to another one.
MOST_PARTS = 16
#: By how much of a step the sizes of steps may differ that count as equal: single precision.
SAME_STEP = 1e-6


@dataclass(frozen=True, eq=False)
class CommonScale:
    """One scale for the operands of a sum; each has a zero-point of its own.

    Parameters
    ----------
    scale : float
    options : QuantizationOptions
        Bits and sign that operands have where nothing is shared.
    kept : mapping of int to int
        Positions of operands that keep their own grid, each with the number of steps of this scale
        in one of its own: their integers are multiplied by it, which costs no look-up.
    """

    scale: float
    options: QuantizationOptions
    kept: Mapping[int, int]

    @classmethod
    def of(
        cls,
        operands: Mapping[int, QuantizedArray],
        constants: Sequence[np.ndarray],
        options: QuantizationOptions,
        read_elsewhere: Collection[int],
    ) -> CommonScale:
        """Choose the scale.

        It is that of the operand with the largest range, unless one that is not much finer saves
        the look-ups of an operand: one that holds integers already, or is quantized elsewhere too.
        A coarser grid of such an operand is divided into steps of about that scale: what it is
        added to may need them.

        Parameters
        ----------
        operands : mapping of int to QuantizedArray
            By position; their quantizers know the observed ranges.
        constants : sequence of numpy.ndarray
            Real operands that are part of the model.
        options : QuantizationOptions
        read_elsewhere : collection of int
            Positions of operands that another operator quantizes as well.
        """
        stats = [operand.quantizer.quant_stats for operand in operands.values()]
        spans = {p: _span(operand) for p, operand in operands.items()}
        largest = max(*spans.values(), max(abs(s.rmax or 0.0) for s in stats) * STABILITY_CONST)
        coarsest = (largest or 1.0) / (2**options.n_bits - 1)
        whole = _common_step([s.step for s in stats], constants)
        grids = {
            position: requantize(operand, _own_options(operand, options)).quantizer
            for position, operand in operands.items()
            if position in read_elsewhere or _on_grid(operand)
        }
        # Whole numbers keep their step only where all operands are whole numbers; the step of an
        # operand that is always the same number says nothing.
        scales = {
            p: float(g.scale)
            for p, g in grids.items()
            if np.size(g.scale) == 1
            and (whole is not None or g.step != g.scale)
            and spans[p] > STABILITY_CONST * largest
        }
        is_shared = len(scales) == len(operands) and len(set(scales.values())) == 1
        parts = {p: 1 if is_shared else _parts(scale, coarsest) for p, scale in scales.items()}
        finer = {p: scale / parts[p] for p, scale in scales.items()}
        near = [s for s in finer.values() if s * MOST_REFINEMENT >= coarsest]
        if whole is not None and largest / whole < 2**options.n_bits:
            near, finer = [float(whole)], scales  # sums of whole numbers are exact
            parts = dict.fromkeys(scales, 1)
        chosen = max(near, default=coarsest)
        return cls(chosen, options, {p: parts[p] for p, scale in finer.items() if scale == chosen})

    @classmethod
    def of_grids(
        cls, operands: Mapping[int, QuantizedArray], options: QuantizationOptions
    ) -> CommonScale:
        """Choose the scale of operands that all keep their grids.

        It is a common part of their steps, or what comes nearest to one: see `inexactness`.

        Parameters
        ----------
        operands : mapping of int to QuantizedArray
            Each on a grid of one scale.
        options : QuantizationOptions
        """
        scales = {p: float(np.max(o.quantizer.scale)) for p, o in operands.items()}
        finest = min(scales.values())

        def differences(parts: int) -> list[float]:
            ratios = [scale * parts / finest for scale in scales.values()]
            return [abs(ratio - round(ratio)) / ratio for ratio in ratios]

        exact = (n for n in range(1, MOST_PARTS + 1) if max(differences(n)) <= SAME_STEP)
        nearest = min(range(1, MOST_PARTS + 1), key=lambda n: max(differences(n)))
        chosen = finest / next(exact, nearest)
        return cls(chosen, options, {p: round(scale / chosen) for p, scale in scales.items()})

    def inexactness(self, operands: Mapping[int, QuantizedArray]) -> float:
        """By how much a sum may differ from that of the reals, in steps of its finest operand."""
        scales = {p: float(np.max(o.quantizer.scale)) for p, o in operands.items()}
        moved = 0.0
        for position, operand in operands.items():
            known = operand.quantizer
            reach = max(abs(limit - known.zero_point) for limit in known.integer_limits)
            difference = abs(scales[position] - self.kept[position] * self.scale)
            moved += difference * reach if difference > SAME_STEP * scales[position] else 0.0
        return moved / min(scales.values())

    def quantize(self, operand: QuantizedArray, position: int) -> QuantizedArray:
        """An encrypted operand: integers from 0 on, unless it keeps its own."""
        if position in self.kept:
            own = requantize(operand, _own_options(operand, self.options))
            return _divided(own, self.kept[position], self.scale)
        stats = operand.quantizer.quant_stats
        low, high = stats.rmin or 0.0, stats.rmax or 0.0
        steps = math.ceil((high - low) / self.scale)
        is_whole = stats.step is not None and stats.step % self.scale == 0
        least = 1 if is_whole else self.options.n_bits
        options = QuantizationOptions(max(least, steps.bit_length()))
        params = UniformQuantizationParameters(self.scale, int(np.rint(-low / self.scale)), 0)
        reals = numbers(operand)
        return QuantizedArray(options.n_bits, reals, options=options, stats=stats, params=params)

    def constant(self, values: Any) -> QuantizedArray:
        """An operand that is part of the model: whole steps, of either sign."""
        integers = np.rint(np.asarray(values, dtype=np.float64) / self.scale).astype(np.int64)
        params = UniformQuantizationParameters(self.scale, 0, 0)
        options = QuantizationOptions(self.options.n_bits)
        return QuantizedArray(options.n_bits, integers, False, options=options, params=params)


@dataclass(frozen=True, eq=False)
class CommonGrid:
    """One scale and zero-point for operands that are compared, or stand side by side.

    Parameters
    ----------
    quantizer : UniformQuantizer
    """

    quantizer: UniformQuantizer

    @classmethod
    def of(
        cls,
        operands: Sequence[QuantizedArray],
        constants: Sequence[np.ndarray],
        options: QuantizationOptions,
    ) -> CommonGrid:
        """Choose the grid: for the ranges of all operands together.

        Integers that lie on one grid already keep it, so that no look-up moves them to another.

        Parameters
        ----------
        operands : sequence of QuantizedArray
            The encrypted ones; their quantizers know the observed ranges.
        constants : sequence of numpy.ndarray
            Real operands that are part of the model.
        options : QuantizationOptions
            Bits and sign of the integers.
        """
        known = operands[0].quantizer
        same = all(
            _on_grid(operand)
            and operand.quantizer == known
            and (known.is_precomputed_qat or known.is_equal(options, ignore_sign_qat=True))
            for operand in operands
        )
        if same and all(_lies_on(known, constant) for constant in constants):
            return cls(known)
        limits = [(o.quantizer.rmin or 0.0, o.quantizer.rmax or 0.0) for o in operands]
        limits += [(float(c.min()), float(c.max())) for c in constants if c.size]
        stats = MinMaxQuantizationStats(
            max(high for _, high in limits), min(low for low, _ in limits)
        )
        stats.step = _common_step([o.quantizer.step for o in operands], constants)
        observed = np.array([stats.rmin, stats.rmax])
        chosen = QuantizedArray(options.n_bits, observed, options=options, stats=stats)
        return cls(chosen.quantizer)

    def quantize(self, operand: QuantizedArray, position: int) -> QuantizedArray:
        """An encrypted operand."""
        del position
        if operand.holds_integers and operand.quantizer == self.quantizer:
            return operand
        return self._quantized(numbers(operand))

    def constant(self, values: Any) -> QuantizedArray:
        """An operand that is part of the model."""
        return self._quantized(np.asarray(values, dtype=np.float64))

    def result(self, integers: Any) -> QuantizedArray:
        """Integers that come from the operands."""
        grid = self.quantizer
        return QuantizedArray(grid.n_bits, integers, False, options=grid, stats=grid, params=grid)

    def _quantized(self, reals: Any) -> QuantizedArray:
        grid = self.quantizer
        return QuantizedArray(grid.n_bits, reals, options=grid, stats=grid, params=grid)


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Operands that stand side by side, each on its own grid: who reads them has weights for each.

    They are not operands of the user's model, but what `cipherlearn.quantization.bypass` writes:
    rows of numbers that a ``Gemm`` reads.

    Parameters
    ----------
    parts : mapping of int to UniformQuantizer
        By the position of the operand.
    quantizer : UniformQuantizer
        Of the result: scale and zero-point are arrays along the axis.
    entries : Entries
        What is known of the entries of the axis.
    """

    parts: Mapping[int, UniformQuantizer]
    quantizer: UniformQuantizer
    entries: Entries

    @classmethod
    def of(cls, operands: Mapping[int, QuantizedArray], options: QuantizationOptions) -> SideBySide:
        """Choose the grids: for least squared error, unless operands are integers already.

        Parameters
        ----------
        operands : mapping of int to QuantizedArray
            By position; they stand along the last of two axes.
        options : QuantizationOptions
            Bits of the integers.
        """
        parts: dict[int, UniformQuantizer] = {}
        scales, zeros, entries = [], [], []
        for position, operand in operands.items():
            values = np.asarray(numbers(operand))
            is_looked_up = not _on_grid(operand)
            known = operand.quantizer
            if is_looked_up:
                known = least_error_quantizer(values, options.n_bits, -1)
            parts[position] = known
            count = values.shape[-1]
            scales.append(np.broadcast_to(known.scale, (1, count)))
            zeros.append(np.broadcast_to(known.zero_point, (1, count)))
            own = operand.entries or Entries.alike(count, is_looked_up, known.integer_limits)
            entries.append(own)
        together = Entries.joined(entries)
        low, high = int(together.lo.min()), int(together.hi.max())
        params = UniformQuantizationParameters(
            np.concatenate(scales, -1), np.concatenate(zeros, -1), -low
        )
        bits = QuantizationOptions((high - low).bit_length(), is_signed=low < 0)
        stats = MinMaxQuantizationStats(
            max(part.rmax or 0.0 for part in parts.values()),
            min(part.rmin or 0.0 for part in parts.values()),
        )
        return cls(parts, UniformQuantizer(bits, stats, params), together)

    def quantize(self, operand: QuantizedArray, position: int) -> QuantizedArray:
        """An encrypted operand, on its own grid."""
        grid = self.parts[position]
        if operand.holds_integers and operand.quantizer == grid:
            return operand
        reals = numbers(operand)
        return QuantizedArray(grid.n_bits, reals, options=grid, stats=grid, params=grid)

    def result(self, integers: Any) -> QuantizedArray:
        """Integers that come from the operands."""
        grid = self.quantizer
        made = QuantizedArray(grid.n_bits, integers, False, options=grid, stats=grid, params=grid)
        made.entries = self.entries
        return made


def _span(operand: QuantizedArray) -> float:
    """Extent of the observed range."""
    stats = operand.quantizer
    return (stats.rmax or 0.0) - (stats.rmin or 0.0)


def _parts(scale: float, coarsest: float) -> int:
    """Into how many parts a step is divided so that it is about as fine as is needed."""
    return max(1, round(scale / coarsest))


def _divided(operand: QuantizedArray, parts: int, scale: float) -> QuantizedArray:
    """The same values as integers of a finer scale."""
    if parts == 1:
        return operand
    q = operand.quantizer
    low, high = (parts * limit for limit in q.integer_limits)
    options = QuantizationOptions(max(1, (high - low).bit_length()), is_signed=low < 0)
    params = UniformQuantizationParameters(scale, parts * q.zero_point, -low)
    integers = operand.qvalues * parts
    return QuantizedArray(options.n_bits, integers, False, options=options, stats=q, params=params)


def _common_step(steps: Sequence[int | None], constants: Sequence[np.ndarray]) -> int | None:
    """Step of the whole numbers that all operands hold, if they do."""
    known = [*steps, *(observed_range(c, is_complete=True).step for c in constants if c.any())]
    return math.gcd(*(step or 0 for step in known)) if all(known) else None


def _own_options(operand: QuantizedArray, options: QuantizationOptions) -> QuantizationOptions:
    """Options as an operator with this operand alone has them: signed if it may be negative."""
    own = options.quant_options
    own.is_signed = (operand.quantizer.rmin or 0.0) < 0
    return own


def _on_grid(operand: QuantizedArray) -> bool:
    """Whether a value is integers that were quantized (not an accumulator)."""
    return operand.holds_integers and not operand.quantizer.no_clipping


def _lies_on(quantizer: UniformQuantizer, constant: np.ndarray) -> bool:
    reals = np.asarray(constant, dtype=np.float64)
    tolerance = 1e-6 * float(np.max(quantizer.scale))
    return bool(np.allclose(quantizer.dequant(quantizer.quant(reals)), reals, atol=tolerance))
