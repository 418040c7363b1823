"""Noise that an engine's optimizer does not see, because it takes all noise to be independent.

The optimizer chooses parameters for the noise that sums of independent ciphertexts have. Where one
ciphertext reaches a sum on several ways (``x + x``, a bit that is selected twice, two matrix
products in a row), its noise adds up with itself, and results would be wrong far more often than
``p_error`` says. This module compares the two for every value that is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.engines._regions import Regions, behind, reduced

#: Elements of one value for all sources at once; beyond, random signs stand in for the sources.
MOST_ELEMENTS = 2**20

#: Random combinations of sources, and the factor for their being few.
PROBES, PROBE_MARGIN = 64, 1.5

#: Integers by the positions of the node that uses them and of the clear operand that they are.
Weights = dict[tuple[int, int], np.ndarray]

#: What multiplies and adds elements of an encrypted operand.
_MIXING = (ir.MatMul, ir.Convolve, ir.Sum)


@dataclass(frozen=True)
class _Estimate:
    """What the optimizer believes of one value.

    Parameters
    ----------
    variance : float
        Largest variance of an element, where that of every source is one.
    sources : frozenset of int
        Positions of the inputs and look-ups that the value is computed from.
    apart : bool
        Whether no two elements share a source's element.
    right : bool
        Whether the variance is a bound: nothing was added to itself.
    """

    variance: float
    sources: frozenset[int]
    apart: bool
    right: bool


def missing_variance(circuit: ir.Circuit, regions: Regions, reduce: bool) -> dict[int, float]:
    """Variance that the optimizer leaves out, for every value that is read and lacks some.

    Parameters
    ----------
    circuit : Circuit
        A legalized one.
    regions : Regions
    reduce : bool
        Whether constants are reduced to the width of their region.

    Returns
    -------
    dict of int to float
        By position, in units of the variance of one input or look-up.
    """
    weights = _weights(circuit, regions, reduce)
    estimates: dict[int, _Estimate] = {}
    for position, node in enumerate(circuit.nodes):
        if node.encrypted:
            estimates[position] = _estimate(position, node, circuit, weights, estimates)
    read = {behind(circuit, operand) for _, operand in regions.read}
    read |= {behind(circuit, position) for position in circuit.outputs}
    missing = {}
    for position in sorted(read):
        if not estimates[position].right:
            true = _true_variance(position, circuit, weights, estimates[position].sources)
            lacking = true - estimates[position].variance
            if lacking > 1e-9 * true:
                missing[position] = lacking
    return missing


def _weights(circuit: ir.Circuit, regions: Regions, reduce: bool) -> Weights:
    """For each encrypted node and clear operand, the integers that multiply, or their bounds."""
    weights = {}
    for position, node in enumerate(circuit.nodes):
        if not node.encrypted:
            continue
        for index in node.inputs:
            operand = circuit.nodes[index]
            if operand.is_constant and reduce:
                weights[position, index] = reduced(operand.interval.lo, regions.width[position])
            elif not operand.encrypted:
                interval = operand.interval
                larger = np.abs(interval.hi) >= np.abs(interval.lo)
                weights[position, index] = np.where(larger, interval.hi, interval.lo)
    return weights


def _estimate(
    position: int,
    node: ir.Node,
    circuit: ir.Circuit,
    weights: Weights,
    estimates: dict[int, _Estimate],
) -> _Estimate:
    primitive = node.primitive
    if isinstance(primitive, (ir.Input, ir.Lookup)):
        return _Estimate(1.0, frozenset({position}), True, True)
    operands = [estimates[index] for index in node.inputs if circuit.nodes[index].encrypted]
    clear = [weights[position, i] for i in node.inputs if not circuit.nodes[i].encrypted]
    sources = frozenset().union(*(operand.sources for operand in operands))
    disjoint = len(sources) == sum(len(operand.sources) for operand in operands)
    same_size = all(circuit.nodes[i].size == node.size for i in node.inputs if i in estimates)
    apart = disjoint and all(operand.apart for operand in operands)
    right = all(operand.right for operand in operands)
    variances = [operand.variance for operand in operands]
    if isinstance(primitive, _MIXING):
        gain = _largest_gain(primitive, circuit, node, clear)
        single = node.size == 1
        return _Estimate(variances[0] * gain, sources, single, right and operands[0].apart)
    if isinstance(primitive, (ir.Add, ir.Subtract)):
        return _Estimate(sum(variances), sources, apart and same_size, right and disjoint)
    if isinstance(primitive, ir.Multiply):
        gain = float(np.abs(clear[0]).max()) ** 2
        return _Estimate(variances[0] * gain, sources, apart and same_size, right)
    if isinstance(primitive, ir.Index):
        places = np.arange(circuit.nodes[node.inputs[0]].size).reshape(
            circuit.nodes[node.inputs[0]].shape
        )
        chosen = kernels.apply(primitive, places[None])
        apart = apart and np.unique(chosen).size == chosen.size
    elif isinstance(primitive, ir.Broadcast):
        apart = apart and same_size
    return _Estimate(max(variances), sources, apart, right)


def _largest_gain(
    primitive: ir.Primitive, circuit: ir.Circuit, node: ir.Node, clear: list[np.ndarray]
) -> float:
    """Factor on the variance of independent elements of equal variance."""
    ones = [
        np.ones(circuit.nodes[index].shape)
        if circuit.nodes[index].encrypted
        else clear[0].astype(np.float64) ** 2
        for index in node.inputs
    ]
    return float(kernels.apply(primitive, *(part[None] for part in ones)).max())


def _true_variance(
    position: int,
    circuit: ir.Circuit,
    weights: Weights,
    sources: frozenset[int],
) -> float:
    """Largest variance of an element, with every way from a source counted together."""
    count = sum(circuit.nodes[source].size for source in sources)
    needed = _between(circuit, position, sources)
    largest = max(circuit.nodes[index].size for index in needed)
    exact = count * largest <= MOST_ELEMENTS
    rows = count if exact else PROBES
    positive = any(_is_open(i, circuit) for p in needed for i in circuit.nodes[p].inputs)
    if positive:
        # What the client gives in the clear may have any sign: let nothing cancel.
        weights = {key: np.abs(weight) for key, weight in weights.items()}
    generator = np.random.default_rng(0)
    values: dict[int, np.ndarray] = {}
    start = 0
    for index in needed:
        node = circuit.nodes[index]
        if index in sources:
            unit = np.zeros((rows, node.size), dtype=np.int64)
            if exact:
                unit[np.arange(start, start + node.size), np.arange(node.size)] = 1
            else:
                unit = generator.choice(np.array([-1, 1], dtype=np.int64), (rows, node.size))
            start += node.size
            values[index] = unit.reshape(rows, *node.shape)
            continue
        values[index] = _linear_part(index, circuit, weights, values, positive)
    squares = (values[position].astype(np.float64) ** 2).sum(axis=0)
    return float(squares.max()) if exact else float(squares.max()) / PROBES * PROBE_MARGIN


def _between(circuit: ir.Circuit, position: int, sources: frozenset[int]) -> list[int]:
    """The nodes from the sources to a position, both included, in order."""
    needed = {position}
    for index in range(position, -1, -1):
        if index in needed and index not in sources:
            needed.update(i for i in circuit.nodes[index].inputs if circuit.nodes[i].encrypted)
    return sorted(needed)


def _is_open(position: int, circuit: ir.Circuit) -> bool:
    """Whether a node is a clear value that is not known yet."""
    node = circuit.nodes[position]
    return not node.encrypted and not node.is_constant


def _linear_part(
    position: int,
    circuit: ir.Circuit,
    weights: Weights,
    values: dict[int, np.ndarray],
    positive: bool,
) -> np.ndarray:
    """The node without what it adds in the clear; differences as sums if ``positive``."""
    node = circuit.nodes[position]
    primitive = node.primitive
    if isinstance(primitive, ir.Assume):
        return values[node.inputs[0]]
    if isinstance(primitive, ir.Subtract) and positive:
        primitive = ir.Add()
    multiplies = isinstance(primitive, (ir.Multiply, ir.MatMul, ir.Convolve))
    operands = []
    for index in node.inputs:
        if circuit.nodes[index].encrypted:
            operands.append(values[index])
        else:
            weight = weights[position, index][None]
            operands.append(weight if multiplies else np.zeros_like(weight))
    return kernels.apply(primitive, *operands)


def filler(variance: float, width: int) -> list[int]:
    """Factors ``c``, each for a term ``c u - c u`` that the optimizer takes for noise.

    Such a term is zero and has no noise; for the optimizer its variance is ``2 c**2``.

    Parameters
    ----------
    variance : float
        What the terms stand for together.
    width : int
        Bits of the region: larger factors would wrap.
    """
    largest = (1 << width) - 1
    factors = []
    while variance > 0:
        factor = min(largest, math.ceil(math.sqrt(variance / 2)))
        factors.append(factor)
        variance -= 2.0 * factor**2
    return factors
