from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cipherlearn.circuit import Builder, IntValue, evaluate, ir
from cipherlearn.circuit.functions import concatenate, convolve
from cipherlearn.circuit.values import ARRAY_FUNCTIONS
from cipherlearn.errors import CircuitError, InvalidTypeError
from tests.circuit.reference import reference_outputs

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 2, 3)),
    "clip": lambda x: np.clip(x, -1, 2).astype(np.int64),
    "concatenate": lambda x: np.concatenate([x, np.array([[7, 8, 9]]), x[:1]]),
    "concatenate columns": lambda x: np.concatenate((x, x[:, :1]), axis=-1),
    "expand_dims": lambda x: np.expand_dims(x, 1),
    "expand_dims several": lambda x: np.expand_dims(x, (0, -1)),
    "nan_to_num": lambda x: np.nan_to_num(np.sqrt(x), nan=9.0).astype(np.int64),
    "reshape": lambda x: np.reshape(x, (3, -1)),
    "round": lambda x: np.round(x * 0.77).astype(np.int64),
    "round decimals": lambda x: np.round(x * 7, decimals=-1).astype(np.int64),
    "squeeze": lambda x: np.squeeze(x.reshape(1, 6, 1)),
    "squeeze one": lambda x: np.squeeze(x.reshape(1, 6, 1), axis=2),
    "sum": lambda x: np.sum(x, axis=0, keepdims=True),
    "sum of all": np.sum,
    "transpose": np.transpose,
    "transpose axes": lambda x: np.transpose(x.reshape(1, 2, 3), (2, 0, 1)),
    "where": lambda x: np.where(x > 0, x, -3).astype(np.int64),
    "where constant": lambda x: np.where(np.array([True, False, True]), x, 0).astype(np.int64),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_mean_what_they_mean_in_numpy(name: str) -> None:
    builder = Builder()
    value = FUNCTIONS[name](builder.input("x", (2, 3), -4, 5))
    assert isinstance(value, IntValue)
    batch = np.random.default_rng(0).integers(-4, 6, (20, 2, 3))
    (found,) = evaluate(builder.finish([value]), batch).outputs
    with np.errstate(invalid="ignore"):
        expected = np.stack([FUNCTIONS[name](row) for row in batch])
    np.testing.assert_array_equal(found, expected)


def test_every_function_has_a_case() -> None:
    used = {name.split()[0] for name in FUNCTIONS}
    assert {function.__name__ for function in ARRAY_FUNCTIONS} == used


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.where(x > 0),
        lambda x: np.concatenate([x * 0.5, x]),
        lambda x: np.concatenate([x * 0.5, x * 0.25]),
        lambda x: np.sum(x, 0, np.float32),
        lambda x: np.reshape(x, (3, 2), order="F"),
        lambda x: np.stack([x, x]),
        lambda x: np.clip(a_min=0, a_max=1, a=x),
    ],
)
def test_what_has_no_integer_form_is_refused(function: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        function(Builder().input("x", (2, 3), -4, 5))


def test_joined_values_must_fit() -> None:
    builder = Builder()
    x = builder.input("x", (2, 3), 0, 1)
    with pytest.raises(CircuitError, match="axis 2 does not exist"):
        concatenate([x, x], axis=2)
    with pytest.raises(CircuitError, match="do not match outside of axis 0"):
        concatenate([x, np.zeros((2, 2), dtype=np.int64)])
    with pytest.raises(CircuitError, match="holds integers"):
        concatenate([x, np.zeros((2, 3))])
    with pytest.raises(InvalidTypeError):
        concatenate([])


def test_equal_roundings_are_joined_below() -> None:
    builder = Builder()
    x, y = builder.input("x", (2,), 0, 99), builder.input("y", (3,), 0, 99)
    joined = concatenate([x.round(3, exact=False), y.round(3, exact=False)])
    assert isinstance(joined.node.primitive, ir.Round)
    assert joined.interval.step == 8
    for other in (y.round(3, exact=True), y.round(2, exact=False), y):
        value = concatenate([x.round(3, exact=False), other])
        assert isinstance(value.node.primitive, ir.Concatenate)


def test_convolutions() -> None:
    builder = Builder()
    x = builder.input("x", (1, 4, 5, 6), -3, 3)
    kernel = np.random.default_rng(0).integers(-5, 6, (6, 2, 3, 2)).astype(np.int8)
    value = convolve(
        x,
        kernel,
        strides=[2, 1],
        pads=[1, 0, 0, 2],
        dilations=[1, 2],
        groups=2,  # type: ignore[arg-type]
    )
    circuit = builder.finish([value])
    batch = np.random.default_rng(1).integers(-3, 4, (2, 1, 4, 5, 6))
    (found,) = evaluate(circuit, batch).outputs
    np.testing.assert_array_equal(found, reference_outputs(circuit, batch)[0])


def test_kernels_are_integers() -> None:
    x = Builder().input("x", (1, 1, 3), 0, 1)
    with pytest.raises(CircuitError, match="holds integers, not float64"):
        convolve(x, np.ones((1, 1, 2)), strides=(1,), pads=(0, 0), dilations=(1,))
