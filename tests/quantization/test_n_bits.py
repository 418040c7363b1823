from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.errors import InvalidParameterError, UnknownKeyError
from cipherlearn.quantization import (
    DEFAULT_MODEL_BITS,
    Rounding,
    get_n_bits_dict,
    process_rounding_threshold_bits,
)

KEYS = ("model_inputs", "op_weights", "op_inputs", "model_outputs")


@pytest.mark.parametrize(
    ("given_bits", "expected"),
    [
        (3, (5, 3, 3, 5)),
        (5, (5, 5, 5, 5)),
        (8, (8, 8, 8, 8)),
        (np.int64(2), (5, 2, 2, 5)),
        ({"op_inputs": 4, "op_weights": 3}, (5, 3, 4, 5)),
        ({"op_inputs": 7, "op_weights": 2}, (5, 2, 7, 7)),
        ({"op_inputs": 4, "op_weights": 3, "model_inputs": 2}, (2, 3, 4, 5)),
        ({"op_inputs": 4, "op_weights": 3, "model_outputs": 9}, (5, 3, 4, 9)),
        (dict(zip(KEYS, (1, 16, 2, 3), strict=True)), (1, 16, 2, 3)),
    ],
)
def test_legal_widths(given_bits: Any, expected: tuple[int, ...]) -> None:
    assert get_n_bits_dict(given_bits) == dict(zip(KEYS, expected, strict=True))


@pytest.mark.parametrize(
    ("given_bits", "message"),
    [
        (0, "between 1 and 16"),
        (17, "between 1 and 16"),
        (-3, "between 1 and 16"),
        (4.0, "must be an integer"),
        ("4", "must be an integer"),
        (True, "must be an integer"),
        (None, "must be an integer"),
        ([4], "must be an integer"),
        ({"op_inputs": 4}, "lacks the mandatory keys \\['op_weights'\\]"),
        ({}, "lacks the mandatory keys"),
        ({"op_inputs": 4, "op_weights": 99}, "n_bits\\['op_weights'\\] must lie between"),
        ({"op_inputs": 4.5, "op_weights": 4}, "n_bits\\['op_inputs'\\] must be an integer"),
        ({"op_inputs": 6, "op_weights": 4, "model_outputs": 5}, "must not be smaller"),
    ],
)
def test_illegal_widths(given_bits: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        get_n_bits_dict(given_bits)


def test_unknown_keys_are_listed_with_the_known_ones() -> None:
    with pytest.raises(UnknownKeyError, match=r"'op_leaves', 'x'.*'model_inputs'") as caught:
        get_n_bits_dict({"op_inputs": 4, "op_weights": 4, "x": 1, "op_leaves": 2})
    assert isinstance(caught.value, KeyError)


@given(st.integers(1, 16))
def test_widths_are_their_own_normal_form(bits: int) -> None:
    known = get_n_bits_dict(bits)
    assert get_n_bits_dict(known) == known
    assert known["model_inputs"] == max(bits, DEFAULT_MODEL_BITS)


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        (None, None),
        (2, Rounding(2)),
        (8, Rounding(8)),
        (np.int32(6), Rounding(6)),
        ("auto", Rounding("auto")),
        ({"n_bits": 4}, Rounding(4)),
        ({"n_bits": "auto"}, Rounding("auto")),
        ({"n_bits": 4, "method": "exact"}, Rounding(4)),
        ({"n_bits": 4, "method": "EXACT"}, Rounding(4)),
        ({"n_bits": 4, "method": "approximate"}, Rounding(4, exact=False)),
        ({"n_bits": "Auto", "method": "Approximate"}, Rounding("auto", exact=False)),
        (Rounding(3, exact=False), Rounding(3, exact=False)),
    ],
)
def test_legal_rounding(rounding: Any, expected: Rounding | None) -> None:
    found = process_rounding_threshold_bits(rounding)
    assert found == expected
    assert process_rounding_threshold_bits(found) == expected


def test_the_engines_own_names_of_methods() -> None:
    fhe = pytest.importorskip("concrete.fhe")
    for member, exact in ((fhe.Exactness.EXACT, True), (fhe.Exactness.APPROXIMATE, False)):
        found = process_rounding_threshold_bits({"n_bits": 5, "method": member})
        assert found == Rounding(5, exact)


@pytest.mark.parametrize(
    ("rounding", "message"),
    [
        (1, "between 2 and 8"),
        (9, "between 2 and 8"),
        (Rounding(9), "between 2 and 8"),
        (4.0, "an integer from 2 to 8"),
        (True, "an integer from 2 to 8"),
        ("most", "an integer from 2 to 8"),
        ([4], "an integer from 2 to 8"),
        ({"n_bits": 1}, "between 2 and 8"),
        ({"n_bits": None}, "an integer from 2 to 8"),
        ({"method": "exact"}, "needs the key 'n_bits'"),
        ({"n_bits": 4, "method": "precise"}, "'exact' or 'approximate', not 'precise'"),
        ({"n_bits": 4, "method": None}, "'exact' or 'approximate', not None"),
    ],
)
def test_illegal_rounding(rounding: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        process_rounding_threshold_bits(rounding)


def test_unknown_keys_of_rounding_are_listed() -> None:
    with pytest.raises(UnknownKeyError, match=r"'bits'.*'n_bits' and 'method'"):
        process_rounding_threshold_bits({"n_bits": 4, "bits": 5})
