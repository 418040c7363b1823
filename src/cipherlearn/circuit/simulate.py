"""The error model of encrypted execution, vectorised over a batch: ``fhe="simulate"``.

Two things may differ from the exact result. Each table look-up, those inside of products, maxima
and exact roundings included, fails with probability ``p_error`` and then reads a neighbouring
entry. And approximate rounding decides by a noisy value: the parameters are chosen so that noise of
half a step has probability ``p_error``, hence a Gaussian whose standard deviation is half a step
over the corresponding quantile; values near a boundary land on the other side of it, 3 to 6 % of
them at the default ``p_error``.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.circuit.bounds import infer
from cipherlearn.circuit.evaluate import Evaluation, Semantics, check_inputs, evaluate
from cipherlearn.circuit.interval import Interval
from cipherlearn.errors import InvalidParameterError


class NoisySemantics(Semantics):
    """Look-ups that fail now and then, roundings that decide by a noisy value.

    Parameters
    ----------
    p_error : float
        Probability that one look-up reads a wrong entry.
    generator : numpy.random.Generator
        Where the errors come from.
    """

    def __init__(self, p_error: float, generator: np.random.Generator) -> None:
        if not 0.0 < p_error < 1.0:
            raise InvalidParameterError(f"p_error must lie between 0 and 1, not {p_error}")
        self.p_error = p_error
        self.generator = generator
        # Noise of half a step has probability p_error, counting both directions.
        self._half_step_in_sigmas = -NormalDist().inv_cdf(p_error / 2.0)

    def compute(self, primitive: ir.Primitive, *operands: np.ndarray) -> np.ndarray:
        """Result of one primitive on encrypted operands, errors drawn at random."""
        if isinstance(primitive, ir.Lookup):
            return self._lookup(primitive, operands[0])
        if isinstance(primitive, ir.Round):
            draw = self._round_exactly if primitive.exact else self._round
            return draw(primitive, operands[0])
        if isinstance(primitive, ir.Maximum):
            return self._maximum(*operands)
        if isinstance(primitive, ir.Multiply):
            return self._products(*operands)
        if isinstance(primitive, ir.MatMul):
            return self._matrix_product(*operands)
        return kernels.apply(primitive, *operands)

    def _slips(self, shape: tuple[int, ...], p_error: float) -> np.ndarray:
        """By how many entries each look-up misses its own: -1, 0 or 1."""
        slips = np.zeros(math.prod(shape), dtype=np.int64)
        failures = int(self.generator.binomial(slips.size, p_error))
        if failures:
            chosen = self.generator.choice(slips.size, size=failures, replace=False)
            slips[chosen] = self.generator.choice([-1, 1], size=failures)
        return slips.reshape(shape)

    def _lookup(self, primitive: ir.Lookup, value: np.ndarray) -> np.ndarray:
        rows = kernels.table_rows(primitive, value) + self._slips(value.shape, self.p_error)
        return kernels.gather(primitive.table, np.clip(rows, 0, primitive.table.shape[0] - 1))

    def _round_exactly(self, primitive: ir.Round, value: np.ndarray) -> np.ndarray:
        # One look-up for each removed bit, any of which may carry wrongly.
        any_error = -math.expm1(primitive.lsbs * math.log1p(-self.p_error))
        slips = self._slips(value.shape, any_error)
        return kernels.apply(primitive, value) + (slips << primitive.lsbs)

    def _round(self, primitive: ir.Round, value: np.ndarray) -> np.ndarray:
        step = 1 << primitive.lsbs
        sigma = step / 2.0 / self._half_step_in_sigmas
        noise = self.generator.normal(0.0, sigma, size=value.shape)
        decided = np.floor((value + noise) / step + 0.5).astype(np.int64) * step
        lowest, highest = neighbours(value, value, step)
        return np.clip(decided, lowest, highest)

    def _maximum(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        # One look-up on the difference.
        difference = left - right
        slips = self._slips(difference.shape, self.p_error)
        return np.maximum(difference + slips, 0) + right

    def _products(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Element-wise products as two look-ups each: quarters of squared sum and difference."""
        return left * right + self._quarter_error(left + right) - self._quarter_error(left - right)

    def _quarter_error(self, value: np.ndarray) -> np.ndarray:
        # (v + s)**2 // 4 - v**2 // 4 for a slip s: the squares themselves might not fit int64.
        slips = self._slips(value.shape, self.p_error)
        return (value * slips + np.abs(slips)) // 2

    def _matrix_product(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        total = np.zeros_like(kernels.apply(ir.MatMul(), left, right))
        for term in range(left.shape[-1]):
            column, row = (..., slice(term, term + 1)), (..., slice(term, term + 1), slice(None))
            total += self._products(left[column], right[row])
        return total


def simulate(
    circuit: ir.Circuit, *inputs: np.ndarray, p_error: float, random_state: int = 0
) -> Evaluation:
    """Run a circuit in the clear, with the errors that encrypted execution may make.

    Parameters
    ----------
    circuit : Circuit
    *inputs : numpy.ndarray of integers, each of shape (batch, *shape)
    p_error : float
        Probability that one look-up reads a wrong entry.
    random_state : int, default=0
        Seed: the same one gives the same errors.
    """
    generator = np.random.default_rng(random_state)
    return evaluate(circuit, *inputs, semantics=NoisySemantics(p_error, generator))


def allowed_results(
    circuit: ir.Circuit, *inputs: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ranges that hold every result that a correct engine may return.

    Exact circuits allow one result. Approximate rounding allows both multiples next to a value;
    what follows from either is propagated by interval arithmetic.

    Parameters
    ----------
    circuit : Circuit
    *inputs : numpy.ndarray of integers, each of shape (batch, *shape)

    Returns
    -------
    list of (lowest, highest), one pair an output, each array of shape (batch, *shape)
    """
    arrays = check_inputs(circuit, inputs)
    rows = [_allowed_of_row(circuit, [a[i] for a in arrays]) for i in range(arrays[0].shape[0])]
    results = []
    for place, node in enumerate(circuit.output_nodes):
        shape = (len(rows), *node.shape)
        lowest = np.array([row[place].lo for row in rows], dtype=np.int64).reshape(shape)
        highest = np.array([row[place].hi for row in rows], dtype=np.int64).reshape(shape)
        results.append((lowest, highest))
    return results


def neighbours(lo: np.ndarray, hi: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Multiples of ``step`` around a range: the last one below, the first one above."""
    return lo // step * step, -(-hi // step) * step


def _allowed_of_row(circuit: ir.Circuit, row: list[np.ndarray]) -> list[Interval]:
    given = iter(row)
    ranges: list[Interval] = []
    for node in circuit.nodes:
        operands = [ranges[index] for index in node.inputs]
        if isinstance(node.primitive, ir.Input):
            value = next(given)
            ranges.append(Interval(value, value))
        elif node.encrypted and isinstance(node.primitive, ir.Round) and not node.primitive.exact:
            step = 1 << node.primitive.lsbs
            ranges.append(Interval(*neighbours(operands[0].lo, operands[0].hi, step), step))
        else:
            ranges.append(infer(node.primitive, *operands))
    return [ranges[index] for index in circuit.outputs]
