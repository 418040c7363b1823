from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import neighbors
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_iris,
    make_classification,
)
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from cipherlearn import sklearn as estimators
from cipherlearn.errors import AgreementWarning, CalibrationWarning, InvalidParameterError
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
    for reveal in ("selection", "distances"):
        model = KNeighborsClassifier(n_neighbors=20, reveal=reveal).fit(X[:10], Y[:10])
        with pytest.raises(ValueError, match=r"n_neighbors must be from 1 to 10, .*not 20"):
            model.predict(FEW)


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
    for method, expected in ((model.predict, 7), (model.predict_proba, 0)):
        with pytest.warns(UserWarning, match="Outlier label 7 is not in training classes"):
            assert (method(FAR) == expected).all()
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
    assert np.abs(np.subtract(sizes, [len(each) for each in theirs])).max() <= 2
    assert all((each <= 0.5).all() for each in distances)


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("k", [1, 3])
def test_new_rows_among_many_equal_ones_have_neighbours(copies: int, k: int) -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.integers(0, 4, (300 // copies, 2)).astype(float), copies, axis=0)
    model = KNeighborsClassifier(k).fit(rows, rows.sum(axis=1) > 3)
    new = rng.uniform(0, 3, (200, 2))
    assert (model.predict(new) == model.sklearn_model.predict(new)).mean() > 0.9


def test_equal_rows() -> None:
    for n in (8, 15):
        model = KNeighborsClassifier(3).fit(np.ones((n, 2)), np.arange(n) % 3 > 0)
        model.compile(engine="clear")
        np.testing.assert_array_equal(model.predict([[1.0, 1.0]], fhe="execute"), [True])


def test_selecting_all_rows() -> None:
    for model in (
        KNeighborsClassifier(10, n_bits=3),
        KNeighborsRegressor(10, n_bits=3),
        RadiusNeighborsClassifier(radius=np.inf),
        RadiusNeighborsClassifier(radius=np.inf, reveal="distances"),
    ):
        model.fit(X[:10], Y[:10])
        model.compile(X[:1], check=True)
        theirs = model.sklearn_model.predict(FEW[:2])
        np.testing.assert_allclose(model.predict(FEW[:2], fhe="simulate"), theirs, atol=0.01)
        assert model.agreement_ == pytest.approx(1.0, abs=1e-3)


@pytest.mark.filterwarnings("ignore:inputs lie far outside", "ignore:Outlier label 0 is not")
@pytest.mark.parametrize(
    ("reveal", "p"), [("selection", 2), ("selection", 1), ("distances", 2), ("distances", 1)]
)
def test_what_is_beyond_the_ranges_has_no_neighbour(reveal: str, p: float) -> None:
    """Also where all features but one are those of a row of training."""
    options = {"radius": 0.5, "outlier_label": 0, "p": p}
    model = RadiusNeighborsClassifier(**options, reveal=reveal, n_bits=8)
    model.fit(X, Y + 1).compile(engine="clear")
    low, high = X.min(axis=0), X.max(axis=0)
    for past in (0.6, 1.0, 50.0):
        rows = np.repeat(X[::10], 8, axis=0)
        for feature in range(4):
            rows[2 * feature :: 8, feature] = low[feature] - past
            rows[2 * feature + 1 :: 8, feature] = high[feature] + past
        for fhe in ("disable", "simulate"):
            assert not model.predict(rows, fhe=fhe).any()


@pytest.mark.filterwarnings("ignore:inputs lie far outside")
def test_rows_beyond_the_ranges_of_many_features() -> None:
    """One feature far outside is little among many, for rounded comparisons."""
    x, t, y, _ = train_test_split(*load_breast_cancer(return_X_y=True), random_state=42)
    scaler = StandardScaler().fit(x)
    model = RadiusNeighborsRegressor(radius=4.0).fit(scaler.transform(x), y)
    model.compile(engine="clear")
    rows = scaler.transform(t)
    rows[:, 3] += 30.0
    with pytest.warns(UserWarning, match="no neighbors within specified radius"):
        assert np.isnan(model.predict(rows, fhe="simulate")).all()


@pytest.mark.filterwarnings("ignore:inputs lie far outside", "ignore:Mind that for 0 < p < 1")
@pytest.mark.parametrize("p", [0.5, 1, 2, 3])
def test_distances_of_rows_beyond_the_ranges_are_lower_bounds(p: float) -> None:
    options = {"p": p, "reveal": "distances", "n_bits": 12 if p == 2 else 8}
    model = KNeighborsClassifier(3, **options).fit(X, Y)
    far = T + np.array([0.0, 100.0, 0.0, -30.0])
    found, _ = model.kneighbors(far, 112)
    theirs, _ = model.sklearn_model.kneighbors(far, 112)
    assert (found <= theirs * 1.01).all()
    assert (found >= theirs * (0.1 if p < 1 else 0.9)).all()
    model = RadiusNeighborsClassifier(radius=0.5, **options).fit(X, Y)
    with pytest.warns(CalibrationWarning, match="38 of 38 rows lie more than the radius"):
        model.radius_neighbors(far, 1000.0)


def test_agreement_is_that_of_other_rows() -> None:
    x, y = make_classification(
        600,
        2,
        n_informative=2,
        n_redundant=0,
        n_clusters_per_class=1,
        class_sep=0.5,
        random_state=0,
    )
    options: dict[str, Any] = {"n_neighbors": 1, "n_bits": {"op_inputs": 8, "op_distances": 8}}
    with pytest.warns(AgreementWarning):
        model = KNeighborsClassifier(**options).fit(x[::2], y[::2])
    other = (model.predict(x[1::2]) == model.sklearn_model.predict(x[1::2])).mean()
    assert model.agreement_ == pytest.approx(other, abs=0.05)
    with pytest.warns(AgreementWarning):
        average = KNeighborsRegressor(**options).fit(x[::2], (y + x[:, 0])[::2])
    assert average.agreement_ < 0.96
    known = KNeighborsClassifier.from_model(model.sklearn_model, x[::2], n_bits=options["n_bits"])
    assert known.agreement_ == model.agreement_
    new = KNeighborsClassifier.from_model(model.sklearn_model, x[1::2], n_bits=options["n_bits"])
    assert new.agreement_ == pytest.approx(other, abs=0.01)


@pytest.mark.parametrize("reveal", ["selection", "distances"])
def test_rows_of_training_without_themselves(reveal: str) -> None:
    n_bits = 8 if reveal == "selection" else 14
    for kind, options in (
        (KNeighborsClassifier, {"n_neighbors": 5}),
        (RadiusNeighborsClassifier, {"outlier_label": 1}),
    ):
        model = kind(**options, reveal=reveal, n_bits=n_bits).fit(X, Y)
        assert model.score(None, Y) == pytest.approx(model.sklearn_model.score(None, Y), abs=0.03)
        assert (model.predict(None) == model.sklearn_model.predict(None)).mean() > 0.95
        model.compile(engine="clear")
        if reveal == "selection":
            with pytest.raises(InvalidParameterError, match="each without itself"):
                model.predict(None, fhe="execute")
        else:
            np.testing.assert_array_equal(model.predict(None, fhe="execute"), model.predict(None))
    average = KNeighborsRegressor(5, reveal=reveal, n_bits=n_bits).fit(X, X)
    assert np.abs(average.predict(None) - average.sklearn_model.predict(None)).mean() < 0.1
    with pytest.raises(InvalidParameterError, match=r"1 to 111, .*other than the row itself"):
        KNeighborsClassifier(112, reveal=reveal).fit(X, Y).predict(None)


def test_neighbours_of_rows_of_training() -> None:
    model = KNeighborsClassifier(4, reveal="distances", n_bits=15).fit(X, Y)
    theirs = model.sklearn_model
    np.testing.assert_allclose(model.kneighbors()[0], theirs.kneighbors()[0], atol=0.01)
    for rows in (None, T):
        for mode in ("connectivity", "distance"):
            found, expected = (of.kneighbors_graph(rows, 3, mode) for of in (model, theirs))
            assert type(found) is type(expected)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found.sum(axis=1), expected.sum(axis=1), atol=0.03)
    model = RadiusNeighborsClassifier(0.55, reveal="distances", n_bits=15, outlier_label=0)
    theirs = model.fit(X, Y).sklearn_model
    for rows in (None, T):
        found, places = model.radius_neighbors(rows, sort_results=True)
        expected, _ = theirs.radius_neighbors(rows, sort_results=True)
        assert all((np.diff(each) >= 0).all() for each in found)
        for ours, of in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, of, atol=0.02)
        graph = model.radius_neighbors_graph(rows, mode="distance", sort_results=True)
        assert graph.nnz == sum(map(len, places))
    with pytest.raises(ValueError, match="return_distance=True"):
        model.radius_neighbors(T, return_distance=False, sort_results=True)


def test_functions_of_distances_are_given_what_scikit_learn_gives() -> None:
    def softened(distances: Any) -> Any:
        return np.exp(-distances / (distances.max(axis=1, keepdims=True) + 1))

    for kind, weights in (
        (KNeighborsClassifier, softened),
        (RadiusNeighborsClassifier, lambda distances: 1 / (1 + distances)),  # an array of arrays
    ):
        model = kind(weights=weights, reveal="distances", n_bits=14).fit(X, Y)
        assert np.abs(model.predict_proba(T) - model.sklearn_model.predict_proba(T)).mean() < 0.01
    model = KNeighborsClassifier(weights=lambda d: 1.0 * (d < 0.3), reveal="distances", n_bits=12)
    model.fit(X, Y).predict(X)
    with pytest.raises(ValueError, match="weight of zero"):
        model.predict(FAR)


def test_comparisons_in_a_circle_are_told_of() -> None:
    model = KNeighborsClassifier(1).fit(X[:3], [0, 1, 2])
    model.module_.forward = lambda *_, **__: np.zeros((2, 3))
    with pytest.warns(CalibrationWarning, match=r"2 of 2 rows .* rounded .* in a circle"):
        model.predict(T[:2])


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


@pytest.mark.parametrize("priors", ["uniform", "empirical", [0.8, 0.1, 0.1]])
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_of_centroids(priors: Any, classes: int) -> None:
    if isinstance(priors, list):
        priors = [*priors[: classes - 1], sum(priors[classes - 1 :])]
    some = classes > Y
    rows = X[some][::3]
    model = NearestCentroid(priors=priors, reveal="distances", n_bits=15).fit(X[some], Y[some])
    model.compile(engine="clear")
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        theirs = getattr(model.sklearn_model, method)(rows)
        np.testing.assert_allclose(getattr(model, method)(rows), theirs, rtol=0.01, atol=0.01)
    found = model.predict_proba(rows[:3], fhe="execute")
    np.testing.assert_array_equal(found, model.predict_proba(rows[:3]))
    assert not hasattr(NearestCentroid(), "predict_proba")
    assert not hasattr(NearestCentroid(metric="manhattan", reveal="distances"), "predict_proba")


def test_unequal_priors_of_sums_of_absolute_values() -> None:
    with pytest.raises(InvalidParameterError, match=r"metric='manhattan' with unequal priors"):
        NearestCentroid(metric="manhattan", priors="empirical").fit(X, Y)
