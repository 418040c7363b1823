from __future__ import annotations

import numpy as np
import pytest

from cipherlearn.errors import AgreementWarning
from cipherlearn.sklearn import LogisticRegression
from cipherlearn.sklearn._agreement import agreement_of, alike, as_probable, explained, tell


@pytest.mark.parametrize(
    ("ours", "exact", "share"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 1.0),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], 0.0),
        ([5.0, 5.0], [5.001, 5.001], 1.0),
        ([6.0, 6.0], [5.0, 5.0], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 1.0),
        ([7.0], [7.0], 1.0),
        ([[1.0, 2.0], [2.0, 2.0]], [[1.0, 2.0], [2.0, 2.0]], 1.0),
        ([[1.0, 1.0], [2.0, 1.0]], [[1.0, 2.0], [2.0, 2.0]], 0.5),
    ],
)
def test_explained_variance(ours: list[float], exact: list[float], share: float) -> None:
    assert explained(np.array(ours), np.array(exact)) == pytest.approx(share)


def test_classes_that_are_as_probable() -> None:
    exact = np.array([[0.5, 0.5], [0.4, 0.6], [0.5, 0.5]])
    ours = np.array([[0.4, 0.6], [0.7, 0.3], [0.6, 0.4]])
    assert as_probable(ours, exact).tolist() == [True, False, True]
    labels = np.array([["a", "b"], ["a", "c"]])
    assert alike(labels, np.array([["a", "b"], ["a", "b"]])).tolist() == [True, False]


@pytest.mark.parametrize(("misses", "poor"), [(0, False), (2, False), (3, False), (4, True)])
def test_labels_that_differ_are_told(misses: int, poor: bool) -> None:
    ours, exact = np.zeros(200, dtype=np.int64), np.zeros(200, dtype=np.int64)
    ours[:misses] = 1
    found = agreement_of(ours, exact, of_values=False)
    assert found.share == 1 - misses / 200
    assert found.is_poor == poor
    if poor:
        with pytest.warns(AgreementWarning, match=r"LogisticRegression .*2\.0 % .*Try more bits"):
            tell(LogisticRegression(), found, ["more bits"])
    else:
        tell(LogisticRegression(), found, ["more bits"])


def test_values_that_differ_are_told() -> None:
    exact = np.arange(20.0)
    assert not agreement_of(exact + 0.1, exact, of_values=True).is_poor
    found = agreement_of(exact + 2.0, exact, of_values=True)
    with pytest.warns(AgreementWarning, match=r"R2 is 0\.88"):
        tell(LogisticRegression(), found, ["more bits"])
