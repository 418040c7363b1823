"""Replacements for reference kernels of the domain of classical machine learning.

The reference kernels compute integer features in integers, weights included, and cannot do without
attributes that are optional.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.aionnxml import (
    op_feature_vectorizer,
    op_linear_classifier,
    op_linear_regressor,
    op_normalizer,
    op_scaler,
    op_svm_classifier,
    op_svm_regressor,
)


def _on_floats(kernel: Any, **defaults: Any) -> type[OpRun]:
    """A kernel that reads its features as floats.

    Parameters
    ----------
    kernel : type
        The reference kernel.
    **defaults
        Values of attributes that are not given.
    """

    def run(self: Any, *features: np.ndarray, **attributes: Any) -> Any:
        given = {key: value for key, value in attributes.items() if value is not None}
        floats = (x if x.dtype.kind == "f" else x.astype(np.float32) for x in features)
        # `_run` is what a kernel consists of.
        return kernel._run(self, *floats, **{**attributes, **defaults, **given})  # noqa: SLF001

    return type(kernel.__name__, (kernel,), {"_run": run})


KERNELS: tuple[type[OpRun], ...] = (
    _on_floats(op_scaler.Scaler, offset=0.0, scale=1.0),
    _on_floats(op_normalizer.Normalizer),
    _on_floats(op_feature_vectorizer.FeatureVectorizer),
    _on_floats(op_linear_regressor.LinearRegressor, intercepts=[0.0]),
    _on_floats(op_linear_classifier.LinearClassifier, intercepts=[0.0]),
    _on_floats(op_svm_regressor.SVMRegressor),
    _on_floats(op_svm_classifier.SVMClassifier),
)
