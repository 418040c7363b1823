"""What users are told of models that take very long."""

from __future__ import annotations

import warnings

import pytest

from cipherlearn.errors import CostWarning
from cipherlearn.sklearn._cost import MANY_LOOKUPS, warn_of_cost


def test_many_lookups_are_warned_of() -> None:
    with pytest.warns(CostWarning, match=r"the model needs 5001 table .*at least .* s on.*Fewer\."):
        warn_of_cost("the model needs", MANY_LOOKUPS + 1, 1e12, "Fewer.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_cost("the model needs", MANY_LOOKUPS, 1e12, "Fewer.")
