from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, evaluate, simulate
from cipherlearn.engines import CompileOptions
from cipherlearn.engines.clear import LOOKUP_PRICES, ClearEngine, price_of
from cipherlearn.errors import EngineError, InvalidParameterError
from tests.circuit.programs import circuits
from tests.engines.cases import build
from tests.engines.conformance import Conformance, check_circuit, inputs_of


class TestClear(Conformance):
    engine = ClearEngine()


class TestNoisyClear(Conformance):
    engine = ClearEngine(noise="simulated")


@settings(max_examples=150)
@given(circuits(), st.integers(0, 1000))
def test_random_circuits(circuit: Circuit, seed: int) -> None:
    check_circuit(ClearEngine(), circuit, seed)


def test_noise_is_that_of_the_simulation() -> None:
    circuit = build("several_layers")
    [batch] = inputs_of(circuit, rows=200)
    options = CompileOptions.of(p_error=0.2)
    with ClearEngine("simulated", random_state=3).compile(circuit, options) as program:
        program.keygen()
        noisy = np.stack([program.encrypt_run_decrypt(row) for row in batch])
    exact = evaluate(circuit, batch).outputs[0]
    expected = (simulate(circuit, batch, p_error=0.2).outputs[0] != exact).any(axis=(1, 2)).mean()
    found = (noisy != exact).any(axis=(1, 2)).mean()
    assert 0.1 < found < 0.9
    assert abs(found - expected) < 0.15


def test_noise_repeats_itself_under_one_seed() -> None:
    circuit = build("several_layers")
    [batch] = inputs_of(circuit, rows=50)
    runs = []
    for seed in (1, 1, 2):
        engine = ClearEngine("simulated", random_state=seed)
        program = engine.compile(circuit, CompileOptions.of(p_error=0.3))
        program.keygen()
        runs.append(np.stack([program.encrypt_run_decrypt(row) for row in batch]))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="exact, simulated"):
        ClearEngine(noise="loud")  # type: ignore[arg-type]


def test_other_devices_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="cpu"):
        ClearEngine().compile(build("lookups"), CompileOptions.of(device="cuda"))


def test_values_of_other_keys_are_refused() -> None:
    program = ClearEngine().compile(build("several_layers"))
    program.keygen()
    encrypted = program.encrypt([[0, 1, 2, 3]])
    results = program.run(encrypted)
    program.keygen(force=True)
    for action, value in ((program.run, encrypted), (program.decrypt, results)):
        with pytest.raises(EngineError, match="other keys"):
            action(value)


def test_encrypted_values_do_not_show_themselves() -> None:
    program = ClearEngine().compile(build("several_layers"))
    program.keygen()
    assert "[" not in repr(program.encrypt([[3, 3, 3, 3]]))


def test_values_are_copies() -> None:
    program = ClearEngine().compile(build("bits_of_inputs"))
    program.keygen()
    sample = np.ones((1, 6), dtype=np.int64)
    encrypted = program.encrypt(sample)
    sample[:] = 0
    ones = program.decrypt(program.run(encrypted))
    assert np.array_equal(ones, program.encrypt_run_decrypt(np.ones((1, 6), dtype=np.int64)))


def test_complexity_is_the_sum_of_prices() -> None:
    builder = Builder()
    rounded = builder.input("x", (3,), 0, 27).round(2, exact=True)
    circuit = builder.finish([np.rint(rounded * 0.1).astype(np.int64)])
    # Three values from 0 to 28 in steps of four: look-ups on three bits, two bits rounded off.
    expected = 3 * LOOKUP_PRICES[3] + 6 * LOOKUP_PRICES[1]
    assert ClearEngine().compile(circuit).complexity == expected


def test_prices_grow_with_the_width() -> None:
    prices = [price_of(width) for width in range(1, 17)]
    assert prices == sorted(set(prices))
