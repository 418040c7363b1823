from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris

from cipherlearn.errors import CalibrationWarning
from cipherlearn.sklearn import KMeans, MiniBatchKMeans

pytestmark = pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")

X, _ = load_iris(return_X_y=True)


@pytest.mark.parametrize("clusters", [1, 2, 3, 8])
@pytest.mark.parametrize("reveal", ["selection", "distances"])
def test_rows_belong_to_the_nearest_center(clusters: int, reveal: str) -> None:
    model = KMeans(
        clusters, n_init=1, random_state=0, n_bits=7 if reveal == "selection" else 10, reveal=reveal
    ).fit(X)
    assert model.predict(X).dtype == np.int32
    assert (model.predict(X) == model.labels_).mean() > 0.97
    assert len(model.fit_predict(X)) == len(X)


def test_distances_are_new_features() -> None:
    model = KMeans(3, n_init=1, random_state=0, n_bits=12, reveal="distances").fit(X)
    np.testing.assert_allclose(model.transform(X), model.sklearn_model.transform(X), atol=0.05)


def test_training_goes_on() -> None:
    model = MiniBatchKMeans(3, random_state=0, n_bits=7).partial_fit(X[:60])
    model.partial_fit(X[60:])
    assert (model.predict(X) == model.sklearn_model.predict(X)).mean() > 0.97


def test_single_precision() -> None:
    model = KMeans(3, n_init=1, random_state=0, n_bits=7).fit(X.astype(np.float32))
    assert model.agreement_ > 0.97


def test_a_row_without_a_nearest_center() -> None:
    model = KMeans(3, n_init=1, random_state=0).fit(X)
    with pytest.warns(CalibrationWarning, match="no center is the nearest of 1 rows"):
        found = model.post_processing(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert found.tolist() == [0, 2]


def test_a_single_center_is_compiled() -> None:
    model = KMeans(1, n_bits=3).fit(X)
    model.compile(X[:1], check=True)
    np.testing.assert_array_equal(model.predict(X[:3], fhe="execute"), 0)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_equal_centers_are_one() -> None:
    model = KMeans(2, n_init=1).fit(np.ones((5, 2)))
    model.compile(engine="clear")
    np.testing.assert_array_equal(model.predict(np.ones((1, 2)), fhe="simulate"), 0)


def test_score() -> None:
    model = KMeans(3, n_init=1, random_state=0, n_bits=12, reveal="distances").fit(X)
    weights = np.arange(len(X)) / len(X)
    for given in (None, weights):
        theirs = model.sklearn_model.score(X, sample_weight=given)
        assert model.score(X, sample_weight=given) == pytest.approx(theirs, rel=0.01)
    with pytest.raises(AttributeError, match=r"score needs the distances.*reveal='distances'"):
        KMeans(3).fit(X).score(X)


def test_distances_in_tables() -> None:
    model = KMeans(3, n_init=1, random_state=0, n_bits=12, reveal="distances")
    expected = model.fit_transform(X)
    found = model.set_output(transform="pandas").transform(X)
    assert list(found.columns) == ["kmeans0", "kmeans1", "kmeans2"]
    np.testing.assert_array_equal(found.to_numpy(), expected)
    assert list(model.fit_transform(X).columns) == list(found.columns)
