"""Runs in the peer's environment: train, compile and run the estimators of a folder.

``tree_worker.py FOLDER`` reads ``jobs.json``, a list of objects with ``estimator``, ``params``,
``data``, ``folds``, ``repeats`` and ``rows``, and for each data NAME the file ``NAME.npz``. It
prints an object a line, in the order of the jobs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import concrete.ml.sklearn as peer
import numpy as np
import torch
from sklearn.model_selection import RepeatedKFold

# Of a newer torch, the exporter that was the only one in the peer's own.
torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)


def measure(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Scores of folds, complexity and seconds of an estimator; the server adds its trees up."""
    with np.load(folder / f"{job['data']}.npz", allow_pickle=False) as arrays:
        x, y = arrays["x"], arrays["y"]
    scores = []
    folds = RepeatedKFold(n_splits=job["folds"], n_repeats=job["repeats"], random_state=0)
    for train, test in folds.split(x):
        fold = getattr(peer, job["estimator"])(**job["params"]).fit(x[train], y[train])
        scores.append(fold.score(x[test], y[test]))
    model = getattr(peer, job["estimator"])(**job["params"])
    # The peer has no other switch for it.
    model._fhe_ensembling = True  # noqa: SLF001
    model.fit(x, y)
    circuit = model.compile(x, p_error=2**-40)
    found = {
        "scores": scores,
        "complexity": float(circuit.complexity),
    }
    circuit.keygen()
    model.predict(x[:1], fhe="execute")  # the first run unpacks the keys
    times = []
    for row in x[: job["rows"]]:
        start = time.perf_counter()
        model.predict(row[None], fhe="execute")
        times.append(time.perf_counter() - start)
    return {**found, "seconds": statistics.median(times)}


def main() -> None:
    """Measure all jobs of the folder that is given."""
    folder = Path(sys.argv[1])
    for job in json.loads((folder / "jobs.json").read_text()):
        # What the peer itself prints must not come between the results.
        with contextlib.redirect_stdout(sys.stderr):
            found = measure(folder, job)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
