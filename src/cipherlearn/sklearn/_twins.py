"""Steps of pipelines as float models, which they are trained as, and as estimators of ours."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from scipy import sparse
from sklearn import pipeline as floats
from sklearn.base import clone

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn._base import EncryptedEstimator
from cipherlearn.sklearn._catalog import estimator_for
from cipherlearn.sklearn._steps import dense
from cipherlearn.sklearn._wrapping import WrappingEstimator


def is_ours(step: Any) -> bool:
    """Whether a step is an estimator of ours, or a pipeline of ours."""
    return isinstance(step, EncryptedEstimator) or _is_our_pipeline(step)


def _is_our_pipeline(step: Any) -> bool:
    return isinstance(step, floats.Pipeline) and hasattr(step, "public")


def passes(step: Any) -> bool:
    """Whether a step changes nothing."""
    return step is None or isinstance(step, str)


def client_rows(steps: Sequence[Any], X: Any) -> Any:
    """Rows after fitted steps."""
    for step in steps:
        X = X if passes(step) else step.transform(X)
    return dense(X) if sparse.issparse(X) and steps else X


def float_twin(step: Any) -> Any:
    """The float model of a step, not fitted."""
    if _is_our_pipeline(step):
        parts = [(name, float_twin(part)) for name, part in step.steps]
        return _with_settings(floats.Pipeline(parts, memory=step.memory), step)
    if is_ours(step):
        return _with_settings(step._unfitted(), step)  # noqa: SLF001
    if passes(step):
        return step
    twin = clone(step)
    inner = [(name, part) for name, part in twin.get_params(deep=True).items() if is_ours(part)]
    outer = [each for each in inner if not any(each[0].startswith(f"{n}__") for n, _ in inner)]
    return twin.set_params(**{name: float_twin(part) for name, part in outer})


def _with_settings(twin: Any, given: Any) -> Any:
    """A twin that gives what `set_output` said of the other, and asks for the same metadata."""
    for name in ("_sklearn_output_config", "_metadata_request"):  # as `clone` does
        if name in vars(given):
            setattr(twin, name, copy.deepcopy(vars(given)[name]))
    return twin


def encrypted_twin(step: Any) -> EncryptedEstimator:
    """The estimator of ours for the last step, not fitted."""
    if isinstance(step, EncryptedEstimator):
        return step
    if passes(step):
        raise InvalidParameterError(
            f"the last step of a Pipeline must be an estimator, not {step!r}: nothing else is "
            "computed under encryption"
        )
    found: EncryptedEstimator = estimator_for(step)(**step.get_params(deep=False))
    return found


def adopted(given: Any, trained: Any, rows: Any) -> Any:
    """A fitted step, of the kind that was given."""
    if not isinstance(given, WrappingEstimator) or is_ours(trained):
        return trained
    own = {name: getattr(given, name) for name in given.own_parameters}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is computed with it, unless users take it out
        try:
            return _with_settings(type(given).from_model(trained, rows, **own), given)
        except ValueError:  # a float model may take rows that no integers stand for
            return trained
