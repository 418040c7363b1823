"""What comparisons of estimators with the peer's share: the job, and the process that does it."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer.environment import default_torch, peer_python
from benchmarks.report import Figure, Note, print_figures

#: The environment is big: it is kept, in a folder that git ignores.
ENVIRONMENT = Path(__file__).parents[2] / "build" / "peer"

WORKER = Path(__file__).with_name("estimator_worker.py")

#: Places of the rows of training, and of those that a score is taken of.
Split = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Job:
    """An estimator of the peer, and what is measured of it.

    Parameters
    ----------
    estimator : str
    params : dict
    x, y : numpy.ndarray, of as many rows
    splits : sequence of Split
        One score each.
    fit, run : numpy.ndarray of int
        Places of the rows that the compiled model is trained on, and of those that are encrypted.
    attributes : dict
        Set before training: switches of the peer that are no parameters.
    together : bool, default=False
        Whether all rows are also given at once, and timed.
    """

    estimator: str
    params: dict[str, Any]
    x: np.ndarray
    y: np.ndarray
    splits: Sequence[Split]
    fit: np.ndarray
    run: np.ndarray
    attributes: dict[str, Any] = field(default_factory=dict)
    together: bool = False

    def measured(self, python: Path) -> dict[str, Any]:
        """What the worker prints: scores, complexity and seconds, or why it does not compile.

        Raises
        ------
        SystemExit
            If the peer's process fails.
        """
        arrays = {"x": self.x, "y": self.y, "fit": self.fit, "run": self.run}
        for place, (train, test) in enumerate(self.splits):
            arrays |= {f"train_{place}": train, f"test_{place}": test}
        job = {
            "estimator": self.estimator,
            "params": self.params,
            "attributes": self.attributes,
            "splits": len(self.splits),
            "together": self.together,
        }
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
            (folder / "job.json").write_text(json.dumps(job))
            # -I: what leads Python to this project's packages must not lead the peer's there.
            command = [str(python), "-I", "-W", "ignore", str(WORKER), str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def compare(name: str, text: str | None, figures: Callable[[Path], Iterable[Figure | Note]]) -> int:
    """Print figures that need the interpreter of the peer's environment; 0 if all are reached."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.peer.{name}", description=text)
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT)
    parser.add_argument("--torch", default=default_torch())
    options = parser.parse_args()
    python = peer_python(options.environment.resolve(), options.torch)
    return 0 if print_figures(figures(python)) else 1
