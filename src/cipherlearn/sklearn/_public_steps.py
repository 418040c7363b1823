"""Steps of pipelines that the client may compute by itself, and what it learns by them.

A step is public if nothing of the data is in it, or only what the client knows anyway: the ranges
and the categories of its features.
"""

from __future__ import annotations

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
_RANGES = frozenset({"KBinsDiscretizer", "OneHotEncoder", "OrdinalEncoder", "SplineTransformer"})

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
    # Subclasses may learn what their class does not: only the classes themselves count.
    name = type(step).__name__ if type(step).__module__.startswith("sklearn.") else ""
    if name in _FIXED:
        # One of them takes the variance of the data on request.
        return None if getattr(step, "gamma", None) == "scale" else NOTHING
    if name in _RANGES:
        learns_more = (
            getattr(step, "strategy", "uniform") != "uniform"
            or getattr(step, "knots", "uniform") == "quantile"
        )
        return None if learns_more else RANGES
    return None


def _parts(step: Any) -> list[Any] | None:
    """The steps that a composition is made of; None for a step that is none."""
    if hasattr(step, "transformers"):  # of a ColumnTransformer
        fitted = getattr(step, "transformers_", step.transformers)
        return [part for _, part, _ in fitted]
    if hasattr(step, "transformer_list"):  # of a FeatureUnion
        return [part for _, part in step.transformer_list]
    if hasattr(step, "steps"):
        return [part for _, part in step.steps]
    return None
