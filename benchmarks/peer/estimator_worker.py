"""Runs in the peer's environment: train, compile and run an estimator of the peer.

``estimator_worker.py FOLDER`` reads ``job.json`` and ``data.npz`` of the folder; see
`benchmarks.peer.estimators.Job`, which writes them. It prints an object.
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


def fitted(job: dict[str, Any], x: np.ndarray, y: np.ndarray) -> Any:
    """An estimator of the peer, trained on rows."""
    model = getattr(peer, job["estimator"])(**job["params"])
    for name, value in job["attributes"].items():
        setattr(model, name, value)
    return model.fit(x, y)


def measure(job: dict[str, Any], data: Any) -> dict[str, Any]:
    """Scores of splits, complexity and seconds; of what does not compile, why."""
    x, y = data["x"], data["y"]
    splits = [(data[f"train_{i}"], data[f"test_{i}"]) for i in range(job["splits"])]
    scores = [fitted(job, x[a], y[a]).score(x[b], y[b]) for a, b in splits]
    trained, timed = data["fit"], data["run"]
    model = fitted(job, x[trained], y[trained])
    try:
        circuit = model.compile(x[trained], p_error=2**-40)
    except RuntimeError as error:
        return {"scores": scores, "refused": str(error)}
    found = {"scores": scores, "complexity": float(circuit.complexity)}
    if not len(timed):
        return found
    circuit.keygen()
    model.predict(x[timed[:1]], fhe="execute")  # the first run unpacks the keys
    times = []
    for row in x[timed]:
        start = time.perf_counter()
        model.predict(row[None], fhe="execute")
        times.append(time.perf_counter() - start)
    found["seconds"] = statistics.median(times)
    if job["together"]:
        start = time.perf_counter()
        model.predict(x[timed], fhe="execute")
        found["together"] = (time.perf_counter() - start) / len(timed)
    return found


def main() -> None:
    """Measure the job of the folder that is given."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    # What the peer itself prints must not come between the results.
    with (
        contextlib.redirect_stdout(sys.stderr),
        np.load(folder / "data.npz", allow_pickle=False) as data,
    ):
        found = measure(job, data)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
