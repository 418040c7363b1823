"""Every operator, quantized: near its float meaning, and the same integers under encryption."""

from __future__ import annotations

import numpy as np
import pytest

from cipherlearn import ops
from cipherlearn.circuit import evaluate
from tests.quantization.quantize import check, lookups, quantize
from tests.quantization.sweep_cases import ELEMENTWISE, MIXING, MOVEMENT

#: They take an index for each row, so that constant indices choose rows of the batch.
BY_ROW = {"GatherElements", "GatherND"}

#: Bits of the encrypted cases: real encryption, but small.
FEW_BITS, KEPT_BITS = 3, 4

#: What is constant at so few bits: others, and what rounding keeps of them (None: all).
OTHER_BITS = {"Equal": (4, None), "InstanceNormalization": (4, 4)}

#: Operators whose encrypted case takes a second or two; the others are marked slow.
QUICK = {"AveragePool", "Concat", "Conv", "ConvTranspose", "Gemm", "MatMul", "ReduceMax", "Pad"}


def test_every_operator_has_a_case() -> None:
    for kind, cases in ((ops.Kind.MOVEMENT, MOVEMENT), (ops.Kind.MIXING, MIXING)):
        known = {name for name in ops.names() if ops.get(name).kind is kind}
        assert known - BY_ROW == set(cases)


@pytest.mark.parametrize("op", MOVEMENT)
def test_movements_cost_no_look_up(op: str) -> None:
    case = MOVEMENT[op]
    module = quantize(case.model(op), *case.data())
    check(module, *case.data())
    assert lookups(module) == {}


@pytest.mark.parametrize("op", {**MIXING, **ELEMENTWISE})
def test_operators_are_near_their_float_meaning(op: str) -> None:
    case = {**MIXING, **ELEMENTWISE}[op]
    module = quantize(case.model(op), *case.data(), rounding=case.rounding)
    check(module, *case.data())


@pytest.mark.parametrize(
    "op",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in {**MIXING, **ELEMENTWISE}
    ],
)
@pytest.mark.filterwarnings("ignore:quantization breaks this model")
def test_operators_are_right_under_encryption(op: str) -> None:
    case = {**MIXING, **ELEMENTWISE}[op]
    data = case.data()
    n_bits, kept = OTHER_BITS.get(op, (FEW_BITS, KEPT_BITS))
    rounding = None if kept is None else {"n_bits": kept, "method": "exact"}
    module = quantize(case.model(op), *data, n_bits=n_bits, rounding=rounding)
    with module.compile() as program:
        program.keygen()
        samples = [values[:1] for values in module.samples(*data)]
        exact = evaluate(module.circuit, *samples).outputs
        results = program.encrypt_run_decrypt(*(sample[0] for sample in samples))
        results = results if isinstance(results, tuple) else (results,)
        for expected, found in zip(exact, results, strict=True):
            np.testing.assert_array_equal(found, expected[0])
