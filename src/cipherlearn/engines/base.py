"""The seam between circuits and what runs them: options, programs, engines.

An engine is one module of this package that names its class ``ENGINE``; `get_engine` finds it by
the name of its file. Everything else in cipherlearn meets engines through the classes below.
"""

from __future__ import annotations

import importlib
import numbers
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from cipherlearn.circuit import ir, simulate
from cipherlearn.circuit.evaluate import check_inputs
from cipherlearn.errors import (
    EngineError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
)

#: Error probability of one table look-up, where the caller sets none.
DEFAULT_P_ERROR = 2.0**-40

#: Where ``p_error`` explains a wrong result with more than this probability, it is no fault.
EXPLAINED_BY_P_ERROR = 1e-6

#: What a program runs on.
DEVICES = ("cpu", "cuda")

IntArray = npt.NDArray[np.int64]

ProgramType = TypeVar("ProgramType", bound="Program")


@dataclass(frozen=True)
class CompileOptions:
    """How a circuit is compiled. Exactly one of the two error probabilities is set.

    `CompileOptions.of` fills in the default when neither is given.

    Parameters
    ----------
    p_error : float or None, default=2**-40
        Probability that one table look-up gives a wrong entry.
    global_p_error : float or None, default=None
        Probability that any look-up of one execution gives a wrong entry.
    compress_inputs : bool, default=True
        Send a seed in place of the random part of encrypted inputs: several hundred times smaller.
    compress_keys : bool, default=True
        The same for evaluation keys: about four times smaller, expanded before the first run.
    device : {"cpu", "cuda"}, default="cpu"
        What the program runs on.
    configuration : object or None, default=None
        The engine's own configuration, copied before it is completed. It must not set an error
        probability.
    artifacts : object or None, default=None
        The engine's own collector of debugging artifacts.
    show_mlir, verbose : bool, default=False
        Print the engine's intermediate code, or its whole compilation.

    Raises
    ------
    InvalidParameterError
        If both or none of the probabilities are set, one lies outside of (0, 1), or the device is
        unknown.
    InvalidTypeError
        If a probability is not a number.
    """

    p_error: float | None = DEFAULT_P_ERROR
    global_p_error: float | None = None
    compress_inputs: bool = True
    compress_keys: bool = True
    device: str = "cpu"
    configuration: Any = None
    artifacts: Any = None
    show_mlir: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        if (self.p_error is None) == (self.global_p_error is None):
            raise InvalidParameterError(
                "set either p_error (of one table look-up) or global_p_error (of a whole "
                f"execution), not {'both' if self.p_error is not None else 'neither'}"
            )
        for name in ("p_error", "global_p_error"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise InvalidTypeError(f"{name} must be a number, not {value!r}")
            if not 0.0 < float(value) < 1.0:
                raise InvalidParameterError(f"{name} must lie between 0 and 1, not {value!r}")
        if self.device not in DEVICES:
            raise InvalidParameterError(
                f"unknown device {self.device!r}; one of {', '.join(DEVICES)}"
            )

    def p_error_of(self, lookups: int) -> float:
        """Error probability of one of so many look-ups."""
        if self.p_error is not None:
            return self.p_error
        return 1.0 - (1.0 - (self.global_p_error or 0.0)) ** (1.0 / max(1, lookups))

    @classmethod
    def of(
        cls, p_error: float | None = None, global_p_error: float | None = None, **others: Any
    ) -> CompileOptions:
        """Options with the default ``p_error`` where neither probability is given.

        Parameters
        ----------
        p_error, global_p_error : float or None, default=None
        **others
            The remaining fields of the class.
        """
        unknown = sorted(set(others) - {field.name for field in fields(cls)})
        if unknown:
            raise InvalidParameterError(
                f"unknown compile options {', '.join(unknown)}; known are "
                f"{', '.join(field.name for field in fields(cls))}"
            )
        if p_error is None and global_p_error is None:
            p_error = DEFAULT_P_ERROR
        return cls(p_error=p_error, global_p_error=global_p_error, **others)


class Program(ABC):
    """A compiled circuit: makes keys, encrypts, runs on encrypted values, decrypts.

    Use it as a context manager, or call `close`, to give back what it holds on disk at once;
    otherwise that happens when the program is collected or the process ends.

    Parameters
    ----------
    circuit : Circuit
    options : CompileOptions
    engine : Engine
        What compiled the circuit.
    """

    def __init__(self, circuit: ir.Circuit, options: CompileOptions, engine: Engine) -> None:
        self.circuit = circuit
        self.options = options
        self.engine = engine

    @abstractmethod
    def keygen(self, force: bool = False, seed: int | None = None) -> None:
        """Make the keys, unless there are some.

        Parameters
        ----------
        force : bool, default=False
            Make new keys although there are some: what was encrypted before becomes unreadable.
        seed : int or None, default=None
            Makes the same keys each time. For tests only: whoever knows the seed has the keys.
        """

    @property
    @abstractmethod
    def has_keys(self) -> bool:
        """Whether keys were made."""

    @abstractmethod
    def _encrypt(self, integers: Sequence[IntArray]) -> tuple[Any, ...]:
        """Encrypted forms of checked inputs, each of shape (1, *shape)."""

    @abstractmethod
    def _run(self, encrypted: tuple[Any, ...]) -> tuple[Any, ...]:
        """Encrypted results, one an output."""

    @abstractmethod
    def _decrypt(self, encrypted: tuple[Any, ...]) -> tuple[IntArray, ...]:
        """Clear results, one an output, each of the output's shape."""

    def encrypt(self, *integers: npt.ArrayLike) -> Any:
        """Encrypt one sample.

        Parameters
        ----------
        *integers : array-like of int
            One array an input of the circuit, of exactly its shape (no batch axis).

        Returns
        -------
        object or tuple of objects
            What `run` takes. Inputs that the circuit declares clear are not encrypted.

        Raises
        ------
        EngineError
            If there are no keys.
        InvalidShapeError, InvalidTypeError, InvalidParameterError
            If the integers do not fit the inputs.
        """
        self._require_keys("encrypt")
        return _unwrap(self._encrypt(self._check_sample(integers)))

    def run(self, *encrypted: Any) -> Any:
        """Compute on encrypted values.

        Parameters
        ----------
        *encrypted : object or tuple of objects
            What `encrypt` returned.

        Returns
        -------
        object or tuple of objects
            One encrypted result an output.
        """
        self._require_keys("run")
        return _unwrap(self._run(_flatten(encrypted)))

    def decrypt(self, *encrypted: Any) -> IntArray | tuple[IntArray, ...]:
        """Clear integers of encrypted results.

        Parameters
        ----------
        *encrypted : object or tuple of objects
            What `run` returned, all of it.

        Returns
        -------
        numpy.ndarray of int64, or a tuple of them (several outputs)
            Each of the output's shape.

        Raises
        ------
        SelfCheckError
            If the integers cannot be results of the circuit, where the engine can tell.
        """
        self._require_keys("decrypt")
        given = _flatten(encrypted)
        if len(given) != len(self.circuit.outputs):
            raise InvalidShapeError(
                f"{len(given)} encrypted values were given; the circuit has "
                f"{len(self.circuit.outputs)} outputs ({', '.join(self.circuit.output_names)})"
            )
        result: IntArray | tuple[IntArray, ...] = _unwrap(self._decrypt(given))
        return result

    def encrypt_run_decrypt(self, *integers: npt.ArrayLike) -> IntArray | tuple[IntArray, ...]:
        """All three steps on one sample, as `encrypt`, `run` and `decrypt`."""
        return self.decrypt(self.run(self.encrypt(*integers)))

    def simulate(
        self, *integers: npt.ArrayLike, random_state: int = 0
    ) -> IntArray | tuple[IntArray, ...]:
        """Result of one sample in the clear, with the errors that encryption may cause.

        Needs no keys. `cipherlearn.circuit.simulate` does the same for a whole batch at once.

        Parameters
        ----------
        *integers : array-like of int
            As for `encrypt`.
        random_state : int, default=0
            Seed of the errors.
        """
        sample = self._check_sample(integers)
        evaluation = simulate(
            self.circuit, *sample, p_error=self.p_error, random_state=random_state
        )
        result: IntArray | tuple[IntArray, ...] = _unwrap(
            tuple(output[0] for output in evaluation.outputs)
        )
        return result

    @property
    def statistics(self) -> dict[str, Any]:
        """Figures of the program by name; engines may add their own."""
        names = (
            "programmable_bootstrap_count",
            "complexity",
            "p_error",
            "global_p_error",
            "size_of_inputs",
            "size_of_outputs",
            "size_of_secret_keys",
            "size_of_evaluation_keys",
        )
        return {name: getattr(self, name) for name in names}

    @property
    @abstractmethod
    def programmable_bootstrap_count(self) -> int:
        """Table look-ups of one execution, those of exact rounding included."""

    @property
    @abstractmethod
    def complexity(self) -> float:
        """What one execution costs, in the engine's own unit (one machine, one core)."""

    @property
    @abstractmethod
    def p_error(self) -> float:
        """Effective probability that one table look-up gives a wrong entry."""

    @property
    @abstractmethod
    def global_p_error(self) -> float:
        """Effective probability that any look-up of one execution gives a wrong entry."""

    @property
    @abstractmethod
    def size_of_inputs(self) -> int:
        """Bytes of one encrypted sample."""

    @property
    @abstractmethod
    def size_of_outputs(self) -> int:
        """Bytes of one encrypted result."""

    @property
    @abstractmethod
    def size_of_secret_keys(self) -> int:
        """Bytes of the keys that stay with the client."""

    @property
    @abstractmethod
    def size_of_evaluation_keys(self) -> int:
        """Bytes of the keys that the server needs, as it holds them while running."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the program holds outside of memory. May be called twice."""

    def __enter__(self: ProgramType) -> ProgramType:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _require_keys(self, action: str) -> None:
        if not self.has_keys:
            raise EngineError(f"cannot {action}: there are no keys yet. Call keygen() first")

    def _check_sample(self, integers: Sequence[npt.ArrayLike]) -> list[IntArray]:
        """The inputs with a batch axis of one, once they are known to fit."""
        arrays = [np.asarray(array) for array in integers]
        for array, known in zip(arrays, self.circuit.inputs, strict=False):
            if array.shape != known.shape:
                raise InvalidShapeError(
                    f"the input {known.label!r} has shape {array.shape}; one sample without batch "
                    f"axis has {known.shape}"
                )
        return check_inputs(self.circuit, tuple(array[None] for array in arrays))


class Engine(ABC):
    """Turns circuits into programs."""

    #: Name of the engine, that of its module.
    name: ClassVar[str]

    @abstractmethod
    def check_available(self) -> None:
        """Raise `EngineUnavailableError`, with what to install or change, if it cannot run here."""

    def is_available(self) -> bool:
        """Whether the engine can run here."""
        try:
            self.check_available()
        except EngineError:
            return False
        return True

    @abstractmethod
    def compile(self, circuit: ir.Circuit, options: CompileOptions | None = None) -> Program:
        """Compile a circuit.

        Parameters
        ----------
        circuit : Circuit
        options : CompileOptions or None, default=None
            None for the defaults.

        Raises
        ------
        EngineUnavailableError
            If the engine cannot run here.
        CompilationError, NoParametersError
            If it cannot do what the circuit asks for.
        """


def engine_names() -> tuple[str, ...]:
    """Names of the engines that exist, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(_package_path()))
    return tuple(sorted(name for name in names if _engine_class(name) is not None))


def get_engine(name: str = "concrete") -> Engine:
    """The engine of that name.

    Parameters
    ----------
    name : str, default="concrete"

    Raises
    ------
    InvalidParameterError
        If there is none; the message lists those that exist.
    """
    modules = {module.name for module in pkgutil.iter_modules(_package_path())}
    engine = _engine_class(name) if name in modules else None
    if engine is None:
        raise InvalidParameterError(
            f"there is no engine {name!r}; known are {', '.join(engine_names())}"
        )
    return engine()


def _package_path() -> Any:
    return importlib.import_module(__package__ or "").__path__


def _engine_class(module: str) -> Callable[[], Engine] | None:
    found: Callable[[], Engine] | None = getattr(
        importlib.import_module(f"{__package__}.{module}"), "ENGINE", None
    )
    return found


def _flatten(values: Sequence[Any]) -> tuple[Any, ...]:
    """Values of nested tuples, in order."""
    flat: list[Any] = []
    for value in values:
        flat.extend(_flatten(value) if isinstance(value, tuple) else (value,))
    return tuple(flat)


def _unwrap(values: tuple[Any, ...]) -> Any:
    """The only value, or all of them."""
    return values[0] if len(values) == 1 else values
