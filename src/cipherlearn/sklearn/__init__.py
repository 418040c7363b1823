"""Estimators as scikit-learn has them, that predict on encrypted rows.

::

    from cipherlearn.sklearn import XGBClassifier

    model = XGBClassifier(n_estimators=50, n_bits=6).fit(X_train, y_train)
    model.compile()
    model.predict(X_test[:1], fhe="execute")

An estimator, and the library that it trains with, is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from sklearn.pipeline import Pipeline as _FloatPipeline

from cipherlearn.sklearn._catalog import estimator, estimator_for, estimator_names

#: What is imported from `cipherlearn.sklearn.pipeline` when it is first asked for.
_PIPELINES = ("Pipeline", "make_pipeline")


def from_model(model: Any, X: Any = None, **options: Any) -> Any:
    """An estimator from a fitted model of another library, without training.

    Parameters
    ----------
    model : object
        Fitted: of scikit-learn, XGBoost, LightGBM, CatBoost or interpret. Of native ones (a
        Booster, a plain CatBoost), the objective says what they become. Or a whole pipeline.
    X : array-like of shape (rows, features), optional
        Rows like those that it will see.
    **options
        As for ``from_model`` of the estimator: ``n_bits``, ``inputs``, ``ensembling``, ...; of a
        pipeline, ``public`` as well.

    Raises
    ------
    InvalidTypeError
        If no estimator wraps models of this class.
    """
    if isinstance(model, _FloatPipeline):
        from cipherlearn.sklearn.pipeline import Pipeline

        return Pipeline.from_model(model, X, **options)
    return estimator_for(model).from_model(model, X, **options)


def from_onnx(model: Any, X: Any = None, **options: Any) -> Any:
    """An estimator from an ONNX model that is one tree ensemble, without training.

    Parameters
    ----------
    model : ModelProto, bytes, str or path
    X : array-like of shape (rows, features), optional
        Rows like those that it will see.
    **options
        ``n_bits``, ``inputs``, ``ensembling``: see `cipherlearn.sklearn.trees.onnx_import`.

    Raises
    ------
    ModelError
        If the model is anything else, or is not supported.
    """
    from cipherlearn.sklearn.trees import onnx_import

    return onnx_import.from_onnx(model, X, **options)


def __getattr__(name: str) -> Any:
    if name in estimator_names():
        return estimator(name)
    if name in _PIPELINES:
        return getattr(importlib.import_module(f"{__name__}.pipeline"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["from_model", "from_onnx", *_PIPELINES, *estimator_names()])
