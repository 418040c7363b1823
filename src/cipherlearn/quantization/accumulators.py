"""What happens to an accumulator before its look-up: range, offset, factor, rounding.

An accumulator's look-up costs by its width, so its range is made as small and as full as possible.
Three things are free: a constant added per channel, an integer factor per channel (it joins the
weights), and any function per channel in the table that follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gamma
from scipy.stats import gennorm

from cipherlearn.circuit import Interval, IntValue
from cipherlearn.ops._integer import Affine
from cipherlearn.quantization.n_bits import Rounding
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
)

#: Share of accumulators that is expected outside of an observed range, on each side.
OUTSIDE = 5e-6
#: Shapes of generalised normal distributions: from the heavy tails of Laplace's to nearly none.
_SHAPES = np.linspace(1.0, 8.0, 200)
#: Bits spent on fitting the range of every channel to the rounding step.
FILL_BITS = 3
#: A channel's factor may amplify its weights to this multiple of the typical channel's at most.
NOISE_CAP = 2.0


@dataclass(frozen=True)
class Observed:
    """What calibration data showed of an accumulator, per channel.

    Parameters
    ----------
    lo, hi : numpy.ndarray of int64
        Observed range, widened by a margin; axis 0, the batch, has extent 1.
    """

    lo: np.ndarray
    hi: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, channel_axis: int | None) -> Observed:
        """Range of a batch of accumulators; axis 0 is the batch.

        Parameters
        ----------
        values : numpy.ndarray of int64
        channel_axis : int or None
            Axis whose entries have ranges of their own.
        """
        keep = None if channel_axis is None else channel_axis % values.ndim
        lo, hi = expected_range(values, tuple(a for a in range(values.ndim) if a != keep))
        return cls(np.floor(lo).astype(np.int64), np.ceil(hi).astype(np.int64))

    @classmethod
    def along(
        cls, values: np.ndarray, channel_axis: int | None, sample: tuple[int, ...]
    ) -> Observed:
        """Ranges apart along the channels, unless that is where the rows of the batch are.

        Parameters
        ----------
        values : numpy.ndarray of int64
        channel_axis : int or None
        sample : tuple of int
            Shape of the accumulators of one row.
        """
        if channel_axis is not None and values.ndim >= 2:
            for candidate in (channel_axis, -2):
                observed = cls.of(values, candidate)
                if fits_sample(observed.lo.shape, sample):
                    return observed
        return cls.of(values, None)

    def widened(self, proved: Interval) -> Observed:
        """The ranges that can occur at all, apart along the same channels."""
        return Observed(*_proved_per_channel(proved, self))

    @property
    def shared_axes(self) -> tuple[int, ...]:
        """Axes along which elements share a range."""
        return tuple(axis for axis, extent in enumerate(self.lo.shape) if extent == 1)


def expected_range(values: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The range that values like these are expected to stay in.

    Parameters
    ----------
    values : numpy.ndarray
        Calibration data, real or integer.
    axes : tuple of int
        Axes that share one range; they are kept, with extent 1.

    Returns
    -------
    lo, hi : numpy.ndarray of float64
        Each side reaches as far as the values did, and at least as far as a generalised normal
        distribution of their spread and kurtosis does with probability 1 - `OUTSIDE`: few rows do
        not show the tails.
    """
    centre = values.mean(axis=axes, keepdims=True)
    above = np.maximum(values - centre, 0.0)
    below = np.maximum(centre - values, 0.0)
    return centre - _reach(below, axes), centre + _reach(above, axes)


def _reach(distances: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """How far one side is expected to reach; distances are 0 for values of the other side."""
    variance = 2.0 * np.square(distances).mean(axis=axes, keepdims=True)
    fourth = 2.0 * np.power(distances, 4).mean(axis=axes, keepdims=True)
    seen = distances.max(axis=axes, keepdims=True)
    alive = variance > 0
    if not alive.any():
        return seen
    # Few rows tell little about one channel's tails: half of it is taken from all channels.
    log = np.log(fourth[alive] / np.square(variance[alive]))
    kurtosis = np.exp((log + log.mean()) / 2.0)
    shape = np.interp(-kurtosis, -_kurtosis(_SHAPES), _SHAPES)
    spread = np.sqrt(variance[alive] * gamma(1.0 / shape) / gamma(3.0 / shape))
    reach = np.zeros_like(seen)
    reach[alive] = gennorm.isf(OUTSIDE, shape) * spread
    return np.maximum(reach, seen)


def _kurtosis(shape: np.ndarray) -> np.ndarray:
    """Kurtosis of a generalised normal distribution, which decreases with its shape."""
    return gamma(5.0 / shape) * gamma(1.0 / shape) / np.square(gamma(3.0 / shape))


@dataclass(frozen=True)
class AccumulatorPlan:
    """How one accumulator is brought to its look-up: ``round(factor * accumulator + offset)``.

    Parameters
    ----------
    factor, offset : numpy.ndarray of int64
        Per channel; they broadcast against one sample.
    lo, hi : numpy.ndarray of int64 or None
        Declared range after factor and offset; None if the proved range is used.
    lsbs : int
        Bits that rounding removes.
    exact : bool
        Whether rounding is exact.
    """

    factor: np.ndarray
    offset: np.ndarray
    lo: np.ndarray | None
    hi: np.ndarray | None
    lsbs: int = 0
    exact: bool = True

    @classmethod
    def unchanged(cls) -> AccumulatorPlan:
        """The accumulator is read as it is."""
        return cls(np.ones((), np.int64), np.zeros((), np.int64), None, None)

    @property
    def is_proved(self) -> bool:
        """Whether no accumulator can leave its range, whatever the input."""
        return self.lo is None

    def place(self, accumulator: Any) -> Any:
        """The accumulator with factor, offset and range (arrays and values of a circuit alike)."""
        placed = accumulator
        if (self.factor != 1).any():
            placed = placed * self.factor
        if self.offset.any():
            placed = placed + self.offset
        if self.lo is None or self.hi is None:
            return placed
        if isinstance(placed, IntValue):
            return placed.assume(self.lo, self.hi)
        return np.clip(placed, self.lo, self.hi)

    def round(self, placed: Any) -> Any:
        """What a look-up reads of the placed accumulator."""
        if isinstance(placed, IntValue):
            return placed.round(self.lsbs, exact=self.exact)
        if not self.lsbs:
            return placed
        half = 1 << (self.lsbs - 1)
        return ((placed + half) >> self.lsbs) << self.lsbs


def plan_accumulator(
    proved: Interval,
    observed: Observed,
    rounding: Rounding | None,
    least_saving: float = 1,
    lsbs: int | None = None,
) -> AccumulatorPlan:
    """Choose range, factor, offset and rounding of an accumulator.

    The proved range is kept if the observed one would not make the look-up narrower.

    Parameters
    ----------
    proved : Interval
        What interval arithmetic shows for one sample.
    observed : Observed
        What calibration data showed.
    rounding : Rounding or None
        Bits to keep, if any.
    least_saving : float, default=1
        Bits that the observed range must save, unless the accumulator is rounded: outside of it,
        encrypted results are wrong.
    lsbs : int or None, default=None
        Bits that rounding removes, where the weights were chosen for it. By default as many as the
        range asks for, and factors make every channel fill it.
    """
    lo, hi = _proved_per_channel(proved, observed)
    narrow_lo = np.clip(observed.lo, lo, hi)
    narrow_hi = np.clip(observed.hi, narrow_lo, hi)
    centre = (narrow_lo + narrow_hi) / 2
    if rounding is not None and lsbs:
        return _rounded(lo, hi, centre, rounding, np.ones_like(lo), lsbs)
    if rounding is not None and _extent(narrow_lo, narrow_hi) >= 2 ** int(rounding.n_bits):
        factor, lsbs = _filling(lo, hi, narrow_hi - narrow_lo, int(rounding.n_bits))
        return _rounded(lo, hi, centre, rounding, np.floor(factor).astype(np.int64), lsbs)
    width = _extent(narrow_lo, narrow_hi).bit_length()
    if _extent(lo, hi).bit_length() - width < least_saving:
        return AccumulatorPlan(np.ones_like(lo), -lo, None, None)
    # The width is paid for whole: centre each channel in it, the slack is a free margin.
    top = 2**width - 1
    offset = -narrow_lo + (top - (narrow_hi - narrow_lo)) // 2
    return AccumulatorPlan(np.ones_like(lo), offset, np.zeros_like(lo), np.full_like(lo, top))


def plan_as_trained(
    proved: Interval,
    observed: Observed,
    trained: tuple[np.ndarray, np.ndarray],
    accumulator: Affine,
    rounding: Rounding,
) -> AccumulatorPlan:
    """Round an accumulator in the steps that training was done for.

    Steps and borders differ from those of training by what whole factors and offsets allow. Where
    calibration data leaves a range, because training was short, the one that is observed counts.

    Parameters
    ----------
    proved : Interval
        What interval arithmetic shows for one sample.
    observed : Observed
        What calibration data showed.
    trained : tuple of numpy.ndarray of float
        The smallest and the largest real value of the ``2**rounding.n_bits`` steps; they broadcast
        against the accumulator.
    accumulator : Affine
        Of the calibration data.
    rounding : Rounding
    """
    lo, hi = _proved_per_channel(proved, observed)
    axes, shape = observed.shared_axes, observed.lo.shape
    ends = [np.asarray(e) / accumulator.scale + accumulator.zero_point for e in trained]
    start, end = (np.broadcast_to(e, np.broadcast_shapes(e.shape, shape)) for e in ends)
    start, end = start.min(axis=axes, keepdims=True), end.max(axis=axes, keepdims=True)
    seen = accumulator.integers
    start = np.where(seen.min(axis=axes, keepdims=True) < start, observed.lo, start)
    end = np.where(seen.max(axis=axes, keepdims=True) > end, observed.hi, end)
    factor, lsbs = _filling(lo, hi, end - start, int(rounding.n_bits))
    whole = np.rint(factor).astype(np.int64)
    return _rounded(lo, hi, (start + end) / 2, rounding, whole, lsbs)


def _filling(
    lo: np.ndarray, hi: np.ndarray, extents: np.ndarray, kept: int
) -> tuple[np.ndarray, int]:
    """Factors with which every channel fills the ``2**kept`` steps, and the bits of one step.

    The factors, real numbers, are at least 1, and capped where a channel's range is small against
    its weights, since they amplify noise as well.
    """
    extents = np.maximum(extents, 1)
    lsbs = 1
    while top_of_range(kept, lsbs) < extents.max():
        lsbs += 1
    lsbs += FILL_BITS
    factor = top_of_range(kept, lsbs) / extents
    weight = np.maximum(hi - lo, 1).astype(np.float64)
    typical = np.median(np.floor(factor) * weight)
    most = np.maximum(1, NOISE_CAP * typical // weight)
    return np.clip(factor, 1, most), lsbs


def _rounded(
    lo: np.ndarray,
    hi: np.ndarray,
    centre: np.ndarray,
    rounding: Rounding,
    factor: np.ndarray,
    lsbs: int,
) -> AccumulatorPlan:
    """The plan that rounds to steps of ``2**lsbs``; the centres of channels are in the middle."""
    top = top_of_range(int(rounding.n_bits), lsbs)
    offset = np.floor(top / 2 - factor * centre).astype(np.int64)
    if bool((factor * lo + offset >= 0).all() and (factor * hi + offset <= top).all()):
        return AccumulatorPlan(factor, offset, None, None, lsbs, rounding.exact)
    declared = np.zeros_like(lo), np.full_like(lo, top)
    return AccumulatorPlan(factor, offset, *declared, lsbs, rounding.exact)


def top_of_range(kept: int, lsbs: int) -> int:
    """Largest value that rounds to fewer than ``2**kept`` steps of ``2**lsbs``, noise included.

    Above the last step, approximate rounding might decide for one that does not exist.
    """
    return ((1 << kept) - 1) << lsbs


def _extent(lo: np.ndarray, hi: np.ndarray) -> int:
    return int((hi - lo).max())


def _proved_per_channel(proved: Interval, observed: Observed) -> tuple[np.ndarray, np.ndarray]:
    """The proved range, reduced to the axes along which ranges are kept apart."""
    axes = observed.shared_axes
    lo = proved.lo.min(axis=axes, keepdims=True)
    return lo, proved.hi.max(axis=axes, keepdims=True)


def plain_sum(
    accumulator: Affine,
    limits: tuple[int, int] | None,
    stats: MinMaxQuantizationStats | None,
    is_grid: bool,
) -> QuantizedArray | None:
    """A sum as integers of one scale and zero-point; None if it does not have these.

    Parameters
    ----------
    accumulator : Affine
    limits : tuple of int or None
        Its proved range, where that is known.
    stats : MinMaxQuantizationStats or None
        Its observed range, in reals.
    is_grid : bool
        Whether these integers are never to be quantized.
    """
    scale, zero = squeezed(accumulator.scale), single(accumulator.zero_point)
    if np.size(scale) != 1 or zero is None or not limits:
        return None
    low, high = limits
    options = QuantizationOptions((high - low).bit_length(), is_qat=is_grid)
    options.is_precomputed_qat = is_grid
    params = UniformQuantizationParameters(scale, zero, -low)
    integers = accumulator.integers
    return QuantizedArray(
        options.n_bits, integers, False, options=options, stats=stats, params=params
    )


def single(zero_point: Any) -> int | None:
    """The zero-point that all elements share, if it is a whole number."""
    array = np.asarray(zero_point, dtype=np.float64)
    first = float(array.flat[0])
    return int(first) if first.is_integer() and bool((array == first).all()) else None


def squeezed(value: Any) -> Any:
    """Arrays of one entry as plain numbers."""
    array = np.asarray(value)
    return array.reshape(-1)[0].item() if array.size == 1 else array


def same_steps(left: Affine, right: Affine) -> bool:
    """Whether integers stand for the same real values."""
    pairs = ((left.scale, right.scale), (left.zero_point, right.zero_point))
    return all(np.array_equal(squeezed(one), squeezed(other)) for one, other in pairs)


def fits_sample(observed: tuple[int, ...], proved: tuple[int, ...]) -> bool:
    """Whether observed ranges belong to the channels of one row."""
    return len(observed) == len(proved) and all(
        extent in (1, known) for extent, known in zip(observed, proved, strict=True)
    )
