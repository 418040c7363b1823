from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import mnist


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("given", "named", "keras")}
    for folder in found.values():
        folder.mkdir()
        (folder / "a.csv").touch()
    monkeypatch.setenv(mnist.DATA_VARIABLE, str(found["named"]))
    monkeypatch.setattr(mnist, "KERAS_DATA", found["keras"])
    return found


def test_data_is_looked_for_where_it_is_said_to_be_first(folders: dict[str, Path]) -> None:
    assert mnist.data_file("a.csv", folders["given"]) == folders["given"] / "a.csv"
    assert mnist.data_file("a.csv") == folders["named"] / "a.csv"
    (folders["named"] / "a.csv").unlink()
    assert mnist.data_file("a.csv") == folders["keras"] / "a.csv"


def test_a_given_folder_is_the_only_one(folders: dict[str, Path]) -> None:
    (folders["given"] / "a.csv").unlink()
    with pytest.raises(FileNotFoundError, match=mnist.DATA_VARIABLE) as error:
        mnist.data_file("a.csv", folders["given"])
    assert str(folders["given"]) in str(error.value)
    assert str(folders["named"]) not in str(error.value)


def test_missing_data_names_what_to_set_and_where_was_looked(folders: dict[str, Path]) -> None:
    with pytest.raises(FileNotFoundError, match=mnist.DATA_VARIABLE) as error:
        mnist.data_file("b.csv")
    assert all(str(folders[name]) in str(error.value) for name in ("named", "keras"))


def test_the_network_is_the_same_each_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "mnist.npz",
        x_train=rng.integers(0, 256, (300, 28, 28), dtype=np.uint8),
        y_train=rng.integers(0, 10, 300, dtype=np.uint8),
        x_test=rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        y_test=rng.integers(0, 10, 20, dtype=np.uint8),
    )
    threads = torch.get_num_threads()
    first, second = (mnist.mnist_mlp(tmp_path, epochs=2) for _ in range(2))
    other = mnist.mnist_mlp(tmp_path, seed=1, epochs=2)
    assert torch.get_num_threads() == threads
    assert first.x_test.shape == (20, 784)
    assert (first.x_test.min(), first.x_test.max()) == (0.0, 1.0)
    weights = [next(case.net.parameters()) for case in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
