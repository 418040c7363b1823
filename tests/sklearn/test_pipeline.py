"""Whole pipelines: what the client computes, what is encrypted, and that it is the same."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import (
    compose,
    config_context,
    datasets,
    decomposition,
    impute,
    linear_model,
    preprocessing,
)
from sklearn import kernel_approximation as kernels
from sklearn import pipeline as floats
from sklearn.base import clone, is_classifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from cipherlearn import sklearn as ours
from cipherlearn.circuit import count_lookups
from cipherlearn.errors import (
    AgreementWarning,
    CalibrationWarning,
    InvalidParameterError,
    InvalidTypeError,
    ModelError,
    NotCompiledError,
    NotFittedError,
)
from cipherlearn.sklearn import Pipeline, from_model, make_pipeline
from cipherlearn.sklearn.linear.maps import Bits, Plain, Products, Squares

X, LABELS = datasets.load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[LABELS]


def logistic(**options: Any) -> Any:
    return ours.LogisticRegression(max_iter=1000, **{"n_bits": "auto", **options})


def quick_pipeline() -> Pipeline:
    return Pipeline([("scale", ours.StandardScaler()), ("pca", ours.PCA(3)), ("clf", logistic())])


CASES: list[tuple[list[Any], int, Any]] = [
    ([preprocessing.StandardScaler(), decomposition.PCA(2), logistic()], 0, Plain),
    ([ours.StandardScaler(), ours.PCA(2), logistic()], 0, Plain),
    ([preprocessing.StandardScaler(), "passthrough", logistic()], 0, Plain),
    ([SelectKBest(k=2), logistic()], 0, Plain),
    ([preprocessing.MinMaxScaler(), preprocessing.PolynomialFeatures(2), logistic()], 0, Products),
    ([preprocessing.PolynomialFeatures(2), preprocessing.StandardScaler(), logistic()], 1, Plain),
    ([preprocessing.PolynomialFeatures(3), logistic()], 1, Plain),
    ([preprocessing.SplineTransformer(), logistic()], 1, Plain),
    ([preprocessing.SplineTransformer(knots="quantile"), logistic()], 0, Bits),
    ([preprocessing.QuantileTransformer(n_quantiles=50), logistic()], 0, Bits),
    ([preprocessing.StandardScaler(), preprocessing.PowerTransformer(), logistic()], 0, Bits),
    ([kernels.RBFSampler(gamma=0.2, random_state=0), logistic()], 1, Plain),
    ([kernels.PolynomialCountSketch(random_state=0), logistic()], 1, Plain),
    ([preprocessing.StandardScaler(), ours.GaussianNB()], 0, Squares),
    ([preprocessing.StandardScaler(), decomposition.PCA(3), ours.GaussianNB()], 0, Products),
    ([preprocessing.RobustScaler(), ours.LinearDiscriminantAnalysis(n_bits=10)], 0, Plain),
]


@pytest.mark.parametrize(("steps", "client", "mapped"), CASES)
def test_pipelines_predict_as_those_of_float_models(
    steps: list[Any], client: int, mapped: type
) -> None:
    model, wanted = make_pipeline(*steps).fit_benchmark(X, NAMES)
    assert len(model.client_steps_) == client == len(model.client_learns_) - 1
    assert len(model.encrypted_steps_) == len(steps) - client
    assert type(model.module_.mapped) is mapped
    assert (model.predict(X) == wanted.predict(X)).mean() > 0.99
    assert model.agreement_ > 0.99
    model.compile(engine="clear")
    assert count_lookups(model.circuit).total == 0
    np.testing.assert_array_equal(model.predict(X[:9], fhe="execute"), model.predict(X[:9]))
    found = model.predict_proba(X, fhe="simulate")
    np.testing.assert_allclose(found, model.predict_proba(X))
    np.testing.assert_allclose(found, wanted.predict_proba(X), atol=0.15)
    assert model.score(X, NAMES) == pytest.approx(wanted.score(X, NAMES), abs=0.01)


def test_fitted_steps_are_of_the_kind_that_was_given() -> None:
    model = quick_pipeline().fit(X, NAMES)
    assert [type(step) for _, step in model.steps] == [
        ours.StandardScaler,
        ours.PCA,
        ours.LogisticRegression,
    ]
    assert model.named_steps["pca"].components_.shape == (3, 4)
    assert model["clf"].coef_.shape == (3, 3)
    alone = model[-1].predict(model[:-1].transform(X))
    assert (alone == model.predict(X)).mean() > 0.95
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert model.n_features_in_ == 4
    assert is_classifier(model)
    assert not clone(model).is_fitted


def test_real_encryption() -> None:
    model = quick_pipeline().fit(X, NAMES)
    model.compile()
    np.testing.assert_array_equal(model.predict(X[::50], fhe="execute"), model.predict(X[::50]))
    assert model.cost().complexity == model.fhe_circuit.complexity


def test_regressors_and_transformers() -> None:
    rows, targets = datasets.load_diabetes(return_X_y=True)
    steps = [preprocessing.StandardScaler(), decomposition.PCA(5)]
    model = make_pipeline(*steps, ours.Ridge(n_bits=10)).fit(rows, targets)
    wanted = floats.make_pipeline(*steps, linear_model.Ridge()).fit(rows, targets)
    np.testing.assert_allclose(model.predict(rows), wanted.predict(rows), atol=2.0)
    features = make_pipeline(preprocessing.StandardScaler(), ours.PCA(2, n_bits=10))
    found = features.fit_transform(rows)
    wanted = floats.make_pipeline(*steps[:1], decomposition.PCA(2)).fit_transform(rows)
    np.testing.assert_allclose(found, wanted, atol=0.02)
    frame = features.set_output(transform="pandas").transform(rows)
    assert frame.columns.tolist() == ["pca0", "pca1"]


def test_generalized_models_keep_their_link() -> None:
    rows, targets = datasets.load_diabetes(return_X_y=True)
    model, wanted = make_pipeline(
        preprocessing.StandardScaler(), ours.PoissonRegressor(n_bits=10)
    ).fit_benchmark(rows, targets)
    np.testing.assert_allclose(model.predict(rows), wanted.predict(rows), rtol=0.02)


@pytest.mark.parametrize(
    "last",
    [
        ours.RandomForestClassifier(5, max_depth=3, n_bits=5, random_state=0),
        ours.HistGradientBoostingClassifier(
            max_iter=3, n_bits=5, inputs="used-thresholds", random_state=0
        ),
        ours.KNeighborsClassifier(3),
        ours.RadiusNeighborsClassifier(1.5, outlier_label="setosa"),
        ours.NearestCentroid(),
        ours.KMeans(3, random_state=0),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize(
    "steps",
    [
        [preprocessing.StandardScaler()],
        [preprocessing.PowerTransformer(), preprocessing.MinMaxScaler((0, 8))],
    ],
    ids=["standard", "power"],
)
@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")
def test_models_that_compare_features_take_steps_of_each_by_itself(
    steps: list[Any], last: Any
) -> None:
    model = make_pipeline(*steps, last).fit(X, NAMES)
    assert model.client_steps_ == []
    # As if the client computed the steps: it has the same bits to encrypt.
    given = model[:-1].transform(X)
    sent = (model.quantize_input(X), model[-1].quantize_input(given))
    each = [bits if isinstance(bits, tuple) else (bits,) for bits in sent]
    for found, wanted in zip(*each, strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(model.predict(X), model[-1].predict(given))
    assert model.agreement_ == model[-1].agreement_
    model.compile(engine="clear")
    np.testing.assert_array_equal(model.predict(X[:9], fhe="execute"), model.predict(X[:9]))
    far = np.concatenate([X + 50, X - 50])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        found, wanted = model.predict(far), model[-1].predict(model[:-1].transform(far))
    np.testing.assert_array_equal(found, wanted)
    frame = pd.DataFrame(X, columns=list("abcd"))
    again = clone(model).fit(frame, NAMES)
    np.testing.assert_array_equal(again.predict(frame), model.predict(X))


@pytest.mark.parametrize(
    "last",
    [
        ours.MLPClassifier((8,), solver="lbfgs", max_iter=100, n_bits=6, random_state=0),
        ours.SVC(kernel="linear", n_bits=10),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_first_layers_take_affine_steps(last: Any) -> None:
    steps = [preprocessing.StandardScaler(), decomposition.PCA(3)]
    model, wanted = make_pipeline(*steps, last).fit_benchmark(X, NAMES)
    assert model.client_steps_ == []
    assert "mean" not in model.client_learns_[model.steps[-1][0]]
    assert (model.predict(X) == wanted.predict(X)).mean() > 0.98
    assert count_lookups(model.circuit).total == count_lookups(model[-1].circuit).total
    model.compile(engine="clear")
    np.testing.assert_array_equal(model.predict(X[:9], fhe="execute"), model.predict(X[:9]))
    for step, end in ((preprocessing.PowerTransformer(), last), (steps[0], ours.SVC())):
        with pytest.raises(InvalidParameterError, match=r"public=\['"):
            make_pipeline(step, end).fit(X, NAMES)


def test_models_that_compare_features_take_no_others() -> None:
    for step in (decomposition.PCA(3), preprocessing.FunctionTransformer(np.negative)):
        last = ours.DecisionTreeClassifier(max_depth=3)
        steps = [preprocessing.StandardScaler(), step, last]
        with pytest.raises(InvalidParameterError, match=r"mix them, or turn .*public=\['standards"):
            make_pipeline(*steps).fit(X, NAMES)
    steps = [preprocessing.StandardScaler(), ours.KNeighborsClassifier(reveal="distances")]
    with pytest.raises(InvalidParameterError, match="the client computes with its features"):
        make_pipeline(*steps).fit(X, NAMES)
    steps = [preprocessing.StandardScaler(), ours.KMeans(3, random_state=0)]
    constant = np.c_[X, np.ones(150)]
    model, wanted = make_pipeline(*steps).fit_benchmark(constant)
    assert (model.predict(constant) == wanted.predict(constant)).mean() > 0.97


def test_other_models_leave_public_steps_to_the_client() -> None:
    steps = [
        preprocessing.StandardScaler(),
        ours.RandomForestClassifier(5, max_depth=3, random_state=0),
    ]
    assert make_pipeline(*steps).fit(X, NAMES).client_steps_ == []
    for public in (True, ["standardscaler"]):
        model = make_pipeline(*steps, public=public).fit(X, NAMES)
        assert model.client_steps_ == ["standardscaler"]
        assert "all that" in model.client_learns_["standardscaler"]
        model.compile(engine="clear")
        np.testing.assert_array_equal(model.predict(X, fhe="execute"), model.predict(X))
        assert model.score(X, NAMES) > 0.9
    model = make_pipeline(preprocessing.PolynomialFeatures(), steps[1]).fit(X, NAMES)
    assert model.client_steps_ == ["polynomialfeatures"]


def test_steps_that_no_circuit_without_look_ups_has() -> None:
    steps = [preprocessing.StandardScaler(), kernels.RBFSampler(gamma=0.2), logistic()]
    with pytest.raises(InvalidParameterError, match=r"neither affine or quadratic.*public=\['sta"):
        make_pipeline(*steps).fit(X, NAMES)
    model = make_pipeline(*steps, public=["standardscaler"]).fit(X, NAMES)
    assert model.client_steps_ == ["standardscaler", "rbfsampler"]


@pytest.mark.parametrize("public", ["scale", ["nothing"], ["clf"], [["scale"]], None, 3])
def test_public_is_checked(public: Any) -> None:
    model = quick_pipeline().set_params(public=public)
    with pytest.raises(InvalidParameterError, match=r"public must be .*\['scale', 'pca'\]"):
        model.fit(X, NAMES)


def test_columns_by_name() -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    columns = compose.ColumnTransformer(
        [("scaled", preprocessing.StandardScaler(), ["a", "c"]), ("same", "passthrough", ["b"])]
    )
    model, wanted = make_pipeline(columns, logistic()).fit_benchmark(frame, NAMES)
    assert type(model.module_.mapped) is Plain
    assert (model.predict(frame) == wanted.predict(frame)).mean() > 0.99
    with pytest.raises(ValueError, match="missing"):
        model.predict(frame.rename(columns={"a": "z"}))
    mixed = frame.assign(d=np.where(X[:, 3] > 1, "wide", "narrow"))
    columns = compose.ColumnTransformer(
        [("coded", preprocessing.OneHotEncoder(), ["d"])], remainder="passthrough"
    )
    model, wanted = make_pipeline(columns, logistic()).fit_benchmark(mixed, NAMES)
    assert "categories" in model.client_learns_["columntransformer"]
    assert (model.predict(mixed) == wanted.predict(mixed)).mean() > 0.99


def test_parameters_reach_their_steps() -> None:
    search = GridSearchCV(
        quick_pipeline(), {"clf__n_bits": [8, 10], "pca__n_components": [2, 3]}, cv=2
    )
    search.fit(X, NAMES)
    assert search.best_estimator_.n_bits_["op_inputs"] == search.best_params_["clf__n_bits"]
    weights = np.where(LABELS == 0, 0.0, 1.0)
    model = quick_pipeline().fit(X, NAMES, clf__sample_weight=weights)
    assert "setosa" not in set(model.predict(X))


@pytest.mark.parametrize("public", [False, True])
def test_imports_of_fitted_pipelines(public: bool) -> None:
    steps = [preprocessing.StandardScaler(), decomposition.PCA(3)]
    wanted = floats.make_pipeline(*steps, linear_model.LogisticRegression()).fit(X, NAMES)
    model = from_model(wanted, X, public=public, n_bits=10)
    assert isinstance(model, Pipeline)
    assert model.n_bits_ == {"op_inputs": 10, "op_weights": 10}
    assert len(model.client_steps_) == (2 if public else 0)
    np.testing.assert_array_equal(model.predict(X), wanted.predict(X))
    forest = floats.make_pipeline(
        *steps, RandomForestClassifier(5, max_depth=3, random_state=0)
    ).fit(X, NAMES)
    assert from_model(forest, X, public=True).score(X, NAMES) > 0.85
    with pytest.raises(NotFittedError, match="not fitted"):
        from_model(clone(wanted), X)
    with pytest.raises(InvalidTypeError, match="takes a fitted Pipeline"):
        Pipeline.from_model(wanted[-1], X)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.predict(X),
        lambda model: model.predict_proba(X),
        lambda model: model.compile(),
        lambda model: model.circuit,
        lambda model: model.quantize_input(X),
    ],
)
def test_nothing_works_before_fit(use: Callable[[Any], Any]) -> None:
    with pytest.raises(NotFittedError, match="not fitted"):
        use(quick_pipeline())


def test_nothing_is_encrypted_before_compile() -> None:
    model = quick_pipeline().fit(X, NAMES)
    with pytest.raises(NotCompiledError, match=r"compile\(\)"):
        model.predict(X, fhe="execute")
    assert model.fhe_circuit is None
    assert not model.is_compiled
    model.compile(engine="clear")
    assert model.is_compiled
    copied = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert not copied.is_compiled
    np.testing.assert_array_equal(copied.predict(X), model.predict(X))
    model.fit(X[:, :3], NAMES)
    assert not model.is_compiled


def test_the_last_step_is_an_estimator() -> None:
    with pytest.raises(InvalidParameterError, match="must be an estimator"):
        make_pipeline(preprocessing.StandardScaler(), "passthrough").fit(X, NAMES)
    with pytest.raises(InvalidTypeError, match="DummyThing cannot be imported"):
        make_pipeline(type("DummyThing", (preprocessing.Normalizer,), {})()).fit(X, NAMES)
    with pytest.raises(AttributeError, match="nothing_like_that"):
        _ = quick_pipeline().nothing_like_that


def test_models_that_check_their_rows_take_no_steps() -> None:
    bins = preprocessing.KBinsDiscretizer(4, encode="ordinal", strategy="kmeans")
    for steps in ([bins, ours.CategoricalNB()], [bins, ours.IsotonicRegression()]):
        with pytest.raises(InvalidParameterError, match=r"public=\['kbinsdiscretizer'\]"):
            make_pipeline(*steps).fit(X[:, :1], LABELS)
        model, wanted = make_pipeline(*steps, public=True).fit_benchmark(X[:, :1], LABELS)
        np.testing.assert_allclose(model.predict(X[:, :1]), wanted.predict(X[:, :1]), atol=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_rare_is_not_left_out(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(2000, 4))
    rare = (rows[:, 0] > 1.4) & (rows[:, 1] > 1.4)

    def marked(rows: np.ndarray) -> np.ndarray:
        return np.c_[rows, (rows[:, 0] > 1.4) & (rows[:, 1] > 1.4)]

    steps = [preprocessing.StandardScaler(with_std=False, with_mean=False)]
    steps.append(preprocessing.FunctionTransformer(marked))
    with pytest.raises(InvalidParameterError, match="neither affine or quadratic"):
        make_pipeline(*steps, logistic(C=100.0)).fit(rows, rare)


@pytest.mark.parametrize(("offset", "unit"), [(0.0, 1.0), (0.0, 1e-8), (1e6, 1.0), (1e7, 1.0)])
def test_units_and_offsets_change_no_map(offset: float, unit: float) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3))
    targets = rows[:, 0] ** 2 + rows[:, 1] * rows[:, 2]
    steps = [preprocessing.StandardScaler(), preprocessing.PolynomialFeatures(2)]
    model = make_pipeline(*steps, ours.Ridge(n_bits=12)).fit(rows + offset, unit * targets)
    assert type(model.module_.mapped) is Products
    assert model.agreement_ > 0.999


STEPS: dict[str, Callable[[], Any]] = {
    "standard": preprocessing.StandardScaler,
    "range": preprocessing.MinMaxScaler,
    "components": lambda: decomposition.PCA(2),
    "white": lambda: decomposition.PCA(2, whiten=True),
    "powers": lambda: preprocessing.PolynomialFeatures(2),
    "ranks": lambda: preprocessing.QuantileTransformer(n_quantiles=30),
    "signs": preprocessing.Binarizer,
    "splines": lambda: preprocessing.SplineTransformer(knots="quantile"),
}
AFFINE = {"standard", "range", "components", "white"}
LAST = {"logistic": logistic, "ridge": lambda: ours.Ridge(n_bits="auto"), "bayes": ours.GaussianNB}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(list(STEPS)), min_size=1, max_size=3),
    st.sampled_from(list(LAST)),
    st.sampled_from([0.0, 1e3, -1e6]),
    st.sampled_from([1.0, 1e-6, 1e5]),
    st.sampled_from([0.02, 0.2, 1.0]),
    st.integers(0, 99),
)
def test_new_rows_are_answered_as_by_float_steps_or_it_is_told(
    names: list[str], last: str, offset: float, unit: float, rare: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(400, 4))
    rows[:, 3] *= generator.random(400) < rare
    values = rows[:, 0] + rows[:, 1] * rows[:, 2] + 0.5 * rows[:, 3]
    rows, targets = unit * (rows + offset), values if last == "ridge" else values > 0
    model = make_pipeline(*(STEPS[name]() for name in names), LAST[last]())
    new = rows[1::2].clip(rows[::2].min(axis=0), rows[::2].max(axis=0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", AgreementWarning)
            warnings.simplefilter("error", CalibrationWarning)
            warnings.simplefilter("ignore", RuntimeWarning)  # the library's, of constant features
            found = model.fit(rows[::2], targets[::2]).predict(new)
    except (InvalidParameterError, ModelError):
        assert last == "bayes" or not AFFINE.issuperset(names)
        return
    except (AgreementWarning, CalibrationWarning):
        return
    wanted = model.sklearn_model.predict(new)
    if last == "ridge":
        assert np.mean((found - wanted) ** 2) <= 0.1 * wanted.var() + 1e-9
    else:
        assert (found == wanted).mean() > 0.93


def test_steps_of_ours_are_read_as_float_models_wherever_they_are() -> None:
    columns = compose.ColumnTransformer(
        [("scaled", ours.StandardScaler(n_bits=2), [0, 1])], remainder="passthrough"
    )
    model = make_pipeline(columns, logistic()).fit(X, NAMES)
    assert type(model.module_.mapped) is Plain
    coarse = make_pipeline(ours.StandardScaler(n_bits=1), logistic()).fit(X, NAMES)
    fine = make_pipeline(ours.StandardScaler(n_bits=12), logistic()).fit(X, NAMES)
    np.testing.assert_array_equal(coarse.predict_proba(X), fine.predict_proba(X))


def test_what_float_pipelines_have() -> None:
    model = make_pipeline(preprocessing.StandardScaler(), ours.PCA(2, n_bits=10))
    model, wanted = model.fit_benchmark(X, random_state=0)
    np.testing.assert_allclose(model.score_samples(X), wanted.score_samples(X))
    assert model.score(X) == pytest.approx(wanted.score(X))
    features = model.transform(X)
    found = model.inverse_transform(features)
    np.testing.assert_allclose(found, wanted.inverse_transform(features))
    with pytest.raises(InvalidParameterError, match="in the clear"):
        model.score_samples(X, fhe="execute")
    assert type(model.sklearn_model) is floats.Pipeline
    np.testing.assert_array_equal(model.sklearn_model.transform(X), wanted.transform(X))
    drawn = make_pipeline(preprocessing.MinMaxScaler(), ours.SGDClassifier(), public=True)
    drawn, wanted = drawn.fit_benchmark(X, NAMES)
    np.testing.assert_array_equal(drawn.sklearn_model.predict(X), wanted.predict(X))
    assert drawn.get_params()["sgdclassifier__random_state"] is None


def test_what_needs_the_client_says_so() -> None:
    gaps = np.where(np.eye(150, 4) > 0, np.nan, X)
    with pytest.raises(InvalidParameterError, match="public="):
        make_pipeline(impute.SimpleImputer(), logistic()).fit(gaps, NAMES)
    steps = [impute.SimpleImputer(), logistic()]
    model, wanted = make_pipeline(*steps, public=True).fit_benchmark(gaps, NAMES)
    assert (model.predict(gaps) == wanted.predict(gaps)).mean() > 0.99


WORDS = pd.DataFrame(X, columns=list("abcd")).assign(e=np.where(X[:, 3] > 1, "wide", "narrow"))


def words_beside(*others: Any) -> Any:
    coded = preprocessing.OneHotEncoder(handle_unknown="ignore")
    return compose.ColumnTransformer([*others, ("e", coded, ["e"])])


def test_words_stay_with_the_client_and_numbers_are_scaled_under_encryption() -> None:
    scaled = floats.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(2))
    columns = words_beside(("n", scaled, ["a", "d", "b"]), ("out", "drop", ["c"]))
    model, wanted = make_pipeline(columns, logistic()).fit_benchmark(WORDS, NAMES)
    assert model.client_steps_ == ["columntransformer__e"]
    assert model.encrypted_steps_ == ["columntransformer__n", "logisticregression"]
    assert "categories" in model.client_learns_["columntransformer__e"]
    assert type(model.module_.mapped) is Plain
    assert model.circuit.inputs[0].shape == (1, 5)
    assert (model.predict(WORDS) == wanted.predict(WORDS)).mean() > 0.99
    model.compile(engine="clear")
    found = model.predict_proba(WORDS[:9], fhe="execute")
    np.testing.assert_array_equal(found, model.predict_proba(WORDS[:9]))
    assert model.predict(WORDS.assign(e="new")).shape == (150,)
    copied = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(copied.predict(WORDS), model.predict(WORDS))
    imported = from_model(wanted, WORDS, n_bits=10)
    assert imported.client_steps_ == model.client_steps_


@pytest.mark.parametrize("weights", [None, {"n": 10.0, "e": 0.5}, {"n": 0.1}])
@pytest.mark.parametrize("output", ["default", "pandas"])
def test_parted_steps_are_the_whole(weights: Any, output: str) -> None:
    columns = words_beside(
        ("n", preprocessing.StandardScaler(), ["a", "b"]),
        ("p", decomposition.PCA(2), ["a", "b", "d"]),
        ("none", preprocessing.MinMaxScaler(), []),
    )
    columns.set_params(transformer_weights=weights, verbose_feature_names_out=False)
    columns.transformers[-1][1].set_params(sparse_output=False)
    union = floats.FeatureUnion(
        [("s", preprocessing.StandardScaler()), ("r", kernels.RBFSampler(random_state=0))],
        transformer_weights=None if weights is None else {"s": 3.0, "r": 0.1},
    )
    for step, rows in ((columns, WORDS), (union, WORDS[["a", "b"]])):
        step.set_output(transform=output)
        model, wanted = make_pipeline(step, logistic()).fit_benchmark(rows, NAMES)
        assert len(model.client_steps_) == 1
        assert (model.predict(rows) == wanted.predict(rows)).mean() > 0.98
        with config_context(transform_output="pandas"):
            np.testing.assert_array_equal(model.predict(rows), model.predict(rows.copy()))


def test_columns_are_chosen_by_the_client() -> None:
    columns = compose.ColumnTransformer([("n", preprocessing.StandardScaler(), ["a", "b"])])
    model, wanted = make_pipeline(columns, logistic()).fit_benchmark(WORDS, NAMES)
    assert model.client_steps_ == ["columntransformer"]
    assert model.client_learns_["columntransformer"] == "nothing of the training data"
    assert model.circuit.inputs[0].shape == (1, 2)
    turned = WORDS[list("ebadc")]
    assert (model.predict(turned) == wanted.predict(turned)).mean() > 0.99


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")
def test_parameters_after_fit_are_those_of_the_last_step() -> None:
    near = make_pipeline(preprocessing.StandardScaler(), ours.KNeighborsClassifier(3))
    near.fit(X, NAMES).set_params(kneighborsclassifier__n_neighbors=9)
    with pytest.raises(InvalidParameterError, match="set after fit"):
        near.predict(X)
    pairs = make_pipeline(preprocessing.StandardScaler(), ours.SVC(kernel="linear", n_bits=10))
    four = np.arange(150) // 38
    pairs.fit(X, four).set_params(svc__decision_function_shape="ovo")
    assert pairs.decision_function(X).shape == (150, 6)
    model = quick_pipeline().fit(X, NAMES)
    model["clf"].fit(X[:, :3], NAMES)
    with pytest.raises(InvalidParameterError, match="trained again by itself"):
        model.predict(X)


def test_whatever_trains_trains_what_answers() -> None:
    model = make_pipeline(preprocessing.StandardScaler(), ours.KMeans(3, random_state=0))
    np.testing.assert_array_equal(model.fit_predict(X), model.predict(X))
    last = ours.MLPClassifier((4,), max_iter=2, warm_start=True, random_state=0)
    model = make_pipeline(preprocessing.StandardScaler(), last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = [model.fit(X, NAMES)[-1].t_ for _ in range(3)]
    assert np.diff(steps).tolist() == [300, 300]


def test_steps_that_know_categories_are_the_clients() -> None:
    ratings = np.random.default_rng(0).integers(1, 6, (150, 2)).astype(float)
    encoders = [
        preprocessing.TargetEncoder(),
        preprocessing.OneHotEncoder(min_frequency=2, sparse_output=False),
    ]
    for encoder in encoders:
        for last in (logistic(), ours.DecisionTreeClassifier(max_depth=3)):
            with pytest.raises(InvalidParameterError, match=r"only the client can tell.*public="):
                make_pipeline(encoder, last).fit(ratings, LABELS)
    trees = make_pipeline(impute.SimpleImputer(), ours.HistGradientBoostingClassifier(max_iter=3))
    with pytest.raises(InvalidParameterError, match=r"fill in.*public="):
        trees.fit(np.where(np.eye(150, 4) > 0, np.nan, X), LABELS)


def test_categories_pass_steps_that_leave_them() -> None:
    frame = WORDS.assign(e=WORDS["e"].astype("category"))
    last = ours.HistGradientBoostingClassifier(max_iter=3, max_depth=3, random_state=0)
    model = make_pipeline("passthrough", last).fit(frame, LABELS)
    np.testing.assert_array_equal(model.predict(frame), model[-1].predict(frame))
    coded = np.c_[X[:, :2], np.arange(150) % 3, X[:, 3]]
    columns = compose.ColumnTransformer(
        [("n", preprocessing.StandardScaler(), [0, 1])], remainder="passthrough"
    )
    last = clone(last).set_params(categorical_features=[2])
    model = make_pipeline(columns, last).fit(coded, LABELS)
    np.testing.assert_array_equal(
        model.predict(coded), model[-1].predict(model[:-1].transform(coded))
    )


def test_pipelines_in_pipelines_are_float_models() -> None:
    inner = make_pipeline(ours.StandardScaler(n_bits=2), ours.PCA(2, n_bits=2))
    model, wanted = make_pipeline(inner, logistic()).fit_benchmark(X, NAMES)
    assert type(model.module_.mapped) is Plain
    assert (model.predict(X) == wanted.predict(X)).mean() > 0.99
    assert type(wanted[0]) is floats.Pipeline
    scaled = ours.PCA(2).set_output(transform="pandas")
    named = compose.ColumnTransformer([("n", preprocessing.StandardScaler(), ["pca0"])])
    model = Pipeline([("p", scaled), ("c", named), ("clf", logistic())]).fit(X, NAMES)
    assert model["p"].transform(X).columns.tolist() == ["pca0", "pca1"]


def test_branches_can_be_public() -> None:
    filled = floats.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
    columns = words_beside(("n", filled, ["a", "d"]), ("s", preprocessing.StandardScaler(), ["b"]))
    gaps = WORDS.mask(np.eye(150, 5) > 0).assign(e=WORDS["e"], b=WORDS["b"])
    steps = [columns, logistic()]
    with pytest.raises(InvalidParameterError, match="public="):
        make_pipeline(*steps).fit(gaps, NAMES)
    model = make_pipeline(*steps, public=["columntransformer__n"])
    model, wanted = model.fit_benchmark(gaps, NAMES)
    assert model.encrypted_steps_ == ["columntransformer__s", "logisticregression"]
    assert "all that" in model.client_learns_["columntransformer__n"]
    assert (model.predict(gaps) == wanted.predict(gaps)).mean() > 0.99


def test_unions_are_parted_only_if_that_is_less_wide() -> None:
    projected = ("pca", decomposition.PCA(2))
    for other, client in (("passthrough", []), (preprocessing.PolynomialFeatures(3), ["union__o"])):
        union = floats.FeatureUnion([projected, ("o", other)])
        model = Pipeline([("union", union), ("clf", logistic())])
        model, wanted = model.fit_benchmark(X, NAMES)
        assert model.client_steps_ == client
        assert type(model.module_.mapped) is Plain
        assert (model.predict(X) == wanted.predict(X)).mean() > 0.99


def test_wrong_pipelines() -> None:
    with pytest.raises(InvalidParameterError, match="is empty"):
        Pipeline([]).fit(X, NAMES)
    wanted = floats.make_pipeline(preprocessing.StandardScaler(), linear_model.Ridge())
    with pytest.raises(InvalidParameterError, match="needs rows X"):
        from_model(wanted.fit(X, LABELS))
    mixed = floats.make_pipeline(preprocessing.StandardScaler(), ours.Ridge()).fit(X, LABELS)
    with pytest.raises(InvalidTypeError, match=r"\['ridge'\] are estimators of cipherlearn"):
        from_model(mixed, X)


@pytest.mark.filterwarnings(
    "ignore:inputs lie far outside", "ignore::cipherlearn.errors.AgreementWarning"
)
@parametrize_with_checks(
    [quick_pipeline().set_params(pca="passthrough")],
    expected_failed_checks=lambda _: dict.fromkeys(
        ("check_dont_overwrite_parameters", "check_estimators_overwrite_params"),
        "fails for scikit-learn's as well: fitted steps take the place of those that were given",
    ),
)
def test_scikit_learn_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_agreement_is_told_once_of_what_is_taken() -> None:
    projected = ("pca", decomposition.PCA(2))
    union = floats.FeatureUnion([projected, ("o", preprocessing.PolynomialFeatures(2))])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = make_pipeline(union, logistic(n_bits=1)).fit(X, NAMES)
    agreements = [each for each in told if issubclass(each.category, AgreementWarning)]
    assert len(agreements) == 1
    assert model.agreement_ < 0.99
