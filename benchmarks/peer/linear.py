"""``python -m benchmarks.peer.linear``: logistic regression, the peer's and ours."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.preprocessing import StandardScaler

from benchmarks.linear import BATCH, REPEATS
from benchmarks.peer.estimators import Job, compare
from benchmarks.report import Figure
from cipherlearn.sklearn import LogisticRegression

_PARAMS = {"max_iter": 5000, "n_bits": 8}


def main() -> int:
    """Measure both; 0 if every target is reached."""
    return compare("linear", __doc__, _figures)


def _figures(python: Path) -> Iterator[Figure]:
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    splits = list(RepeatedStratifiedKFold(n_splits=5, n_repeats=4, random_state=0).split(x, y))
    every, timed = np.arange(len(x)), np.arange(BATCH)
    job = Job("LogisticRegression", _PARAMS, x, y, splits, every, timed, together=True)
    theirs = job.measured(python)
    scores = [LogisticRegression(**_PARAMS).fit(x[a], y[a]).score(x[b], y[b]) for a, b in splits]
    name = "LogisticRegression, 8 bits, 30 features"
    peer = float(np.mean(theirs["scores"]))
    yield Figure(
        f"{name}: accuracy, mean of {len(splits)} folds", float(np.mean(scores)), peer=peer
    )
    model = LogisticRegression(**_PARAMS).fit(x, y)
    for sent, compressed in (("plain", False), ("compressed", True)):
        model.compile(compress_inputs=compressed)
        model.predict(x[:BATCH], fhe="execute")  # makes keys
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            model.predict(x[:BATCH], fhe="execute")
            times.append(time.perf_counter() - start)
        seconds = min(times) / BATCH
        what = f"{name}, {BATCH} rows, {sent} inputs, with encryption"
        yield Figure(f"{what}: ms a row", 1000 * seconds, peer=1000 * theirs["together"])
        yield Figure(f"{what}: times faster", theirs["together"] / seconds, at_least=3.5)


if __name__ == "__main__":
    sys.exit(main())
