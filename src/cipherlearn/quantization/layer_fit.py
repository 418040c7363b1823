"""Choosing the integer weights of one layer for the look-up that reads it.

Everything here is per output channel: the step of its weights is free, because it ends up in the
table (or in the client's dequantization). Where the accumulator is rounded to ``k`` bits, the step
is chosen so that the channel's range fills these; elsewhere, so that the error is least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cipherlearn.quantization.accumulators import NOISE_CAP, expected_range, top_of_range
from cipherlearn.quantization.least_squares import Moments, QuadraticForm, round_weights

#: Steps that are tried where the error decides, relative to the one that just holds all weights.
STEPS = np.linspace(0.35, 1.1, 16)

#: Widest accumulator: more bits would say nothing that rounding leaves.
MOST_BITS = 16

#: Weights that fill a range are bounded by that range alone.
LARGEST_WEIGHT = 2**MOST_BITS

#: Weights of fresh inputs, beside inputs from look-ups, are about this large at most.
LARGEST_FRESH = 2**11 - 1

#: A range that rounding of the weights has widened is corrected this often at most.
CORRECTIONS = 10
#: By so much more than needed, so that few corrections are enough.
SLACK = 1.002


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer as a matrix product, with calibration data.

    Parameters
    ----------
    inputs : numpy.ndarray of shape (rows, inputs)
        Integers of the operand, less their zero-point.
    targets : numpy.ndarray of shape (rows, channels)
        Float results of the float model.
    weights : numpy.ndarray of shape (channels, inputs)
        Float weights, in the units of the inputs.
    """

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    @cached_property
    def solution(self) -> tuple[np.ndarray, QuadraticForm]:
        """Real weights of least error, and the quadratic form of the error: see `Moments`."""
        return Moments.of(self.inputs, self.targets).solution(self.weights)

    def extents(self, weights: np.ndarray, proved: np.ndarray) -> np.ndarray:
        """How far the accumulators of each channel reach, from the lowest to the highest.

        Parameters
        ----------
        weights : numpy.ndarray of shape (channels, inputs)
        proved : numpy.ndarray of shape (inputs,), or of size 0
            Extents of the inputs, for what can occur at all; otherwise what is to be expected.
        """
        if proved.size:
            return np.abs(weights) @ proved
        lo, hi = expected_range(self.inputs @ weights.T, (0,))
        return (hi - lo)[0]


@dataclass(frozen=True, eq=False)
class Fit:
    """Integer weights: ``result = scale * (inputs @ integers.T)``, and a constant a channel.

    Parameters
    ----------
    integers : numpy.ndarray of int64, shape (channels, inputs)
    scale : numpy.ndarray of shape (channels,)
    """

    integers: np.ndarray
    scale: np.ndarray


def fit_least_error(layer: Layer, limit: int, noisy: bool) -> Fit:
    """Weights of at most ``limit``, with the step of least error for each channel.

    Parameters
    ----------
    layer : Layer
    limit : int
    noisy : bool
        Whether the inputs come from look-ups. The channel that amplifies their noise most decides
        the price; none is to do so more than it would with one step for all channels.
    """
    wanted, hessian = layer.solution
    sizes = np.abs(wanted).max(axis=1)
    largest = np.where(sizes > 0, sizes, 1.0) / limit
    least_step = np.zeros(len(wanted))
    if noisy and sizes.any():
        norms = np.linalg.norm(wanted, axis=1)
        least_step = norms / norms.max() * sizes.max() / limit
    best = Fit(np.zeros(wanted.shape, np.int64), largest)
    least = np.full(len(wanted), np.inf)
    for share in STEPS:
        tried = np.maximum(largest * share, least_step)
        integers = round_weights(wanted, hessian, tried, limit)
        scale = _refitted(integers, wanted, hessian, tried)
        error = hessian.of(wanted - scale[:, None] * integers)
        better = error < least
        best = Fit(
            np.where(better[:, None], integers, best.integers),
            np.where(better, scale, best.scale),
        )
        least = np.where(better, error, least)
    return best


def _refitted(
    integers: np.ndarray, wanted: np.ndarray, hessian: QuadraticForm, scale: np.ndarray
) -> np.ndarray:
    """The steps of least error for given integers."""
    product = integers @ hessian.matrix
    norm = hessian.of(integers.astype(np.float64))
    refitted = np.einsum("ci,ci->c", product, wanted) / np.where(norm > 0, norm, 1.0)
    return np.where((norm > 0) & (refitted > 0), refitted, scale)


def bits_to_round(
    layers: Sequence[Layer], limit: int, kept: int, noisy: np.ndarray, proved: np.ndarray
) -> int:
    """Bits that rounding takes off if a typical channel's largest weight is ``limit``.

    Where only some inputs come from look-ups, that is the largest weight of these: they decide the
    price, and those of fresh inputs with few levels (zeros and ones) are far larger.

    Parameters
    ----------
    layers : sequence of Layer
        The groups of one layer, which is rounded as a whole.
    limit : int
    kept, noisy, proved
        As for `fit_to_range`.
    """
    every = _typical_reach(layers, proved, np.ones_like(noisy))
    typical = limit * every
    if noisy.any() and not noisy.all():
        own = _typical_reach(layers, proved, noisy)
        typical = min(limit * (own or every), LARGEST_FRESH * every)
    return max(1, min(round(np.log2((typical or 1.0) / (2**kept - 1))), MOST_BITS - kept))


def _typical_reach(layers: Sequence[Layer], proved: np.ndarray, chosen: np.ndarray) -> float:
    """How far a typical channel reaches if its largest weight, of some inputs, is 1; 0 if none."""
    shares = []
    for layer in layers:
        wanted = layer.solution[0]
        extents, largest = layer.extents(wanted, proved), np.abs(wanted * chosen).max(axis=1)
        alive = (extents > 0) & (largest > 0)
        shares.append(extents[alive] / largest[alive])
    together = np.concatenate(shares)
    return float(np.median(together)) if together.size else 0.0


def fit_to_range(layer: Layer, lsbs: int, kept: int, noisy: np.ndarray, proved: np.ndarray) -> Fit:
    """Weights whose accumulators fill the range that is rounded to ``kept`` bits.

    Parameters
    ----------
    layer : Layer
    lsbs : int
        Bits that rounding takes off: see `bits_to_round`.
    kept : int
        Bits that the look-up reads.
    noisy : numpy.ndarray of bool, shape (inputs,)
        Whether inputs come from look-ups: large weights amplify their noise.
    proved : numpy.ndarray of shape (inputs,), or of size 0
        Extents of the inputs, if no input may leave the range; observed ranges count otherwise.
    """
    wanted, hessian = layer.solution
    extents = layer.extents(wanted, proved)
    alive = extents > 0
    if not alive.any():
        return Fit(np.zeros(wanted.shape, np.int64), np.ones(len(wanted)))
    extents = np.where(alive, extents, extents[alive].min())
    top = top_of_range(kept, lsbs)
    scale = extents / top
    if noisy.any():
        norms = np.linalg.norm(wanted * noisy, axis=1)
        scale = np.maximum(scale, norms / (NOISE_CAP * np.median(norms[alive] / scale[alive])))
    integers = round_weights(wanted, hessian, scale, LARGEST_WEIGHT)
    for _ in range(CORRECTIONS):
        found = layer.extents(integers, proved)
        over = found > top
        if not over.any():
            break
        scale = np.where(over, scale * SLACK * found / top, scale)
        integers[over] = round_weights(wanted[over], hessian, scale[over], LARGEST_WEIGHT)
    if proved.size:
        # A promise: rounded towards zero, no channel reaches farther than its share.
        share = np.minimum(top / np.maximum(layer.extents(integers, proved), 1.0), 1.0)
        integers = np.fix(integers * share[:, None]).astype(np.int64)
        scale = scale / share
    return Fit(integers, scale)
