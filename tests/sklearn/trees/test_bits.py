from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from cipherlearn.errors import InvalidParameterError, UnknownKeyError
from cipherlearn.sklearn import DecisionTreeClassifier
from cipherlearn.sklearn import ExtraTreesClassifier as Trees
from cipherlearn.sklearn.trees.bits import TreeBits


@pytest.mark.parametrize(
    ("given", "bits"),
    [
        (3, TreeBits(3, 6)),
        (10, TreeBits(10, 10)),
        ({"op_inputs": 4}, TreeBits(4, 6)),
        ({"op_inputs": 4, "op_leaves": 3}, TreeBits(4, 3)),
    ],
)
def test_bits_as_users_give_them(given: Any, bits: TreeBits) -> None:
    assert TreeBits.of(given) == bits
    assert TreeBits.of(bits.as_dict) == bits


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (0, InvalidParameterError, "n_bits"),
        (13, InvalidParameterError, "12"),
        (2.5, InvalidParameterError, "n_bits"),
        ("many", InvalidParameterError, "'auto'"),
        ({"op_leaves": 3}, InvalidParameterError, "op_inputs"),
        ({"op_inputs": 3, "op_weights": 3}, UnknownKeyError, "op_weights"),
        ({"op_inputs": 3, "op_leaves": 17}, InvalidParameterError, "op_leaves"),
    ],
)
def test_other_bits_are_refused(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        TreeBits.of(given)


def test_auto_takes_few_bits_and_keeps_the_accuracy() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    weights = np.ones(400)
    exact = DecisionTreeClassifier(max_depth=3, n_bits=10, random_state=0).fit(x[:400], y[:400])
    auto = DecisionTreeClassifier(max_depth=3, n_bits="auto", random_state=0)
    auto.fit(x[:400], y[:400], sample_weight=weights)
    assert auto.n_bits_["op_inputs"] <= 5
    assert auto.score(x[400:], y[400:]) >= exact.score(x[400:], y[400:]) - 0.03


def test_auto_works_where_classes_are_too_small_to_divide() -> None:
    x = np.arange(40.0).reshape(20, 2)
    y = np.array(["a"] * 19 + ["b"])
    model = DecisionTreeClassifier(n_bits="auto", random_state=0).fit(x, y)
    assert set(model.n_bits_) == {"op_inputs", "op_leaves"}


def test_auto_passes_on_what_has_no_entry_a_row() -> None:
    xgboost = pytest.importorskip("cipherlearn.sklearn.trees.libraries.xgboost")
    x, y = load_breast_cancer(return_X_y=True)
    model = xgboost.XGBClassifier(n_estimators=5, n_bits="auto", early_stopping_rounds=2, n_jobs=1)
    model.fit(x[:400], y[:400], eval_set=[(x[400:], y[400:])], verbose=False)
    assert model.score(x[400:], y[400:]) > 0.9


def test_auto_works_with_more_classes_than_rows_held_out() -> None:
    x = np.arange(16.0).reshape(8, 2)
    model = DecisionTreeClassifier(n_bits="auto", random_state=0).fit(x, [0, 1, 2, 3] * 2)
    assert len(model.classes_) == 4


@pytest.mark.parametrize(("given", "used"), [(None, {0}), (7, {7})])
def test_auto_tries_all_bits_with_one_seed(
    given: int | None, used: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    seeds = []
    fit = Trees.fit

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        seeds.append(self.random_state)
        return fit(self, *arguments, **options)

    monkeypatch.setattr(Trees, "fit", counted)
    model = Trees(3, max_depth=2, n_bits="auto", random_state=given).fit(x[:200], y[:200])
    assert seeds[0] == model.random_state == given
    assert len(seeds) > 3
    assert set(seeds[1:]) == used
