"""An engine without encryption: for tests, and for people who have no time for keys.

It keeps the rules of a real one (keys first, opaque values, one key a computation) and computes
with the circuit's own evaluator.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from cipherlearn.circuit import count_lookups, evaluate, ir
from cipherlearn.circuit.evaluate import EXACT, Semantics
from cipherlearn.circuit.simulate import NoisySemantics
from cipherlearn.engines.base import CompileOptions, Engine, IntArray, Program
from cipherlearn.errors import EngineError, InvalidParameterError, InvalidTypeError

#: Complexity of one look-up by the bits of its input, as measured on the Concrete engine at 2**-40.
LOOKUP_PRICES = {1: 2.9e7, 2: 4.1e7, 3: 6.9e7, 4: 9.8e7, 5: 2.3e8, 6: 5.3e8, 7: 1.2e9, 8: 3.9e9}

#: Beyond the widths that were measured each further bit costs about as much more as the last did.
PRICE_GROWTH = 3.0

_NOISES = ("exact", "simulated")


def price_of(width: int) -> float:
    """Complexity of one look-up on ``width`` bits."""
    widest = max(LOOKUP_PRICES)
    return LOOKUP_PRICES[min(width, widest)] * PRICE_GROWTH ** max(0, width - widest)


class ClearCiphertext:
    """Integers that only `ClearProgram` reads, marked with the key that they belong to."""

    __slots__ = ("_key", "_values")

    def __init__(self, values: IntArray, key: bytes) -> None:
        self._values = values
        self._key = key

    def open(self, key: bytes) -> IntArray:
        """The integers, for who has the key.

        Raises
        ------
        EngineError
            If the key is another one.
        """
        if key != self._key:
            raise EngineError("the value was encrypted with other keys than the program has")
        return self._values

    def __repr__(self) -> str:
        return f"<encrypted by the clear engine, shape {self._values.shape[1:]}>"


class ClearProgram(Program):
    """A circuit, evaluated in the clear behind the interface of an encrypted program.

    Parameters
    ----------
    circuit : Circuit
    options : CompileOptions
    engine : ClearEngine
    """

    def __init__(self, circuit: ir.Circuit, options: CompileOptions, engine: ClearEngine) -> None:
        super().__init__(circuit, options, engine)
        self._key: bytes | None = None
        self._counts = count_lookups(circuit)
        self._semantics: Semantics = EXACT
        if engine.noise == "simulated":
            generator = np.random.default_rng(engine.random_state)
            self._semantics = NoisySemantics(self.p_error, generator)

    def keygen(self, force: bool = False, seed: int | None = None) -> None:
        """Make the mark that encrypted values carry."""
        if self._key is None or force:
            known = seed is not None
            self._key = np.random.default_rng(seed).bytes(16) if known else secrets.token_bytes(16)

    @property
    def has_keys(self) -> bool:
        """Whether keys were made."""
        return self._key is not None

    def _encrypt(self, integers: Sequence[IntArray]) -> tuple[Any, ...]:
        return tuple(ClearCiphertext(array.copy(), self._key or b"") for array in integers)

    def _run(self, encrypted: tuple[Any, ...]) -> tuple[Any, ...]:
        given = self._open(encrypted)
        outputs = evaluate(self.circuit, *given, semantics=self._semantics).outputs
        return tuple(ClearCiphertext(output, self._key or b"") for output in outputs)

    def _decrypt(self, encrypted: tuple[Any, ...]) -> tuple[IntArray, ...]:
        return tuple(values[0].copy() for values in self._open(encrypted))

    def _open(self, encrypted: tuple[Any, ...]) -> list[IntArray]:
        for value in encrypted:
            if not isinstance(value, ClearCiphertext):
                raise InvalidTypeError(
                    f"a {type(value).__name__} was given where an encrypted value is needed: "
                    "pass what encrypt() or run() returned"
                )
        return [value.open(self._key or b"") for value in encrypted]

    @property
    def programmable_bootstrap_count(self) -> int:
        """Table look-ups of one execution, those of exact rounding included."""
        return self._counts.total + self._counts.rounded_bits

    @property
    def complexity(self) -> float:
        """Estimate: look-ups by width at the prices that a real engine was measured at.

        Each bit that exact rounding removes is priced as a look-up on one bit. Linear operations
        are taken to be free, which they nearly are.
        """
        lookups = sum(price_of(width) * n for width, n in self._counts.by_width.items())
        return lookups + price_of(1) * self._counts.rounded_bits

    @property
    def p_error(self) -> float:
        """Effective probability that one table look-up gives a wrong entry."""
        if self.options.p_error is not None:
            return self.options.p_error
        whole = self.options.global_p_error or 0.0
        return float(-np.expm1(np.log1p(-whole) / max(1, self.programmable_bootstrap_count)))

    @property
    def global_p_error(self) -> float:
        """Effective probability that any look-up of one execution gives a wrong entry."""
        if self.options.global_p_error is not None:
            return self.options.global_p_error
        single = self.options.p_error or 0.0
        return float(-np.expm1(np.log1p(-single) * self.programmable_bootstrap_count))

    @property
    def size_of_inputs(self) -> int:
        """Bytes of the integers of one sample."""
        return 8 * sum(self.circuit.nodes[i].size for i in self.circuit.input_positions)

    @property
    def size_of_outputs(self) -> int:
        """Bytes of the integers of one result."""
        return 8 * sum(node.size for node in self.circuit.output_nodes)

    @property
    def size_of_secret_keys(self) -> int:
        """Bytes of the mark that stands for the keys."""
        return 16

    @property
    def size_of_evaluation_keys(self) -> int:
        """Bytes of the mark that stands for the keys."""
        return 16

    def close(self) -> None:
        """Do nothing: all is in memory."""


class ClearEngine(Engine):
    """Runs circuits without encryption.

    Parameters
    ----------
    noise : {"exact", "simulated"}, default="exact"
        Whether programs compute exactly, or make the errors that encryption would cause.
    random_state : int, default=0
        Seed of these errors: the same one gives the same errors, run after run.
    """

    name = "clear"

    def __init__(
        self, noise: Literal["exact", "simulated"] = "exact", random_state: int = 0
    ) -> None:
        if noise not in _NOISES:
            raise InvalidParameterError(f"unknown noise {noise!r}; one of {', '.join(_NOISES)}")
        self.noise = noise
        self.random_state = random_state

    def check_available(self) -> None:
        """Nothing is needed."""

    def compile(self, circuit: ir.Circuit, options: CompileOptions | None = None) -> ClearProgram:
        """Wrap a circuit; nothing is compiled."""
        chosen = CompileOptions() if options is None else options
        if chosen.device != "cpu":
            raise InvalidParameterError("the clear engine runs on the cpu only")
        return ClearProgram(circuit, chosen, self)


ENGINE = ClearEngine
