from __future__ import annotations

import pytest

from benchmarks import qat
from cipherlearn.torch import build_quantized_module

SLOW = ("CNN", "MLP")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in sorted(qat.NETWORKS)],
)
def test_integers_are_those_of_brevitas(name: str) -> None:
    case = qat.trained(qat.NETWORKS[name], epochs=2)
    module = build_quantized_module(case.net, case.calibration, import_qat=True, bounds="proved")
    assert qat.equal_share(case.net, module, case.x_test) == 1.0
    # It is the share of what is compared: other inputs give other integers.
    other = qat.integers_of_brevitas(case.net, case.x_test[::-1].copy())
    found = qat.integers_of_module(module, case.x_test)
    assert any((a != b.reshape(a.shape)).any() for a, b in zip(found, other, strict=True))
