"""``python -m benchmarks.peer.neighbors``: the peer's nearest neighbours and ours, side by side.

The peer finds parameters for few rows of training only: it is measured on the most that it compiles
for, and asked for the size of iris.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_iris, make_classification
from sklearn.model_selection import StratifiedShuffleSplit

from benchmarks.peer.estimators import Job, compare
from benchmarks.report import Figure, Note
from cipherlearn.errors import AgreementWarning, CalibrationWarning
from cipherlearn.sklearn import KNeighborsClassifier

#: Splits that scores are the mean of; encrypted rows that are timed.
SPLITS, ROWS = 20, 2

#: How many times faster than the peer, by both measures.
FASTER = 10.0


@dataclass(frozen=True)
class Case:
    """A data set and the same question to both.

    Parameters
    ----------
    data : {"iris", "hard", "two features"}
    references : int
        Rows of training.
    n_neighbors, peer_bits : int
    n_bits : dict
        Ours.
    rows : int, default=0
        Encrypted rows that are timed.
    faster : float, optional
        How many times less complexity ours must have.
    """

    data: str
    references: int
    n_neighbors: int
    peer_bits: int
    n_bits: dict[str, int]
    rows: int = 0
    faster: float | None = None

    def __str__(self) -> str:
        """How tables name the case."""
        return f"{self.data}, {self.references} rows of training, k={self.n_neighbors}"

    def rows_and_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows."""
        if self.data == "iris":
            x, y = load_iris(return_X_y=True)
            return x, y
        features = 2 if self.data == "two features" else 4
        x, y = make_classification(
            150, features, n_informative=2, n_redundant=0, class_sep=0.5, random_state=42,
            n_clusters_per_class=1 if features == 2 else 2,
        )  # fmt: skip
        return x, y


_THREE, _FOUR = {"op_inputs": 5, "op_distances": 3}, {"op_inputs": 5, "op_distances": 4}

CASES = (
    Case("iris", 40, 1, 3, _FOUR),
    Case("iris", 40, 1, 3, _THREE, ROWS, FASTER),
    Case("hard", 20, 1, 3, _THREE, 0, FASTER),
    Case("two features", 40, 1, 3, _THREE, 0, FASTER),
    Case("two features", 10, 3, 2, _FOUR),
    Case("iris", 112, 3, 3, _FOUR),
    Case("hard", 112, 3, 3, _FOUR),
)


def main() -> int:
    """Measure all cases; 0 if every target is reached."""
    for of in (AgreementWarning, CalibrationWarning):  # scores are figures here
        warnings.simplefilter("ignore", of)
    return compare("neighbors", __doc__, _figures)


def _figures(python: Path) -> Iterator[Figure | Note]:
    """Ours is measured between the peer's jobs: both meet the same machine."""
    for case in CASES:
        x, y = case.rows_and_labels()
        shuffled = StratifiedShuffleSplit(SPLITS, train_size=case.references, random_state=0)
        splits = list(shuffled.split(x, y))
        train, test = splits[0]
        params = {"n_neighbors": case.n_neighbors, "n_bits": case.peer_bits}
        job = Job("KNeighborsClassifier", params, x, y, splits, train, test[: case.rows])
        theirs = job.measured(python)
        made = {**params, "n_bits": case.n_bits}
        models = [KNeighborsClassifier(**made).fit(x[of], y[of]) for of, _ in splits]
        tests = [(m, x[of], y[of]) for m, (_, of) in zip(models, splits, strict=True)]
        exact = np.array([model.score(*rows) for model, *rows in tests])
        floats = [model.sklearn_model.score(*rows) for model, *rows in tests]
        program = models[0].compile()
        simulated = models[0].predict(x[test], fhe="simulate") == y[test]
        better = exact - theirs["scores"]
        error = better.std(ddof=1) / np.sqrt(SPLITS)
        name = f"{case}, n_bits {case.n_bits} (peer {case.peer_bits})"
        yield Figure(f"{name}: accuracy of scikit-learn", float(np.mean(floats)))
        yield Figure(f"{name}: accuracy", exact.mean(), peer=float(np.mean(theirs["scores"])))
        yield Figure(f"{name}: accuracy, simulated, of one split", float(simulated.mean()))
        yield Figure(f"{name}: better, in standard errors", better.mean() / error, at_least=-1.0)
        if "refused" in theirs:
            yield Figure(f"{name}: complexity", program.complexity)
            yield Note(f"{name}: the peer does not compile ({theirs['refused']})")
            continue
        yield Figure(f"{name}: complexity", program.complexity, peer=theirs["complexity"])
        ratio = theirs["complexity"] / program.complexity
        yield Figure(f"{name}: times less complexity", ratio, at_least=case.faster)
        if case.rows:
            seconds = _seconds(models[0], x[test[: case.rows + 1]])
            yield Figure(f"{name}: seconds a row", seconds, peer=theirs["seconds"])
            yield Figure(f"{name}: times faster", theirs["seconds"] / seconds, at_least=case.faster)


def _seconds(model: Any, rows: np.ndarray) -> float:
    """The median of the seconds that a row takes; the first run unpacks the keys."""
    model.fhe_circuit.keygen()
    times = []
    for row in rows:
        start = time.perf_counter()
        model.predict(row[None], fhe="execute")
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


if __name__ == "__main__":
    sys.exit(main())
