from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from cipherlearn.errors import ModelError, NotFittedError
from cipherlearn.sklearn import _reading as reading


def test_differences_beyond_rounding_are_errors() -> None:
    ours = np.array([[1.0], [2.0]])
    reading.check_reading(ours, [1.0, 2.00001], "wrong")
    reading.check_reading(ours, [1.0, 2.01], "wrong", reach=1e4)
    reading.check_reading(ours, [1.0, 2.0002], "wrong", tolerance=1e-3)
    for theirs in ([1.0, 2.01], [1.0, np.nan], [[1.0, 2.0], [3.0, 4.0]]):
        with pytest.raises(ModelError, match=r"wrong .*differ by"):
            reading.check_reading(ours, theirs, "wrong")


def test_what_is_missing_is_an_unknown_version_and_our_errors_stay() -> None:
    unknown = r"sklearn \d.* not known here \(KeyError: 'trees'\)"
    with pytest.raises(ModelError, match=unknown), reading.reading(RandomForestClassifier):
        raise KeyError("trees")
    with pytest.raises(NotFittedError, match="ours"), reading.reading(RandomForestClassifier):
        raise NotFittedError("ours")
    with pytest.raises(ZeroDivisionError), reading.reading(RandomForestClassifier):
        raise ZeroDivisionError


def test_whether_a_model_is_fitted() -> None:
    model = RandomForestRegressor(2)
    assert not reading.is_fitted(model)
    assert reading.is_fitted(model.fit([[0.0], [1.0]], [0.0, 1.0]))
