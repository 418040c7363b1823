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
