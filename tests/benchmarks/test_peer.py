"""The parts around the peer; the peer itself is installed and run by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from benchmarks.networks import Case
from benchmarks.peer import environment
from benchmarks.peer import measure as peer
from benchmarks.peer.measure import Point, figures, measure


@pytest.fixture
def case() -> Case:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    y = np.arange(30) % 3
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    return Case(net, x[:20], x[20:], y[:20], y[20:])


def worker(folder: Path, code: str) -> Path:
    path = folder / "worker.py"
    path.write_text(f"import json, pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\n{code}")
    return path


def test_the_peer_gets_the_network_and_its_rows(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
import shutil
for path in folder.iterdir():
    shutil.copy(path, {str(tmp_path)!r})
for point in json.loads((folder / "points.json").read_text()):
    print(json.dumps({{"accuracy": point["kept"] / 10}}), flush=True)
"""
    monkeypatch.setattr(peer, "WORKER", worker(tmp_path, code))
    points = [Point("net", 6, kept) for kept in (6, 4)]
    found = list(measure(Path(sys.executable), {"net": case}, points))
    assert found == [(points[0], {"accuracy": 0.6}), (points[1], {"accuracy": 0.4})]
    with np.load(tmp_path / "net.npz") as arrays:
        np.testing.assert_array_equal(arrays["calibration"], case.calibration)
        np.testing.assert_array_equal(arrays["x"], case.x_test)
        np.testing.assert_array_equal(arrays["y"], case.y_test)
    path = tmp_path / "net.onnx"
    assert [entry.version for entry in onnx.load(path).opset_import] == [14]
    scores = onnxruntime.InferenceSession(path).run(None, {"x": case.x_test})[0]
    expected = case.net(torch.tensor(case.x_test)).detach().numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)


def test_a_peer_that_fails_is_no_result(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "WORKER", worker(tmp_path, "print('{}', flush=True)\nsys.exit(3)"))
    points = [Point("net", 6, 6), Point("net", 6, 4)]
    results = measure(Path(sys.executable), {"net": case}, points)
    assert next(results) == (points[0], {})
    with pytest.raises(SystemExit, match="ended with 3"):
        next(results)


def test_figures_name_the_point() -> None:
    (figure,) = figures(iter([(Point("net", 6, 4), {"compile_seconds": 2.0})]))
    assert (figure.name, figure.value) == ("net, n_bits 6, approximate 4: compile seconds", 2.0)


def test_the_peer_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requires = [
        "torch (==2.3.1) ; platform_system != 'Darwin'",
        "torchvision",
        "setuptools (==75.3.0)",
        "numpy (==1.26.4) ; python_full_version >= '3.9.0'",
        "pytest ; extra == 'dev'",
    ]
    report = {"install": [{"metadata": {"requires_dist": requires}}]}
    calls: list[tuple[str, ...]] = []

    def pip(_: Path, *arguments: str) -> str:
        calls.append(arguments)
        return json.dumps(report)

    monkeypatch.setattr(environment, "_pip", pip)
    monkeypatch.setattr(environment.venv, "create", lambda folder, **_: folder.mkdir(exist_ok=True))
    folder = tmp_path / "peer"
    python = environment.peer_python(folder, "torch==9")
    assert python.is_relative_to(folder)
    assert calls[1] == ("torchvision", requires[3], "torch==9", "setuptools<81")
    assert calls[2] == ("--no-deps", environment.PEER)
    assert environment.peer_python(folder, "torch==9") == python
    assert len(calls) == 3
    environment.peer_python(folder, "torch==10")  # another torch: all of it again
    assert len(calls) == 6


def test_a_failed_installation_is_said_and_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "peer"
    monkeypatch.setattr(environment.venv, "create", lambda folder, **_: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(environment, "_requirements", lambda *_: ["one"])
    code = "#!/bin/sh\necho no such package >&2\nexit 1\n"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(code)
    (folder / "bin" / "python").chmod(0o755)
    for _ in range(2):
        with pytest.raises(SystemExit, match="no such package"):
            environment.peer_python(folder, "torch==9")
