from __future__ import annotations

from typing import Any

import pytest
from sklearn import (
    compose,
    impute,
    kernel_approximation,
    pipeline,
    preprocessing,
    random_projection,
)
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion

from cipherlearn.sklearn._public_steps import NOTHING, RANGES, public_part


class _Learning(preprocessing.Normalizer):  # type: ignore[misc]
    """Another class, that may learn anything."""


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("passthrough", NOTHING),
        (None, NOTHING),
        (preprocessing.PolynomialFeatures(), NOTHING),
        (preprocessing.FunctionTransformer(), NOTHING),
        (kernel_approximation.RBFSampler(gamma=0.5), NOTHING),
        (kernel_approximation.RBFSampler(gamma="scale"), None),
        (kernel_approximation.PolynomialCountSketch(), NOTHING),
        (random_projection.GaussianRandomProjection(2), NOTHING),
        (preprocessing.OneHotEncoder(), RANGES),
        (preprocessing.OneHotEncoder(min_frequency=3), None),
        (preprocessing.OrdinalEncoder(max_categories=3), None),
        (random_projection.SparseRandomProjection(), None),
        (random_projection.SparseRandomProjection(n_components=3), NOTHING),
        (impute.MissingIndicator(), None),
        (impute.SimpleImputer(), None),
        (impute.SimpleImputer(strategy="constant"), RANGES),
        (preprocessing.SplineTransformer(), RANGES),
        (preprocessing.SplineTransformer(knots="quantile"), None),
        (preprocessing.KBinsDiscretizer(strategy="uniform"), RANGES),
        (preprocessing.KBinsDiscretizer(strategy="quantile"), None),
        (preprocessing.StandardScaler(), None),
        (kernel_approximation.Nystroem(), None),
        (_Learning(), None),
        (
            compose.ColumnTransformer([("a", preprocessing.OneHotEncoder(), [0])]),
            RANGES,
        ),
        (
            compose.ColumnTransformer(
                [("a", preprocessing.OneHotEncoder(), [0]), ("b", "passthrough", [1])]
            ),
            RANGES,
        ),
        (
            compose.ColumnTransformer(
                [("a", preprocessing.Normalizer(), [0]), ("b", preprocessing.StandardScaler(), [1])]
            ),
            None,
        ),
        (pipeline.make_union(preprocessing.Normalizer(), preprocessing.Binarizer()), NOTHING),
        (pipeline.make_pipeline(preprocessing.Normalizer(), preprocessing.RobustScaler()), None),
    ],
    ids=repr,
)
def test_what_steps_tell(step: Any, told: str | None) -> None:
    assert public_part(step) == told


class Centered(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learns the means, whatever it calls its parameters."""

    def __init__(self, steps: Any = ()) -> None:
        self.steps = steps


class LearningUnion(FeatureUnion):  # type: ignore[misc]
    """Learns more than its class."""


def test_only_known_classes_are_public() -> None:
    assert public_part(Centered()) is None
    assert public_part(Centered(steps=10)) is None
    assert public_part(LearningUnion([("a", "passthrough")])) is None
    assert public_part(FeatureUnion([("a", "passthrough")])) is NOTHING
    gaps = SimpleImputer(strategy="constant", add_indicator=True)
    assert public_part(gaps) is None
