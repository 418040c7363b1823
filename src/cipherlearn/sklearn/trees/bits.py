"""Bits of features and leaves: as users give them, or the fewest that cost hardly any accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing

from cipherlearn.errors import InvalidParameterError
from cipherlearn.quantization.n_bits import bits_by_key
from cipherlearn.quantization.quantizers import check_bits

#: Most bits of a feature: its unary code has a ciphertext for each state.
MOST_INPUT_BITS = 12

#: Most bits of a leaf; those that leaves have at least where nothing is said. With fewer than 5,
#: regressors lose much; from 7 on, sums ask look-ups for more precision, and cost a third more.
MOST_LEAF_BITS, USUAL_LEAF_BITS = 16, 6

#: Accuracy, or R2, that ``n_bits="auto"`` may lose on rows held out, and their share of all rows.
MAX_DROP, HELD_OUT = 0.01, 0.25


@dataclass(frozen=True)
class TreeBits:
    """Bits of features and of leaves.

    Parameters
    ----------
    inputs, leaves : int
    """

    inputs: int
    leaves: int

    @classmethod
    def of(cls, n_bits: Any, usual: int = USUAL_LEAF_BITS) -> TreeBits:
        """Bits as users give them: one number, or a dictionary.

        Parameters
        ----------
        n_bits : int or dict
            One number is that of the features.
        usual : int, default=USUAL_LEAF_BITS
            Bits that leaves have at least, where nothing is said of them.

        Raises
        ------
        InvalidParameterError, UnknownKeyError
            If it is neither, a number is out of range, or a key is missing or unknown.
        """
        if isinstance(n_bits, str):
            raise InvalidParameterError(
                f"n_bits must be an integer, a dictionary or 'auto', not {n_bits!r}"
            )
        if not isinstance(n_bits, Mapping):
            bits = check_bits(n_bits, "n_bits", MOST_INPUT_BITS)
            return cls(bits, max(bits, usual))
        ranges = {"op_inputs": (1, MOST_INPUT_BITS), "op_leaves": (1, MOST_LEAF_BITS)}
        given = bits_by_key(n_bits, ranges, ["op_inputs"])
        inputs = given["op_inputs"]
        return cls(inputs, given.get("op_leaves", max(inputs, usual)))

    @property
    def as_dict(self) -> dict[str, int]:
        """As `of` takes them."""
        return {"op_inputs": self.inputs, "op_leaves": self.leaves}


#: Parameters of ``fit`` that have an entry a row.
PER_ROW = ("sample_weight", "base_margin", "init_score", "baseline", "bags")

#: What stands for the float model; what ``"auto"`` chooses from, the cheapest first.
FINEST = TreeBits(10, 12)
INPUTS, LEAVES = (2, 3, 4, 5, 6, 7, 8), (3, 4, 5, 6, 7, 8)


def choose_bits(estimator: Any, X: Any, y: Any, fit_params: Mapping[str, Any]) -> TreeBits:
    """The fewest bits with which an estimator scores nearly what it does with very many.

    Few bits of the features make inputs small: the number of ciphertexts doubles with each. Few
    bits of the leaves make sums narrow. Each is the smallest that loses at most `MAX_DROP` on rows
    held out; if none does, the best of them.

    Parameters
    ----------
    estimator : TreeEstimator
        With any ``n_bits``; it is cloned.
    X : array-like of shape (rows, features)
    y : array-like of shape (rows,) or (rows, outputs)
    fit_params : mapping
        Those of `PER_ROW` are divided with the rows.
    """
    count = len(y)
    stratify = y if is_classifier(estimator) and _can_divide(y) else None
    parts = train_test_split(
        np.arange(count), test_size=HELD_OUT, random_state=0, stratify=stratify
    )
    fitted, held = (np.sort(part) for part in parts)
    params = {
        name: _safe_indexing(value, fitted) if name in PER_ROW and value is not None else value
        for name, value in fit_params.items()
    }

    name = estimator.seed_name()
    # One seed for all, or luck would choose.
    is_open = name is not None and estimator.get_params(deep=False)[name] is None
    seed = {name: 0} if is_open else {}

    def score(bits: TreeBits) -> float:
        trial = clone(estimator).set_params(n_bits=bits.as_dict, **seed)
        trial.fit(_safe_indexing(X, fitted), _safe_indexing(y, fitted), **params)
        return float(trial.score(_safe_indexing(X, held), _safe_indexing(y, held)))

    aim = score(FINEST) - MAX_DROP
    inputs = _first([TreeBits(bits, FINEST.leaves) for bits in INPUTS], score, aim).inputs
    return _first([TreeBits(inputs, bits) for bits in LEAVES], score, aim)


def _first(choices: Sequence[TreeBits], score: Callable[[TreeBits], float], aim: float) -> TreeBits:
    """The first choice that reaches the aim, or else the best."""
    best, most = choices[0], -np.inf
    for bits in choices:
        found = score(bits)
        if found >= aim:
            return bits
        if found > most:
            best, most = bits, found
    return best


def _can_divide(y: Any) -> bool:
    """Whether every class has rows enough for two parts."""
    labels = np.asarray(y)
    counts = np.unique(labels, return_counts=True)[1]
    parts = int(len(labels) * HELD_OUT)
    return labels.ndim == 1 and bool((counts > 1).all()) and len(counts) <= parts
