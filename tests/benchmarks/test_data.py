from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import data


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("given", "named", "keras")}
    for folder in found.values():
        folder.mkdir()
        (folder / "a.csv").touch()
    monkeypatch.setenv(data.DATA_VARIABLE, str(found["named"]))
    monkeypatch.setattr(data, "KERAS_DATA", found["keras"])
    return found


def test_data_is_looked_for_where_it_is_said_to_be_first(folders: dict[str, Path]) -> None:
    assert data.data_file("a.csv", folders["given"]) == folders["given"] / "a.csv"
    assert data.data_file("a.csv") == folders["named"] / "a.csv"
    (folders["named"] / "a.csv").unlink()
    assert data.data_file("a.csv") == folders["keras"] / "a.csv"


def test_a_given_folder_is_the_only_one(folders: dict[str, Path]) -> None:
    (folders["given"] / "a.csv").unlink()
    with pytest.raises(FileNotFoundError, match=data.DATA_VARIABLE) as error:
        data.data_file("a.csv", folders["given"])
    assert str(folders["given"]) in str(error.value)
    assert str(folders["named"]) not in str(error.value)


def test_missing_data_names_what_to_set_and_where_was_looked(folders: dict[str, Path]) -> None:
    with pytest.raises(FileNotFoundError, match=data.DATA_VARIABLE) as error:
        data.data_file("b.csv")
    assert all(str(folders[name]) in str(error.value) for name in ("named", "keras"))


def test_a_table_is_split_and_standardized(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ages = rng.normal(5, 3, 40)
    rows = [f"{'MFI'[row % 3]},{age},{2 * age + 1}" for row, age in enumerate(ages)]
    (tmp_path / "abalone.csv").write_text("\n".join(rows))
    x_train, x_test, y_train, y_test = data.table_data("abalone", tmp_path)
    assert (x_train.shape, x_test.shape, y_test.shape) == ((30, 4), (10, 4), (10,))
    np.testing.assert_allclose(x_train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x_train.std(axis=0), 1, rtol=1e-5)
    # One column for each word, and exactly one of them is high.
    assert all(len(np.unique(column)) == 2 for column in x_train[:, :3].T)
    assert ((x_train[:, :3] > 0).sum(axis=1) == 1).all()
    # The value is the age but for shift and scale, in test rows as well.
    np.testing.assert_allclose(y_train, x_train[:, 3], atol=1e-5)
    np.testing.assert_allclose(y_test, x_test[:, 3], atol=1e-5)
    again = data.table_data("abalone", tmp_path)
    np.testing.assert_array_equal(again[0], x_train)


def test_classes_stay_numbers(tmp_path: Path) -> None:
    (tmp_path / "phoneme.csv").write_text("\n".join(f"{row * row},{row % 2}" for row in range(20)))
    *_, y_train, y_test = data.table_data("phoneme", tmp_path)
    assert y_train.dtype == y_test.dtype == np.int64
    assert set(y_train) == {0, 1}
