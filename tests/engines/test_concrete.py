from __future__ import annotations

from cipherlearn.engines.concrete import ConcreteEngine
from tests.engines.conformance import Conformance


class TestConcrete(Conformance):
    engine = ConcreteEngine()
