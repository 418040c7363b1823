"""Runs in the peer's environment: train, compile and run the estimators of a folder.

``tree_worker.py FOLDER`` reads ``jobs.json``, a list of objects with ``estimator``, ``params``,
``data`` and ``rows``, and for each data NAME the file ``NAME.npz``. It prints an object a line, in
the order of the jobs.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import concrete.ml.sklearn as peer
import numpy as np


def measure(folder: Path, job: dict[str, Any]) -> dict[str, float]:
    """Score, complexity and seconds of one estimator, whose trees are added by the server."""
    with np.load(folder / f"{job['data']}.npz", allow_pickle=False) as arrays:
        x_train, x_test, y_train, y_test = (
            arrays[name] for name in ("x_train", "x_test", "y_train", "y_test")
        )
    model = getattr(peer, job["estimator"])(**job["params"])
    # The peer has no other switch for it.
    model._fhe_ensembling = True  # noqa: SLF001
    model.fit(x_train, y_train)
    circuit = model.compile(x_train, p_error=2**-40)
    found = {
        "score": float(model.score(x_test, y_test)),
        "complexity": float(circuit.complexity),
    }
    circuit.keygen()
    model.predict(x_test[:1], fhe="execute")  # the first run unpacks the keys
    times = []
    for row in x_test[: job["rows"]]:
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
