"""Votes of pairs of classes, as LIBSVM counts them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import svm
from sklearn.datasets import make_classification

from cipherlearn.sklearn.networks.votes import Coupling, Votes, pair_coefficients


@pytest.mark.parametrize("n_classes", [3, 5])
def test_votes_are_those_of_scikit_learn(n_classes: int) -> None:
    X, y = make_classification(
        200, 5, n_informative=4, n_redundant=0, n_classes=n_classes, random_state=0
    )
    model = svm.SVC(decision_function_shape="ovo", C=0.5).fit(X, y)
    pairs = model.decision_function(X)
    votes = Votes(n_classes)
    np.testing.assert_array_equal(votes.most(pairs), model.predict(X))
    model.set_params(decision_function_shape="ovr")
    np.testing.assert_allclose(votes.scores(pairs), model.decision_function(X))
    model.set_params(break_ties=True)
    np.testing.assert_array_equal(votes.scores(pairs).argmax(axis=1), model.predict(X))


def test_a_score_of_zero_is_for_the_second() -> None:
    assert Votes(3).most(np.zeros((1, 3))).tolist() == [2]
    assert Votes(3).most(np.array([[1.0, -1.0, 1.0]])).tolist() == [0]


def test_coefficients_of_pairs() -> None:
    dual = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    found = pair_coefficients(dual, np.array([1, 2, 1]))
    # Against each other: first and second, first and third, second and third class.
    wanted = [[1.0, 5.0, 0.0], [2.0, 0.0, 6.0], [3.0, 0.0, 7.0], [0.0, 4.0, 8.0]]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.filterwarnings("ignore:The `prob[AB]?", "ignore:.*probability.*:FutureWarning")
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_probabilities_are_those_of_scikit_learn(n_classes: int) -> None:
    X, y = make_classification(
        200, 5, n_informative=4, n_redundant=0, n_classes=n_classes, random_state=0
    )
    model = svm.SVC(decision_function_shape="ovo", probability=True, random_state=0).fit(X, y)
    pairs = model.decision_function(X).reshape(len(X), -1)
    found = Coupling(n_classes, model.probA_, model.probB_)(pairs)
    np.testing.assert_allclose(found, model.predict_proba(X), atol=1e-9)
