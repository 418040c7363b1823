from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cipherlearn.errors import (
    CipherlearnError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
)
from cipherlearn.quantization.scoring import Labels, agreement_score

SCORES = np.array([[0.1, 0.9, 0.0], [0.8, 0.2, 0.1], [0.0, 0.1, 0.9]])
LOGITS = np.array([[0.3], [-0.2], [4.0]])


def test_agreement_is_of_classes_or_of_values() -> None:
    assert agreement_score(SCORES, SCORES[:, ::-1]) == pytest.approx(1 / 3)
    assert agreement_score(SCORES, 2 * SCORES) == 1.0
    single = np.array([[1.0], [2.0], [3.0]])
    assert agreement_score(single, single) == 1.0
    assert agreement_score(np.full((3, 1), 2.0), single) == 0.0


@pytest.mark.parametrize(
    "labels",
    [
        [1, 0, 2],
        [1.0, 0.0, 2.0],
        [[1], [0], [2]],
        np.eye(3)[[1, 0, 2]],
        np.eye(3, dtype=int)[[1, 0, 2]],
    ],
)
def test_classes_may_be_numbers_or_one_hot(labels: Any) -> None:
    known = Labels.of(labels, SCORES)
    assert known.measure == "accuracy"
    assert known.score(SCORES) == 1.0
    assert known.score(SCORES[:1], slice(1)) == 1.0
    assert known.score(SCORES[::-1]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("labels", [[1, 0, 1], [1.0, 0.0, 1.0], [1, -1, 1], [True, False, True]])
def test_one_score_for_two_classes_is_a_logit_or_a_probability(labels: Any) -> None:
    known = Labels.of(labels, LOGITS)
    assert (known.measure, known.threshold) == ("accuracy", 0.0)
    assert known.score(LOGITS) == 1.0
    # Decided once: a part of the rows, or quantized results, do not change it.
    assert known.score(LOGITS[:1], slice(1)) == 1.0
    probabilities = 1 / (1 + np.exp(-LOGITS))
    known = Labels.of(labels, probabilities)
    assert known.threshold == 0.5
    assert known.score(np.where(probabilities > 0.5, 1.02, 0.4)) == 1.0


def test_values_are_scored_by_r2() -> None:
    known = Labels.of([2.0, 3.5, 7.0], LOGITS)
    assert known.measure == "R2"
    assert known.score(np.array([[2.0], [3.5], [7.0]])) == 1.0
    assert Labels.of([2.0, 2.0, 2.0], LOGITS).score(np.full((3, 1), 2.0)) == 1.0
    assert Labels.of([2.0, 2.0, 2.0], LOGITS).score(LOGITS) == 0.0
    several = Labels.of(SCORES * 2, SCORES)
    assert several.measure == "R2"
    assert several.score(SCORES * 2) == 1.0


def test_values_of_the_worst_output_count() -> None:
    large, small = np.array([1e3, 2e3, 5e3]), np.array([1.0, 3.0, 2.0])
    known = Labels.of(np.stack([large, small], axis=1), SCORES[:, :2])
    assert known.score(np.stack([large, np.full(3, 2.0)], axis=1)) == 0.0
    # What never varies has no R2.
    known = Labels.of(np.stack([np.full(3, 7.0), small], axis=1), SCORES[:, :2])
    assert known.score(np.stack([np.full(3, 7.1), small], axis=1)) == 1.0


def test_models_may_give_the_class_itself() -> None:
    known = Labels.of([2, 0, 1], np.array([2.0, 0.0, 2.0]))
    assert known.measure == "accuracy"
    assert known.score(np.array([2.0, 0.1, 2.0])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "outputs", "kind", "message"),
    [
        (["a", "b", "c"], SCORES, InvalidTypeError, "labels have dtype"),
        ([None] * 3, SCORES, InvalidTypeError, "labels have dtype object"),
        (3, SCORES, InvalidShapeError, "3 rows were given with labels of shape"),
        ([0, 1], SCORES, InvalidShapeError, "3 rows were given with labels of shape"),
        ([1, 2, 3], SCORES, InvalidParameterError, "from 1 to 3; .* classes 0 to 2"),
        ([-1, 0, 1], SCORES, InvalidParameterError, "from -1 to 1"),
        ([0.5, 0, 1], SCORES, InvalidParameterError, "counted from 0"),
        ([np.nan, 0, 1], SCORES, InvalidParameterError, "NaN or infinite"),
        (np.ones((3, 2)), SCORES, InvalidShapeError, "do not fit outputs"),
        (np.ones((3, 2)), LOGITS, InvalidShapeError, "do not fit outputs"),
    ],
)
def test_labels_that_do_not_fit(
    labels: Any, outputs: np.ndarray, kind: type[CipherlearnError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Labels.of(labels, outputs)
