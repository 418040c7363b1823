from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from cipherlearn.circuit import count_lookups
from cipherlearn.errors import (
    CalibrationWarning,
    InvalidParameterError,
    NotCompiledError,
    UnknownKeyError,
)
from cipherlearn.sklearn.linear import module as linear
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.module import Box, LinearBits, LinearModule

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(50, 6)) * 10.0 ** np.arange(-3, 3) + np.arange(6)


def case(n_bits: Any = 8, outputs: int = 3) -> tuple[LinearModule, Affine]:
    affine = Affine(
        RNG.normal(size=(6, outputs)) / 10.0 ** np.arange(-3, 3)[:, None],
        RNG.normal(size=outputs),
    )
    return LinearModule(affine, Box.around(ROWS), LinearBits.of(n_bits)), affine


def bound(module: LinearModule, affine: Affine, rows: np.ndarray) -> np.ndarray:
    """How far scores may be from those of the affine function: what rounding can do at most.

    Half a step of each feature times its weight, and half a step of each weight times the feature
    as it was rounded.
    """
    weights = np.abs(affine.weights * module.box.span[:, None])
    step = weights.max(axis=0) / max(2 ** (module.bits.weights - 1) - 1, 1)
    of_features = weights.sum(axis=0) / (2 * (2**module.bits.inputs - 1))
    units = module.input_quantizers[0].scale * module.quantize_input(rows)
    return of_features + units.sum(axis=1, keepdims=True) * step / 2


@pytest.mark.parametrize("n_bits", [1, 2, 4, 8, 13, {"op_inputs": 3, "op_weights": 9}])
@pytest.mark.parametrize("outputs", [1, 3])
def test_scores_are_as_close_as_rounding_allows(n_bits: Any, outputs: int) -> None:
    module, affine = case(n_bits, outputs)
    error = np.abs(module.forward(ROWS) - affine(ROWS))
    assert error.shape == (50, outputs)
    assert (error <= bound(module, affine, ROWS) * (1 + 1e-9) + 1e-12).all()


def test_the_circuit_is_a_product_without_look_ups() -> None:
    module, _ = case()
    assert not count_lookups(module.circuit).by_width
    assert [node.shape for node in module.circuit.output_nodes] == [(1, 3)]
    top = 2**8 - 1
    reach = np.abs(module.weights).sum(axis=0).max() * top
    assert module.circuit.output_nodes[0].interval.max <= reach


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 13, 16, 17, 50])
def test_encrypted_rows_are_those_of_the_exact_evaluator(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "BATCH_ROWS", 8)
    module, _ = case()
    module.compile(engine="clear")
    found = module.forward(ROWS[:rows], fhe="execute")
    np.testing.assert_array_equal(found, module.forward(ROWS[:rows]))
    np.testing.assert_array_equal(module.forward(ROWS[:rows], fhe="simulate"), found)
    assert set(module._batched) <= {2, 4, 8}


def test_no_rows() -> None:
    module, _ = case()
    module.compile(engine="clear")
    assert module.forward(ROWS[:0]).shape == (0, 3)
    assert module.forward(ROWS[:0], fhe="execute").shape == (0, 3)


def test_real_encryption() -> None:
    module, _ = case()
    module.compile(ROWS, check=True)
    for rows in (ROWS[:1], ROWS[:3]):
        np.testing.assert_array_equal(module.forward(rows, fhe="execute"), module.forward(rows))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_constant_is_encrypted_all_the_same(outputs: int) -> None:
    affine = Affine(np.zeros((6, outputs)), np.arange(outputs) + 0.25)
    module = LinearModule(affine, Box.around(ROWS), LinearBits.of(4))
    module.compile()
    wanted = np.tile(affine.constant, (2, 1))
    np.testing.assert_array_equal(module.forward(ROWS[:2], fhe="execute"), wanted)


def test_an_output_without_weights_stays_beside_others() -> None:
    weights = RNG.normal(size=(6, 2))
    weights[:, 1] = 0.0
    module = LinearModule(Affine(weights, np.ones(2)), Box.around(ROWS), LinearBits.of(4))
    module.compile()
    found = module.forward(ROWS[:2], fhe="execute")
    np.testing.assert_array_equal(found, module.forward(ROWS[:2]))
    assert found[:, 1].tolist() == [1.0, 1.0]


def test_features_that_do_not_vary() -> None:
    rows = ROWS.copy()
    rows[:, 2] = 7.0
    affine = Affine(RNG.normal(size=(6, 1)), np.zeros(1))
    module = LinearModule(affine, Box.around(rows), LinearBits.of(10))
    error = np.abs(module.forward(rows) - affine(rows))
    assert (error <= bound(module, affine, rows) * (1 + 1e-9)).all()
    one = LinearModule(affine, Box.around(rows[:1]), LinearBits.of(8))
    np.testing.assert_allclose(one.forward(rows[:1]), affine(rows[:1]))


def test_values_beyond_the_range_are_counted_and_warned_of_once() -> None:
    module, _ = case()
    beyond = ROWS[:4].copy()
    beyond[0, 1] = ROWS[:, 1].max() + 3 * np.ptp(ROWS[:, 1])
    beyond[2, 3] = ROWS[:, 3].min() - np.ptp(ROWS[:, 3])
    with pytest.warns(CalibrationWarning, match="2 of 24 values of 'features'") as caught:
        found = module.forward(beyond)
    assert len(caught) == 1
    assert module.clipped_count == 2
    beyond[0, 1], beyond[2, 3] = ROWS[:, 1].max(), ROWS[:, 3].min()
    np.testing.assert_array_equal(found, module.forward(beyond))
    assert module.clipped_count == 2


def test_a_box_grows() -> None:
    box = Box.around(ROWS[10:], Box.around(ROWS[:10]))
    whole = Box.around(ROWS)
    np.testing.assert_allclose(box.low, whole.low)
    np.testing.assert_allclose(box.span, whole.span)


def test_more_bits_than_a_result_has() -> None:
    box = Box.around(ROWS)
    affine = Affine(1.0 / box.span[:, None], np.zeros(1))  # all features count alike
    with pytest.raises(InvalidParameterError, match=r"n_bits: 6 features of 16 .* n_bits=14 fits"):
        LinearModule(affine, box, LinearBits.of(16))
    module = LinearModule(affine, box, LinearBits.of(14))
    module.compile()
    found = module.forward(ROWS[:1], fhe="execute")
    np.testing.assert_array_equal(found, module.forward(ROWS[:1]))


def test_copies_are_not_compiled() -> None:
    module, _ = case()
    module.compile(engine="clear")
    wanted = module.forward(ROWS, fhe="execute")
    for other in (copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301
        assert not other.is_compiled
        assert not other._batched
        np.testing.assert_array_equal(other.forward(ROWS), wanted)
        with pytest.raises(NotCompiledError):
            other.forward(ROWS, fhe="execute")
        other.compile(engine="clear")
        np.testing.assert_array_equal(other.forward(ROWS, fhe="execute"), wanted)
    assert module._batched


def test_compiling_again_forgets_batches() -> None:
    module, _ = case()
    module.compile(engine="clear")
    module.forward(ROWS, fhe="execute")
    assert module._batched
    module.compile(engine="clear")
    assert not module._batched


@pytest.mark.parametrize(
    ("n_bits", "error", "message"),
    [
        (0, InvalidParameterError, "between 1 and 16"),
        (17, InvalidParameterError, "between 1 and 16"),
        (2.0, InvalidParameterError, "must be an integer"),
        (None, InvalidParameterError, "must be an integer"),
        ({"op_inputs": 4}, InvalidParameterError, "op_weights"),
        ({"op_inputs": 4, "op_weights": 0}, InvalidParameterError, r"\['op_weights'\]"),
        ({"op_inputs": 4, "op_weights": 4, "op_leaves": 4}, UnknownKeyError, "op_leaves"),
    ],
)
def test_wrong_bits(n_bits: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LinearBits.of(n_bits)


def test_bits_of_each() -> None:
    assert LinearBits.of(5) == LinearBits(5, 5)
    bits = {"op_inputs": 4, "op_weights": 9}
    assert LinearBits.of(bits) == LinearBits(4, 9)
    assert LinearBits.of(bits).as_dict == bits
