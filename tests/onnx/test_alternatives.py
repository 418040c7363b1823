from __future__ import annotations

import pytest

from cipherlearn import ops
from cipherlearn.onnx import _alternatives
from cipherlearn.onnx._alternatives import alternative


@pytest.mark.parametrize("op", sorted(_alternatives._ALTERNATIVES))
def test_advice_is_for_operators_that_are_missing(op: str) -> None:
    assert op not in ops.names(), "supported now: its advice can go"
    text = alternative(op)
    assert text is not None
    assert text[0].islower() or text.startswith("1")
    assert not text.endswith(".")


def test_common_operators_have_an_alternative() -> None:
    assert "1-D convolution" in str(alternative("LSTM"))
    assert alternative("GRU") == alternative("LSTM")
    assert "sort after decryption" in str(alternative("TopK"))
    assert "torch.sort" in str(alternative("TopK"))
    assert "select after decryption" in str(alternative("NonZero"))
    assert alternative("NoSuchOperator") is None
