"""``python -m benchmarks.peer.neighbors``: the peer's nearest neighbours and ours, side by side.

The peer finds parameters for few rows of training only: it is measured on the most that it compiles
for, and asked for the size of iris.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_iris, make_classification
from sklearn.model_selection import StratifiedShuffleSplit

from benchmarks.peer.environment import default_torch, peer_python
from benchmarks.peer.trees import ENVIRONMENT
from benchmarks.report import Figure, Note, print_figures
from cipherlearn.errors import AgreementWarning, CalibrationWarning
from cipherlearn.sklearn import KNeighborsClassifier

WORKER = Path(__file__).with_name("neighbor_worker.py")

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

    def splits(self) -> dict[str, np.ndarray]:
        """Rows of training and all others, and their labels: each of shape (splits, ...)."""
        if self.data == "iris":
            x, y = load_iris(return_X_y=True)
        else:
            features = 2 if self.data == "two features" else 4
            x, y = make_classification(
                150, features, n_informative=2, n_redundant=0, class_sep=0.5, random_state=42,
                n_clusters_per_class=1 if features == 2 else 2,
            )  # fmt: skip
        shuffled = StratifiedShuffleSplit(SPLITS, train_size=self.references, random_state=0)
        parts = [(x[a], y[a], x[b], y[b]) for a, b in shuffled.split(x, y)]
        names = ("x_train", "y_train", "x_test", "y_test")
        return {n: np.stack(each) for n, each in zip(names, zip(*parts, strict=True), strict=True)}


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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peer.neighbors", description=__doc__
    )
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT)
    parser.add_argument("--torch", default=default_torch())
    options = parser.parse_args()
    for of in (AgreementWarning, CalibrationWarning):  # scores are figures here
        warnings.simplefilter("ignore", of)
    python = peer_python(options.environment.resolve(), options.torch)
    return 0 if print_figures(_figures(python)) else 1


def _figures(python: Path) -> Iterator[Figure | Note]:
    """Ours is measured between the peer's jobs: both meet the same machine."""
    for case in CASES:
        splits = case.splits()
        theirs = measure_peer(python, case, splits)
        models = _models(case, splits)
        tests = list(zip(models, splits["x_test"], splits["y_test"], strict=True))
        exact = np.array([float((m.predict(x) == y).mean()) for m, x, y in tests])
        floats = [float((m.sklearn_model.predict(x) == y).mean()) for m, x, y in tests]
        program = models[0].compile()
        simulated = models[0].predict(splits["x_test"][0], fhe="simulate") == splits["y_test"][0]
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
            seconds = _seconds(models[0], splits["x_test"][0][: case.rows + 1])
            yield Figure(f"{name}: seconds a row", seconds, peer=theirs["seconds"])
            yield Figure(f"{name}: times faster", theirs["seconds"] / seconds, at_least=case.faster)


def _models(case: Case, splits: dict[str, np.ndarray]) -> list[Any]:
    """Ours, one a split."""
    made = KNeighborsClassifier(n_neighbors=case.n_neighbors, n_bits=case.n_bits)
    pairs = zip(splits["x_train"], splits["y_train"], strict=True)
    return [type(made)(**made.get_params()).fit(x, y) for x, y in pairs]


def _seconds(model: Any, rows: np.ndarray) -> float:
    """The median of the seconds that a row takes; the first run unpacks the keys."""
    model.fhe_circuit.keygen()
    times = []
    for row in rows:
        start = time.perf_counter()
        model.predict(row[None], fhe="execute")
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def measure_peer(python: Path, case: Case, splits: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores, complexity and seconds of the peer, or why it does not compile.

    Raises
    ------
    SystemExit
        If the peer's process fails.
    """
    params = {"n_neighbors": case.n_neighbors, "n_bits": case.peer_bits}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "data.npz", **splits)
        job = {"params": params, "data": "data", "rows": case.rows}
        (folder / "jobs.json").write_text(json.dumps([job]))
        # -I: what leads Python to this project's packages must not lead the peer's there.
        command = [str(python), "-I", "-W", "ignore", str(WORKER), str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())
