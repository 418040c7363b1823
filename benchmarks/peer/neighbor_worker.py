"""Runs in the peer's environment: nearest neighbours of the peer on the data of a folder.

``neighbor_worker.py FOLDER`` reads ``jobs.json``, a list of objects with ``params``, ``data`` and
``rows``, and for each data NAME the file ``NAME.npz`` with ``x_train``, ``y_train``, ``x_test``,
``y_test``, all of shape (splits, ...). It prints an object a line, in the order of the jobs.
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

# Of a newer torch, the exporter that was the only one in the peer's own.
torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)


def measure(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Scores of splits, complexity and seconds; of what does not compile, why."""
    with np.load(folder / f"{job['data']}.npz", allow_pickle=False) as arrays:
        names = ("x_train", "y_train", "x_test", "y_test")
        splits = list(zip(*(arrays[name] for name in names), strict=True))
    models = [peer.KNeighborsClassifier(**job["params"]).fit(x, y) for x, y, _, _ in splits]
    pairs = zip(models, splits, strict=True)
    scores = [float((model.predict(x) == y).mean()) for model, (_, _, x, y) in pairs]
    model, (x_train, _, x_test, _) = models[0], splits[0]
    try:
        circuit = model.compile(x_train, p_error=2**-40)
    except RuntimeError as error:
        return {"scores": scores, "refused": str(error)}
    found = {"scores": scores, "complexity": float(circuit.complexity)}
    if not job["rows"]:
        return found
    circuit.keygen()
    times = []
    for row in x_test[: job["rows"] + 1]:
        start = time.perf_counter()
        model.predict(row[None], fhe="execute")
        times.append(time.perf_counter() - start)
    # The first run unpacks the keys.
    return {**found, "seconds": statistics.median(times[1:])}


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
