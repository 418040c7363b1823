"""Steps of pipelines that the client may compute by itself, and what it learns by them.

A step is public if nothing of the data is in it, or only what the client knows anyway: the ranges
and the categories of its features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Steps that training changes nothing in, by their class.
_FIXED = frozenset(
    {
        "AdditiveChi2Sampler",
        "Binarizer",
        "FeatureHasher",
        "FunctionTransformer",
        "GaussianRandomProjection",
        "HashingVectorizer",
        "MissingIndicator",
        "Normalizer",
        "PolynomialCountSketch",
        "PolynomialFeatures",
        "RBFSampler",
        "SkewedChi2Sampler",
        "SparseRandomProjection",
    }
)

#: Steps that learn ranges or categories of features.
_RANGES = frozenset(
    {
        "KBinsDiscretizer",
        "OneHotEncoder",
        "OrdinalEncoder",
        "SimpleImputer",  # with a constant: it learns which features are empty
        "SplineTransformer",
    }
)

#: Settings with which they learn more: variances, counts, quantiles, how many rows there were,
#: which features have gaps.
_LEARNING_MORE: tuple[Callable[[Any], bool], ...] = (
    lambda step: getattr(step, "gamma", None) == "scale",
    lambda step: getattr(step, "strategy", "uniform") not in ("uniform", "constant"),
    lambda step: getattr(step, "knots", "uniform") == "quantile",
    lambda step: getattr(step, "min_frequency", None) is not None,
    lambda step: getattr(step, "max_categories", None) is not None,
    lambda step: getattr(step, "n_components", None) == "auto",
    lambda step: getattr(step, "features", "all") == "missing-only",
    lambda step: bool(getattr(step, "add_indicator", False)),
)

NOTHING = "nothing of the training data"
RANGES = "ranges and categories of features in the training data"


def public_part(step: Any) -> str | None:
    """What a step of a pipeline tells of the training data; None if that is more than is public.

    Parameters
    ----------
    step : object
        A transformer, a composition of transformers, or ``"passthrough"``.
    """
    if step is None or isinstance(step, str):
        return NOTHING
    if (parts := _parts(step)) is not None:
        found = [public_part(part) for part in parts]
        return None if None in found else RANGES if RANGES in found else NOTHING
    known = NOTHING if is_plain(step, *_FIXED) else RANGES if is_plain(step, *_RANGES) else None
    return None if any(learned(step) for learned in _LEARNING_MORE) else known


def knows_categories(step: Any) -> bool:
    """Whether a step tells known categories from others, which have no place among numbers."""
    if (parts := _parts(step)) is not None:
        return any(map(knows_categories, parts))
    return is_plain(step, "OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


def is_plain(step: Any, *names: str) -> bool:
    """Whether a step is of one of these classes of scikit-learn, or of ours.

    Subclasses may learn what their class does not: only the classes themselves count.
    """
    package = type(step).__module__.partition(".")[0]
    return type(step).__name__ in names and package in {"sklearn", "cipherlearn"}


def _parts(step: Any) -> list[Any] | None:
    """The steps that a composition is made of; None for a step that is none."""
    if is_plain(step, "ColumnTransformer"):
        fitted = getattr(step, "transformers_", step.transformers)
        return [part for _, part, _ in fitted]
    if is_plain(step, "FeatureUnion"):
        return [part for _, part in step.transformer_list]
    if is_plain(step, "Pipeline"):
        return [part for _, part in step.steps]
    return None
