"""``python -m benchmarks.peer.trees``: the peer's trees and ours, one after the other."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import RepeatedKFold

from benchmarks.peer.estimators import Job, Split, compare
from benchmarks.report import Figure
from benchmarks.trees import SEED, Model, data_of, encrypted_rows

#: Rows that are timed; folds that scores are the mean of, and how often rows are divided anew.
ROWS, FOLDS, REPEATS = 3, 5, 5


@dataclass(frozen=True)
class Pair:
    """Our estimator, and the peer's that it is compared with.

    Parameters
    ----------
    ours : Model
    peer : str
        The peer's estimator.
    peer_params : dict
    faster : float
        How many times faster ours must be.
    """

    ours: Model
    peer: str
    peer_params: dict[str, Any]
    faster: float

    @classmethod
    def same(cls, estimator: str, data: str, params: dict[str, Any], faster: float) -> Pair:
        """The same estimator with the same parameters on both sides."""
        return cls(Model(estimator, data, params), estimator, params, faster)


_BOOSTED = {"n_estimators": 50, "max_depth": 4, "n_bits": 6}

PAIRS = (
    Pair.same("XGBClassifier", "breast cancer", _BOOSTED, 5.0),
    Pair.same("XGBClassifier", "breast cancer", {**_BOOSTED, "n_bits": 3}, 2.0),
    Pair(
        Model("CatBoostClassifier", "breast cancer", {"n_estimators": 50, "depth": 4, "n_bits": 4}),
        "XGBClassifier",
        _BOOSTED,
        30.0,
    ),
    Pair.same(
        "RandomForestClassifier",
        "breast cancer",
        {"n_estimators": 20, "max_depth": 4, "n_bits": 4},
        5.0,
    ),
    Pair.same("XGBRegressor", "diabetes", {"n_estimators": 50, "max_depth": 3, "n_bits": 5}, 5.0),
)


def main() -> int:
    """Measure all pairs; 0 if every target is reached."""
    return compare("trees", __doc__, _figures)


def _figures(python: Path) -> Iterator[Figure]:
    """Trained on all rows where time counts, on folds where scores do.

    Ours is measured between the peer's jobs: both meet the same machine.
    """
    for pair in PAIRS:
        x, y = _table(pair.ours.data)
        folds = list(RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(x))
        theirs = measure_peer(python, pair, x, y, folds)
        scores = [pair.ours.fitted((x[a], x[b], y[a], y[b])).score(x[b], y[b]) for a, b in folds]
        better = np.subtract(scores, theirs["scores"])
        # Folds of one division have no rows in common: their scores are nearly independent.
        error = better.std(ddof=1) / np.sqrt(FOLDS)
        fitted = pair.ours.fitted((x, x, y, y))
        complexity = fitted.compile().complexity
        seconds, _ = encrypted_rows(fitted, x[:ROWS])
        score, peer = statistics.mean(scores), statistics.mean(theirs["scores"])
        yield Figure(f"{pair.ours}: mean of {FOLDS * REPEATS} folds", score, peer=peer)
        name = f"{pair.ours}: better than the peer, in standard errors of {FOLDS} folds"
        yield Figure(name, better.mean() / error, at_least=-1.0)
        yield Figure(f"{pair.ours}: complexity", complexity, peer=theirs["complexity"])
        yield Figure(f"{pair.ours}: seconds a row", seconds, peer=theirs["seconds"])
        ratio = theirs["seconds"] / seconds
        yield Figure(f"{pair.ours}: times faster", ratio, at_least=pair.faster)


def _table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a data set."""
    x_train, x_test, y_train, y_test = data_of(name)
    return np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])


def measure_peer(
    python: Path, pair: Pair, x: np.ndarray, y: np.ndarray, folds: list[Split]
) -> dict[str, Any]:
    """Scores, complexity and seconds of the peer's estimator, whose server adds its trees up."""
    params = {**pair.peer_params, "random_state": SEED, "n_jobs": 1}
    # The peer has no other switch for it.
    attributes = {"_fhe_ensembling": True}
    every, timed = np.arange(len(x)), np.arange(ROWS)
    return Job(pair.peer, params, x, y, folds, every, timed, attributes).measured(python)


if __name__ == "__main__":
    sys.exit(main())
