from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import neighbors
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import train_test_split

from cipherlearn import sklearn as estimators
from cipherlearn.errors import CalibrationWarning, InvalidParameterError
from cipherlearn.sklearn import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)

pytestmark = pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")

X, T, Y, YT = train_test_split(*load_iris(return_X_y=True), random_state=42)
T = np.clip(T, X.min(axis=0), X.max(axis=0))
FEW = np.clip(T, X[:10].min(axis=0), X[:10].max(axis=0))
DIABETES = train_test_split(*load_diabetes(return_X_y=True), random_state=42)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("p", [1, 2])
def test_nearest_rows_vote(k: int, p: int) -> None:
    model = KNeighborsClassifier(n_neighbors=k, p=p).fit(X, Y)
    assert (model.predict(T) == model.sklearn_model.predict(T)).mean() >= 0.97
    shares = model.predict_proba(T)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    votes = model.module_.forward(T).sum(axis=1)
    assert (votes >= k).mean() > 0.9
    assert votes.mean() < 2 * k + 2
    simulated = model.compile(engine="clear") and model.predict(T, fhe="simulate")
    assert (simulated == YT).mean() > 0.9


def test_few_rows_are_ranked() -> None:
    model = KNeighborsClassifier(n_neighbors=3).fit(X[:10], Y[:10])
    np.testing.assert_array_equal(model.module_.forward(FEW).sum(axis=1), 3)
    assert (model.predict(FEW) == model.sklearn_model.predict(FEW)).mean() > 0.9


def test_several_targets_and_names() -> None:
    names = np.array(["a", "b", "c"])[Y]
    both = np.stack([names, np.where(Y == 1, "x", "y")], axis=1)
    model = KNeighborsClassifier(n_neighbors=3).fit(X, both)
    found = model.predict(T)
    assert found.shape == (len(T), 2)
    assert (found == model.sklearn_model.predict(T)).mean() > 0.97
    shares = model.predict_proba(T)
    assert [each.shape for each in shares] == [(len(T), 3), (len(T), 2)]
    logs = model.predict_log_proba(T)
    np.testing.assert_allclose(np.exp(logs[1]), shares[1])


def test_more_neighbours_than_rows() -> None:
    with pytest.raises(ValueError, match="n_neighbors"):
        KNeighborsClassifier(n_neighbors=20).fit(X[:10], Y[:10])
    model = KNeighborsClassifier(n_neighbors=10).fit(X[:10], Y[:10])
    assert len(set(model.predict(FEW))) == 1


def test_rows_without_a_neighbour_in_reach() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + 50.0])
    labels = (np.arange(60) % 3 == 0).astype(int)
    model = KNeighborsClassifier(n_neighbors=1).fit(rows, labels)
    with pytest.warns(CalibrationWarning, match=r"1 of 1 rows have no neighbour within reach"):
        found = model.predict_proba([[25.0, 25.0]])
    np.testing.assert_allclose(found, [[1 - labels.mean(), labels.mean()]])


def test_targets_are_averaged() -> None:
    x, t, y, yt = DIABETES
    model = KNeighborsRegressor().fit(x, y)
    assert model.score(t, yt) > model.sklearn_model.score(t, yt) - 0.03
    both = KNeighborsRegressor().fit(x, np.stack([y, -y], axis=1))
    found = both.predict(t)
    np.testing.assert_allclose(found[:, 0], model.predict(t))
    np.testing.assert_allclose(found[:, 0], -found[:, 1], atol=np.ptp(y) / 255)
    flat = KNeighborsRegressor().fit(x, np.full(len(x), 7.0))
    np.testing.assert_allclose(flat.predict(t), 7.0)


def test_sums_of_bits_are_sums_of_targets() -> None:
    x, _, y, _ = DIABETES
    model = KNeighborsRegressor(n_neighbors=8).fit(x[:8], y[:8])
    np.testing.assert_allclose(model.predict(x[:8]), y[:8].mean(), atol=np.ptp(y[:8]) / 255)


def test_within_a_radius() -> None:
    model = RadiusNeighborsClassifier(radius=0.8, n_bits=6).fit(X, Y)
    assert (model.predict(T) == model.sklearn_model.predict(T)).mean() > 0.95
    average = RadiusNeighborsRegressor(radius=0.8, n_bits=6).fit(X, Y * 1.0)
    theirs = average.sklearn_model.predict(T)
    assert np.abs(average.predict(T) - theirs).mean() < 0.03


FAR = np.array([[7.9, 2.0, 1.0, 2.5]])


def test_rows_without_a_neighbour_within_the_radius() -> None:
    model = RadiusNeighborsClassifier(radius=0.5).fit(X, Y)
    with pytest.raises(InvalidParameterError, match="No neighbors found for test samples"):
        model.predict(FAR)
    for label, shares in (("most_frequent", 1.0), (2, 1.0)):
        model = RadiusNeighborsClassifier(radius=0.5, outlier_label=label).fit(X, Y)
        np.testing.assert_array_equal(model.predict(FAR), model.sklearn_model.predict(FAR))
        assert model.predict_proba(FAR).sum() == shares
    model = RadiusNeighborsClassifier(radius=0.5, outlier_label=7).fit(X, Y)
    assert model.predict(FAR) == 7
    assert not model.predict_proba(FAR).any()
    average = RadiusNeighborsRegressor(radius=0.5).fit(X, Y)
    with pytest.warns(UserWarning, match="no neighbors within specified radius"):
        assert np.isnan(average.predict(FAR)).all()


@pytest.mark.parametrize("weights", ["uniform", "distance", lambda d: 1.0 / (1.0 + d), None])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_revealed_distances(weights: Any, p: int) -> None:
    options = {"weights": weights, "p": p, "n_neighbors": 5}
    n_bits = 12 if p == 2 else 8
    model = KNeighborsClassifier(**options, reveal="distances", n_bits=n_bits).fit(X, Y)
    theirs = neighbors.KNeighborsClassifier(**options).fit(X, Y)
    assert (model.predict(T) == theirs.predict(T)).mean() > 0.97
    distances, places = model.kneighbors(T)
    expected, their_places = theirs.kneighbors(T)
    np.testing.assert_allclose(distances, expected, atol=0.03 if p == 2 else 0.15)
    if p == 2:
        assert np.abs(model.predict_proba(T) - theirs.predict_proba(T)).mean() < 0.02
    assert places.shape == their_places.shape
    few = model.kneighbors(T, 2, return_distance=False)
    np.testing.assert_array_equal(few, places[:, :2])
    average = KNeighborsRegressor(**options, reveal="distances", n_bits=n_bits).fit(X, X)
    np.testing.assert_allclose(average.predict(T), average.sklearn_model.predict(T), atol=0.4)
    model.compile(engine="clear")
    np.testing.assert_array_equal(model.kneighbors(T[:9], fhe="execute")[1], places[:9])


def test_revealed_radius() -> None:
    model = RadiusNeighborsClassifier(radius=1.0, reveal="distances", n_bits=12, weights="distance")
    model.fit(X, Y)
    assert (model.predict(T) == model.sklearn_model.predict(T)).all()
    distances, places = model.radius_neighbors(T, 0.5)
    theirs, _ = model.sklearn_model.radius_neighbors(T, 0.5)
    sizes = [len(each) for each in places]
    assert np.abs(np.subtract(sizes, [len(each) for each in theirs])).max() <= 1
    assert all((each <= 0.5).all() for each in distances)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("KNeighborsClassifier", "kneighbors"),
        ("RadiusNeighborsRegressor", "radius_neighbors"),
        ("KMeans", "transform"),
    ],
)
def test_what_needs_the_distances(name: str, method: str) -> None:
    model = getattr(estimators, name)()
    assert not hasattr(model, method)
    with pytest.raises(AttributeError, match=rf"{method} needs the distances.*reveal='distances'"):
        getattr(model, method)
    assert hasattr(model.set_params(reveal="distances"), method)
    if "weights" in model.get_params():
        other = model.set_params(reveal="selection", weights="distance")
        with pytest.raises(InvalidParameterError, match=r"weights='distance'.*reveal='distances'"):
            other.fit(X, Y)


def test_wrong_parameters() -> None:
    with pytest.raises(InvalidParameterError, match="reveal must be one of"):
        KNeighborsClassifier(reveal="all").fit(X, Y)
    with pytest.raises(InvalidParameterError, match=r"metric: .*'chebyshev'"):
        KNeighborsClassifier(metric="chebyshev").fit(X, Y)
    with pytest.raises(InvalidParameterError, match=r"op_distances.*between 2 and 8"):
        KNeighborsClassifier(n_bits={"op_inputs": 4, "op_distances": 1}).fit(X, Y)
    with pytest.raises(InvalidParameterError, match="8 at most"):
        KNeighborsClassifier(n_bits=9, p=1, reveal="distances").fit(X, Y)
    model = KNeighborsClassifier(reveal="distances").fit(X, Y)
    for count in (0, 1000):
        with pytest.raises(InvalidParameterError, match="n_neighbors must be from 1 to 112"):
            model.kneighbors(T, count)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metric": "manhattan"},
        {"shrink_threshold": 0.5},
        {"priors": "empirical"},
        {"priors": [0.8, 0.1, 0.1]},
    ],
    ids=repr,
)
@pytest.mark.parametrize("reveal", ["selection", "distances"])
def test_nearest_centroid(options: dict[str, Any], reveal: str) -> None:
    model = NearestCentroid(n_bits=7, reveal=reveal, **options).fit(X, Y)
    assert (model.predict(T) == model.sklearn_model.predict(T)).mean() > 0.97
    if reveal == "selection":
        np.testing.assert_array_equal(model.module_.forward(T).sum(axis=1), 1)
    assert not hasattr(model, "predict_proba")


def test_unequal_priors_of_sums_of_absolute_values() -> None:
    with pytest.raises(InvalidParameterError, match=r"metric='manhattan' with unequal priors"):
        NearestCentroid(metric="manhattan", priors="empirical").fit(X, Y)
