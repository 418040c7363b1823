"""Trees with integers in their leaves, on states of their features: what every circuit computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cipherlearn.errors import InvalidShapeError
from cipherlearn.sklearn.encoding import FeatureCode
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble

#: Significant bits of what an integer in the leaves stands for.
SCALE_BITS = 24


@dataclass(frozen=True, eq=False)
class QuantizedTrees:
    """An ensemble as integers.

    Parameters
    ----------
    ensemble : TreeEnsemble
        With integers in its leaves.
    codes : tuple of FeatureCode
        What the client sends of each feature.
    scale : numpy.ndarray of float64, shape (outputs,)
        What one of the integers stands for.
    base : numpy.ndarray of float64, shape (outputs,)
        What the client adds.
    """

    ensemble: TreeEnsemble
    codes: tuple[FeatureCode, ...]
    scale: np.ndarray
    base: np.ndarray

    @classmethod
    def of(cls, ensemble: TreeEnsemble, codes: Sequence[FeatureCode], bits: int) -> QuantizedTrees:
        """Integers of so many bits in the leaves of all trees.

        Parameters
        ----------
        ensemble : TreeEnsemble
            With real numbers in its leaves.
        codes : sequence of FeatureCode
        bits : int
        """
        integers, scale, base = _quantized_leaves(ensemble, bits)
        return cls(integers, tuple(codes), scale, base)

    def states(self, X: Any) -> list[np.ndarray]:
        """The states of each feature.

        Parameters
        ----------
        X : array-like of float, shape (rows, features)
            NaN where a value is missing.

        Raises
        ------
        InvalidShapeError
            If it has another shape.
        """
        rows = np.asarray(X, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.codes):
            raise InvalidShapeError(
                f"the rows have shape {rows.shape}; they must be (rows, {len(self.codes)})"
            )
        return [code.states(column) for code, column in zip(self.codes, rows.T, strict=True)]

    def scores(self, X: Any) -> np.ndarray:
        """Scores of rows, equal to those of any circuit of the trees.

        Parameters
        ----------
        X : array-like of float, shape (rows, features)

        Returns
        -------
        numpy.ndarray of float64, shape (rows, outputs)
        """
        states = zip(self.codes, self.states(X), strict=True)
        rows = np.stack([code.representatives[of_rows] for code, of_rows in states], axis=1)
        return np.asarray(self.base + self.scale * self.ensemble.raw_scores(rows))


def _quantized_leaves(
    ensemble: TreeEnsemble, bits: int
) -> tuple[TreeEnsemble, np.ndarray, np.ndarray]:
    """Integers in the leaves of all trees.

    Outputs that are weighed against each other have one scale, values have one each.

    The middle of the values of each tree is added by the client instead, so that the integers are
    small. Scale and middles have few significant bits: multiples and sums of them are exact, and so
    do not depend on what is added first, nor on how the trees are covered.

    Parameters
    ----------
    ensemble : TreeEnsemble
    bits : int

    Returns
    -------
    (TreeEnsemble, numpy.ndarray of shape (outputs,), numpy.ndarray of shape (outputs,))
        With integers in its leaves; what one of them stands for; what the client adds.
    """
    leaves = [tree.values[tree.feature == LEAF] for tree in ensemble.trees]
    middles = [(values.max(axis=0) + values.min(axis=0)) / 2 for values in leaves]
    pairs = list(zip(leaves, middles, strict=True))
    reach = np.zeros(ensemble.n_outputs)
    for values, middle in pairs:
        reach = np.maximum(reach, np.abs(values - middle).max(axis=0))
    if ensemble.link.one_unit:
        reach = np.full_like(reach, reach.max(initial=0.0))
    mantissa, exponent = np.frexp(
        np.where(reach > 0, reach, 1.0) / (2 ** (bits - 1) - 1 if bits > 1 else 1)
    )
    unit = np.ldexp(1.0, exponent - SCALE_BITS)
    scale = np.ceil(np.ldexp(mantissa, SCALE_BITS)) * unit

    def rounded(tree: Tree, middle: np.ndarray) -> Tree:
        integers = np.rint((tree.values - middle) / scale).astype(np.int64)
        return replace(tree, values=np.where((tree.feature == LEAF)[:, None], integers, 0))

    trees = tuple(rounded(*pair) for pair in zip(ensemble.trees, middles, strict=True))
    whole = replace(ensemble, trees=trees, base=np.zeros(ensemble.n_outputs, dtype=np.int64))
    added = ensemble.base + np.sum(middles, axis=0, initial=0.0)
    return whole, scale, np.rint(added / unit) * unit
