"""Hand networks to the peer's process and read what it measures."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.networks import Case
from benchmarks.report import Figure

#: The ONNX version that the peer reads, and no other.
OPSET = 14

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Point:
    """One setting of one network.

    Parameters
    ----------
    network : str
    n_bits : int
        Of weights and activations.
    kept : int
        Bits that rounding keeps, approximately, before each look-up.
    simulated, encrypted : int
        Test rows that are also simulated, and encrypted.
    """

    network: str
    n_bits: int
    kept: int
    simulated: int = 0
    encrypted: int = 0

    def __str__(self) -> str:
        """How tables name the point."""
        return f"{self.network}, n_bits {self.n_bits}, approximate {self.kept}"


def measure(
    python: Path, cases: dict[str, Case], points: list[Point]
) -> Iterator[tuple[Point, dict[str, float]]]:
    """What the peer finds at each point, one after the other.

    Parameters
    ----------
    python : pathlib.Path
        The interpreter that has the peer.
    cases : dict of str to Case
        The networks by name.
    points : list of Point

    Raises
    ------
    SystemExit
        If the peer's process fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network, case in cases.items():
            _export(case, folder / network)
        (folder / "points.json").write_text(json.dumps([asdict(point) for point in points]))
        # -I: what leads Python to this project's packages must not lead the peer's there.
        command = [str(python), "-I", "-W", "ignore", str(WORKER), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for point, line in zip(points, process.stdout or (), strict=False):
                yield point, json.loads(line)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")


def figures(points: Iterator[tuple[Point, dict[str, float]]]) -> Iterator[Figure]:
    """What is found, as lines of a table."""
    for point, found in points:
        for name, value in found.items():
            yield Figure(f"{point}: {name.replace('_', ' ')}", value)


def _export(case: Case, stem: Path) -> None:
    """Write the network, its calibration rows and its test rows."""
    rows = torch.tensor(case.x_test[:1])
    torch.onnx.export(
        case.net,
        (rows,),
        stem.with_suffix(".onnx"),
        input_names=["x"],
        dynamic_axes={"x": {0: "rows"}},
        opset_version=OPSET,
        dynamo=False,  # torch's current exporter begins at a later version
    )
    np.savez(stem.with_suffix(".npz"), calibration=case.calibration, x=case.x_test, y=case.y_test)
