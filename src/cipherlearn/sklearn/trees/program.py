"""A cover as a circuit: bits are gathered into codes, codes are looked up, results are added.

The engine has one width for all values that linear operations connect. Look-ups read narrow codes;
what is linear in the bits ends in a wide sum. So there are two inputs where both occur: two planes
of the client's bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cipherlearn.circuit import Builder, Circuit
from cipherlearn.circuit.functions import concatenate
from cipherlearn.circuit.values import IntValue
from cipherlearn.errors import ModelError
from cipherlearn.sklearn.encoding import FeatureCode
from cipherlearn.sklearn.trees.blocks import Block
from cipherlearn.sklearn.trees.cover import Cover

#: Names of the inputs: bits that look-ups read, and bits that are added up.
LOOKED_UP, ADDED = "looked_up", "added"

#: Names of the results: of each look-up (where the client adds them), and of each output.
TERMS, SCORES = "terms", "scores"


@dataclass(frozen=True, eq=False)
class Planes:
    """Which bits of the features' codes the client encrypts.

    Parameters
    ----------
    looked_up, added : numpy.ndarray of int64
        Places, ascending, of the bits that look-ups may read, and of those that are added up.
    """

    looked_up: np.ndarray
    added: np.ndarray

    @classmethod
    def public(cls, codes: Sequence[FeatureCode], looked_up: np.ndarray | None = None) -> Planes:
        """All bits of the codes, or those that are given: no plane depends on the model."""
        places = np.arange(sum(code.n_bits for code in codes))
        return cls(places if looked_up is None else looked_up, places)

    @classmethod
    def used(cls, cover: Cover, codes: Sequence[FeatureCode]) -> Planes:
        """The bits that a cover reads, which tell what its splits are."""
        first = _first_bits(codes)
        functions = [block.levels for block in cover.blocks]
        looked_up = [_functional(levels, codes, first)[0] for levels in functions]
        added = [_functional(cover.linear, codes, first)[0]] if cover.linear else []
        none = np.zeros(0, dtype=np.int64)
        return cls(*(np.unique(np.concatenate([none, *part])) for part in (looked_up, added)))


def _places_in(plane: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Where bits stand in a plane.

    Raises
    ------
    ModelError
        If one is not there: the result would be another.
    """
    if not np.isin(bits, plane).all():
        raise ModelError(
            "the trees read bits that the client is not to send: the grid that they were made for "
            "is another. Report it with the parameters of the model"
        )
    return np.searchsorted(plane, bits)


def _first_bits(codes: Sequence[FeatureCode]) -> np.ndarray:
    """The place of each feature's first bit, and how many bits there are."""
    return np.cumsum([0, *(code.n_bits for code in codes)])


def build_circuit(
    cover: Cover, codes: Sequence[FeatureCode], planes: Planes | None = None, *, sums: bool = True
) -> Circuit:
    """The circuit of a cover, for one row.

    Parameters
    ----------
    cover : Cover
    codes : sequence of FeatureCode
    planes : Planes, optional
        What the client encrypts; all that the cover reads must be in it. Default: all bits.
    sums : bool, default=True
        Whether the results of look-ups are added under encryption.

    Returns
    -------
    Circuit
        Inputs, as far as they are read: `LOOKED_UP` and `ADDED`, each of shape (1, bits). A plane
        without any has one that says nothing. Results:
        `SCORES` of shape (1, outputs); without sums also `TERMS` of shape (1, look-ups), those of
        the first output first, and `SCORES` only if there is a linear part.
    """
    builder = Builder()
    planes = Planes.public(codes) if planes is None else planes
    first = _first_bits(codes)
    results: dict[str, IntValue] = {}
    if cover.blocks:
        bits = builder.input(LOOKED_UP, (1, max(1, len(planes.looked_up))), 0, 1)
        with builder.scope("trees"):
            terms = _terms(cover, _codes(bits, planes.looked_up, cover.blocks, codes, first))
            if sums:
                results[SCORES] = _joined([_total(term) for term in terms])
            else:
                results[TERMS] = _joined([term for term in terms if term is not None])
    if cover.linear or not cover.blocks:
        bits = builder.input(ADDED, (1, max(1, len(planes.added))), 0, 1)
        with builder.scope("single features"):
            linear = _linear(bits, planes.added, cover, codes, first)
            results[SCORES] = results[SCORES] + linear if SCORES in results else linear
    return builder.finish(list(results.values()), list(results))


def linear_constant(cover: Cover, codes: Sequence[FeatureCode]) -> np.ndarray:
    """What the linear part is where no bit is set: the client adds it. Shape (outputs,)."""
    parts = [codes[f].coefficients(function)[1] for f, function in cover.linear.items()]
    return np.sum(parts, axis=0, initial=0) + np.zeros_like(cover.base)


def _codes(
    bits: IntValue,
    plane: np.ndarray,
    blocks: Sequence[Block],
    codes: Sequence[FeatureCode],
    first: np.ndarray,
) -> IntValue:
    """The codes of all blocks, of shape (1, blocks), from the bits of a plane."""
    places, weights, constants = [], [], []
    for block in blocks:
        place, weight, constant = _functional(block.levels, codes, first)
        places.append(_places_in(plane, place))
        weights.append(weight)
        constants.append(int(constant))
    terms = max(map(len, places))
    # Shorter sums are filled up with bits that count for nothing.
    gathered = np.array([np.resize(place, terms) for place in places])
    factors = np.zeros(gathered.shape, dtype=np.int64)
    for row, weight in zip(factors, weights, strict=True):
        row[: len(weight)] = weight
    chosen = bits[:, gathered.reshape(-1)].reshape(1, len(blocks), terms)
    total = (chosen * factors[None]).sum(axis=2) + np.array([constants])
    highest = np.array([[len(block.table) - 1 for block in blocks]])
    result: IntValue = total.assume(np.zeros_like(highest), highest, encoded=True)
    return result


def _functional(
    functions: Mapping[int, np.ndarray], codes: Sequence[FeatureCode], first: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sum of functions of features: places of bits, what they count, and what is added."""
    places, weights = [], []
    constant = np.zeros(next(iter(functions.values())).shape[1:], dtype=np.int64)
    for feature, function in functions.items():
        coefficients, own = codes[feature].coefficients(function)
        used = np.flatnonzero(coefficients.reshape(len(coefficients), -1).any(axis=1))
        places.append(first[feature] + used)
        weights.append(coefficients[used])
        constant = constant + own
    return np.concatenate(places), np.concatenate(weights), constant


def _terms(cover: Cover, codes: IntValue) -> list[IntValue | None]:
    """The results of the look-ups for each output, of shape (1, look-ups); None without any."""
    terms: list[IntValue | None] = []
    rows = max(len(block.table) for block in cover.blocks)
    for output in range(len(cover.base)):
        columns = [block.table[:, output] for block in cover.blocks]
        used = np.array([place for place, column in enumerate(columns) if column.any()])
        if not used.size:
            terms.append(None)
            continue
        table = np.zeros((rows, len(used)), dtype=np.int64)
        for place, p in enumerate(used):
            table[: len(columns[p]), place] = columns[p]
        read = codes if len(used) == len(columns) else codes[:, used]
        terms.append(read.lookup(table[:, None], 0))
    return terms


def _total(term: IntValue | None) -> IntValue | np.ndarray:
    return np.zeros((1, 1), dtype=np.int64) if term is None else term.sum(axis=1, keepdims=True)


def _joined(parts: Sequence[IntValue | np.ndarray]) -> IntValue:
    (first, *others) = parts
    return concatenate(parts, axis=1) if others or not isinstance(first, IntValue) else first


def _linear(
    bits: IntValue,
    plane: np.ndarray,
    cover: Cover,
    codes: Sequence[FeatureCode],
    first: np.ndarray,
) -> IntValue:
    """The sum of functions of single features, of shape (1, outputs), from the bits of a plane."""
    if not cover.linear:
        return bits[:, :1] * np.zeros((1, len(cover.base)), dtype=np.int64)
    places, weights, _ = _functional(cover.linear, codes, first)
    whole = np.array_equal(places, plane) and bool(len(plane))
    chosen = bits if whole else bits[:, _places_in(plane, places)]
    result: IntValue = chosen @ weights
    return result
