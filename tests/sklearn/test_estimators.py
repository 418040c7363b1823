"""What holds for all estimators, beside scikit-learn's own contract: imports, copies, text."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.base import is_regressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from cipherlearn import sklearn as estimators
from cipherlearn.circuit import evaluate
from cipherlearn.errors import (
    AgreementWarning,
    InvalidParameterError,
    InvalidTypeError,
    ModelError,
    NotCompiledError,
    NotFittedError,
)
from cipherlearn.onnx import run_with_onnxruntime
from cipherlearn.sklearn._catalog import estimator_names
from cipherlearn.sklearn.trees.ensemble import TreeEnsemble
from tests.sklearn.quick import (
    LINEAR,
    NEURAL_NETS,
    TOLD,
    TREES,
    data_for,
    numbers_for,
    outputs,
    quick,
)

pytestmark = TOLD


@pytest.fixture(params=estimator_names())
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    quick(request.param)  # skips if its library is not there
    return request.param


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest) -> Any:
    return quick(request.param)


@pytest.fixture
def estimator(name: str) -> Any:
    return quick(name)


def float_model(estimator: Any) -> Any:
    """A fitted model of the library, and what it was fitted to."""
    return estimator.fit_benchmark(*numbers_for(estimator))[1]


def through_a_file(estimator: Any, folder: Path) -> Any:
    joblib.dump(estimator, folder / "estimator")
    return joblib.load(folder / "estimator")


COPIES: list[Callable[[Any, Path], Any]] = [
    lambda e, _: pickle.loads(pickle.dumps(e)),  # noqa: S301
    lambda e, _: copy.deepcopy(e),
    lambda e, _: copy.copy(e),
    through_a_file,
]


def test_copies_predict_alike(estimator: Any, tmp_path: Path) -> None:
    X, y = data_for(estimator)
    wanted = outputs(estimator.fit(X, y), X)
    for copied in COPIES:
        other = copied(estimator, tmp_path)
        np.testing.assert_allclose(outputs(other, X), wanted, rtol=1e-12)
    estimator.compile(engine="clear")
    for copied in COPIES:
        other = copied(estimator, tmp_path)
        np.testing.assert_allclose(outputs(other, X), wanted, rtol=1e-12)
        if not other.is_compiled:  # a program of an engine cannot be stored
            assert other.fhe_circuit is None
            with pytest.raises(NotCompiledError, match=r"compile\(\)"):
                outputs(other, X, fhe="execute")
            other.compile(engine="clear")
        found = outputs(other, X[:5], fhe="execute")
        np.testing.assert_allclose(found, wanted[:5], rtol=1e-12)
    assert estimator.is_compiled


def test_the_program_as_onnx(estimator: Any) -> None:
    X, y = data_for(estimator)
    model = estimator.fit(X, y).onnx_model
    onnx.checker.check_model(model)
    given = estimator.quantize_input(X[:3])
    known = estimator.circuit.inputs
    rows = [
        np.asarray(values, dtype=np.int64).reshape(3, *each.shape)
        for values, each in zip(given if isinstance(given, tuple) else [given], known, strict=True)
    ]
    wanted = evaluate(estimator.circuit, *rows)
    found = run_with_onnxruntime(model, *(values[0] for values in rows))
    for ours, theirs in zip(wanted.outputs, found, strict=True):
        np.testing.assert_array_equal(theirs, ours[0])


def test_stored_estimators_are_not_compiled(estimator: Any) -> None:
    estimator.fit(*data_for(estimator)).compile(engine="clear")
    assert not pickle.loads(pickle.dumps(estimator)).is_compiled  # noqa: S301
    assert not copy.deepcopy(estimator).is_compiled


def test_logarithms_of_probabilities(estimator: Any) -> None:
    if not hasattr(estimator, "predict_proba"):
        assert not hasattr(estimator, "predict_log_proba")
        return
    X, y = data_for(estimator)
    estimator.fit(X, y).compile(engine="clear")
    found = estimator.predict_log_proba(X[:9], fhe="execute")
    np.testing.assert_allclose(np.exp(found), estimator.predict_proba(X[:9]))


def test_text_names_the_column(tree: Any) -> None:
    X, y = data_for(tree)
    rows = X.astype(object)
    rows[:, 2] = "red"
    rows[5, 2] = "12"
    with pytest.raises(InvalidParameterError, match=r"column 2 of X holds text, such as 'red'.*g"):
        tree.fit(rows, y)
    with pytest.raises(InvalidParameterError, match="column 2 of X holds text"):
        tree.fit(rows.tolist(), y)
    frame = pd.DataFrame(X, columns=list("abcd")).assign(c="red")
    if not tree._takes_categories():
        message = "columns? .*'c'.* hold.*(encode it as numbers|set enable_categorical)"
        with pytest.raises(InvalidParameterError, match=message):
            tree.fit(frame, y)
    tree.fit(frame.assign(c=1.0), y)
    with pytest.raises(InvalidParameterError, match="column"):
        tree.predict(frame)
    with pytest.raises(ValueError, match="feature names"):
        tree.predict(frame[["c", "a", "b", "d"]])


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")  # whatever the seed
def test_benchmarks_change_no_parameter(
    estimator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    for name in ("allow_writing_files", "logging_level"):
        if name in estimator.get_params():
            estimator.set_params(**{name: None})
    monkeypatch.chdir(tmp_path)
    before = estimator.get_params()
    estimator.fit_benchmark(*numbers_for(estimator), random_state=7)
    assert repr(estimator.get_params()) == repr(before)
    if "allow_writing_files" in before:
        assert not capfd.readouterr().out
    assert not list(tmp_path.iterdir())
    if (given := estimator.seed_name()) is not None:
        seed = estimator.set_params(**{given: None}).seed_name()
        floats = estimator.fit_benchmark(*numbers_for(estimator))[1]
        assert estimator.get_params()[seed] is None
        seeds = [model.get_params()[seed] for model in (floats, estimator.sklearn_model)]
        assert seeds[0] == seeds[1] is not None


def test_agreement_with_an_imported_model(tree: Any) -> None:
    X, *arguments = numbers_for(tree)
    floats = tree.fit_benchmark(X, *arguments)[1]
    assert tree.agreement_ is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AgreementWarning)
        coarse = type(tree).from_model(floats, X, n_bits=1)
    bits = {"op_inputs": 10, "op_leaves": 16}
    fine = type(tree).from_model(floats, X, n_bits=bits, inputs="used-thresholds")
    assert 0.99 < fine.agreement_ <= 1.0
    assert coarse.agreement_ <= fine.agreement_
    assert type(tree).from_model(floats).agreement_ is None
    if not is_regressor(tree):
        theirs = np.asarray(floats.predict(X)).reshape(-1)
        # Where two classes are equally probable, either agrees.
        assert coarse.agreement_ >= (coarse.predict(X) == theirs).mean() - 0.02


def test_imported_models_take_missing_values(tree: Any) -> None:
    X, *_ = numbers_for(tree)
    floats = float_model(tree)
    bits = {"op_inputs": 8, "op_leaves": 16}
    model = type(tree).from_model(floats, X, n_bits=bits, inputs="used-thresholds")
    gaps = X.astype(np.float64)
    gaps[::3, 1] = np.nan
    if not get_tags(tree).input_tags.allow_nan:
        with pytest.raises(ValueError, match="contains NaN"):
            model.predict(gaps)
        return
    assert type(tree).from_model(floats, X).predict(gaps).shape == (len(X),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some libraries warn of values that training lacked
        wanted = np.asarray(floats.predict(gaps)).reshape(len(X))
    found = model.predict(gaps)
    if is_regressor(tree):
        np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-2 * np.abs(wanted).max())
    else:
        assert (found == wanted).mean() > 0.85  # a single tree has classes that are as probable


def test_only_the_last_step_can_be_imported(estimator: Any) -> None:
    floats = estimator.float_class()
    with pytest.raises(InvalidTypeError, match=r"Pipeline .*pipeline\[-1\], with X"):
        type(estimator).from_model(make_pipeline(StandardScaler(), floats))
    for take in (estimators.from_model, type(estimator).from_model):
        with pytest.raises(InvalidTypeError, match=r"GridSearchCV .*search\.best_estimator_"):
            take(GridSearchCV(floats, {}))


@pytest.mark.parametrize("error", [AttributeError("_trees"), KeyError("trees"), TypeError("no")])
def test_models_of_unknown_versions(
    estimator: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    if type(estimator).__name__ in NEURAL_NETS:
        pytest.skip("what it reads is a module of ours, and not of a library")
    X, *_ = numbers_for(estimator)
    floats = float_model(estimator)

    def read(*_: Any) -> TreeEnsemble:
        raise error

    reads = "_library_scores" if type(estimator).__name__ in LINEAR else "read"
    monkeypatch.setattr(type(estimator), reads, staticmethod(read))
    package = type(estimator).float_class.__module__.partition(".")[0]
    with pytest.raises(ModelError, match=rf"{package} \d.* stores models in a way that is not"):
        type(estimator).from_model(floats, X)
    with pytest.raises(NotFittedError, match="is not fitted"):
        type(estimator).from_model(estimator.float_class(), X)


def test_what_was_read_is_compared_with_the_library(
    tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = data_for(tree)
    right = TreeEnsemble.raw_scores
    monkeypatch.setattr(TreeEnsemble, "raw_scores", lambda self, rows: right(self, rows) + 0.1)
    with pytest.raises(ModelError, match=r"is not understood: .* differ by 0\.1"):
        tree.fit(X, y)
    assert not tree.is_fitted
