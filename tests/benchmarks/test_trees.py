from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from benchmarks import trees
from benchmarks.__main__ import BENCHMARKS
from benchmarks.report import Figure


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_imported(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").run)


def figures(found: Any) -> dict[str, float]:
    return {f.name.rpartition(": ")[2]: f.value for f in found if isinstance(f, Figure)}


def test_features_are_as_many_as_the_name_says() -> None:
    assert trees.data_of("breast cancer, 14 features")[0].shape[1] == 14
    assert trees.data_of("breast cancer")[0].shape[1] == 30
    assert trees.data_of("diabetes")[0].shape[1] == 10


def test_a_model_is_scored_priced_and_compared() -> None:
    model = trees.Model("DecisionTreeClassifier", "breast cancer", {"max_depth": 3, "n_bits": 4})
    split = trees.data_of(model.data)
    fitted = model.fitted(split)
    found = figures(trees._cost(model, fitted, split))
    assert found["area under the curve"] > 0.85
    assert found["look-ups"] >= 1
    assert found["complexity"] > 1e7
    assert figures(trees._agreement(model, split)) == {
        "rows predicted as by the library on the grid": 1.0
    }


def test_rows_that_differ_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    split = trees.data_of("breast cancer, 3 features")
    model = trees.Model("DecisionTreeClassifier", "", {"max_depth": 1, "n_bits": 3}).fitted(split)
    model.compile(engine="clear")
    forward = model.module_.forward

    def with_an_error(rows: np.ndarray, fhe: str = "disable") -> np.ndarray:
        return forward(rows) + (fhe == "execute" and rows[0, 0] == split[1][1, 0])

    monkeypatch.setattr(model.module_, "forward", with_an_error)
    assert trees.encrypted_rows(model, split[1][:4])[1] == 1


def test_every_estimator_has_a_small_model() -> None:
    names = [model.estimator for model in trees.small_models()]
    assert {"CatBoostRegressor", "IsolationForest", "XGBClassifier"} <= set(names)
    assert len(names) == len(set(names)) >= 20
