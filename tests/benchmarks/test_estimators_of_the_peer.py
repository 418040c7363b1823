"""The job that the worker in the peer's environment gets, with a worker of our own in its place."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peer import estimators
from benchmarks.peer.estimators import Job

WORKER = """
import json, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
data = np.load(folder / "data.npz")
means = [float(data["x"][data[f"test_{i}"]].mean()) for i in range(job["splits"])]
print(json.dumps({"scores": means, "rows": data["run"].tolist(), **job}))
"""


def job() -> Job:
    x = np.arange(8.0).reshape(4, 2)
    splits = [(np.array([0, 1]), np.array([2, 3])), (np.array([2, 3]), np.array([0]))]
    return Job("Ridge", {"alpha": 2.0}, x, np.arange(4), splits, np.arange(4), np.array([1]))


def test_the_worker_gets_rows_and_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setattr(estimators, "WORKER", worker)
    found = job().measured(Path(sys.executable))
    assert found["scores"] == [5.5, 0.5]
    assert found["rows"] == [1]
    assert (found["estimator"], found["params"]) == ("Ridge", {"alpha": 2.0})
    assert (found["attributes"], found["together"]) == ({}, False)


def test_a_failing_worker_ends_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import sys; sys.exit(3)")
    monkeypatch.setattr(estimators, "WORKER", worker)
    with pytest.raises(SystemExit, match="ended with 3"):
        job().measured(Path(sys.executable))
