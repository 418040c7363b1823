"""Settings of the whole suite."""

import random
import sys

import numpy as np
import pytest
from hypothesis import settings

# No deadline: the first example of an engine test pays for compiling. No randomness: a red run is
# red for everybody, and a green one was green with the same examples.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci")


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - it is what a model without a seed of its own draws from
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


# Whatever draws without a seed of its own draws the same in each run, whichever tests ran before:
# files as they are read, fixtures as they are made, and tests; each other numbers.
def pytest_collectstart() -> None:
    _seed(2)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    _seed(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    _seed(0)
