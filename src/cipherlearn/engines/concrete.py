"""The engine Concrete (TFHE): the only file that imports it.

A circuit is first rewritten for look-up machines (`_legalize`), its widths are computed
(`_regions`), and the engine traces it (`_lowering`) with those widths in place of ones measured on
samples.
"""

from __future__ import annotations

import importlib
import shutil
import types
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.engines._diagnose import explain_no_parameters
from cipherlearn.engines._environment import (
    loaded_too_early,
    missing_companion,
    missing_instructions,
)
from cipherlearn.engines._legalize import MAXIMUM_LOOKUP_WIDTH, Legalized, legalize
from cipherlearn.engines._lowering import Lowering
from cipherlearn.engines._regions import Regions, find_regions
from cipherlearn.engines._widths import width_passes
from cipherlearn.engines.base import EXPLAINED_BY_P_ERROR, CompileOptions, Engine, IntArray, Program
from cipherlearn.engines.progress import clock
from cipherlearn.errors import (
    CipherlearnError,
    CompilationError,
    EngineError,
    EngineUnavailableError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    NoParametersError,
    SelfCheckError,
)

#: Where the engine makes its temporary folders.
_SERVER_MODULE = "concrete.fhe.compilation.server"

#: Parts of the engine's messages when no parameters reach the precision.
_NO_PARAMETERS = ("NoParametersFound", "Unfeasible noise constraint", "cannot find parameters")


class ConcreteEngine(Engine):
    """Compiles circuits to fully homomorphic encryption with ``concrete-python``."""

    name = "concrete"

    def check_available(self) -> None:
        """Raise `EngineUnavailableError`, with what to install or change, if it cannot run here."""
        problem = missing_companion() or missing_instructions() or loaded_too_early("concrete.fhe")
        if problem:
            raise EngineUnavailableError(problem)
        _load("concrete.fhe")

    def compile(
        self, circuit: ir.Circuit, options: CompileOptions | None = None
    ) -> ConcreteProgram:
        """Compile a circuit. Takes about 0.2 s and more; makes no keys.

        Parameters
        ----------
        circuit : Circuit
        options : CompileOptions or None, default=None
            None for the defaults.

        Raises
        ------
        EngineUnavailableError
            If the engine cannot run here.
        LookupWidthError
            If a look-up reads more than 16 bits.
        NoParametersError
            If no cryptographic parameters reach the precision that the circuit asks for.
        CompilationError
            If an output is constant, or the engine refuses the circuit for another reason.
        """
        chosen = CompileOptions() if options is None else options
        self.check_available()
        configuration, modular = _configuration(chosen)
        legal, regions = _fitted(circuit)
        try:
            compiled = _compile(legal, regions, configuration, chosen, modular)
            if compiled.reduced and compiled.figures["packing_key_switch_count"]:
                # Values read on eleven bits or so are kept as residues, modulo another number.
                remove_folder(compiled.folder)
                compiled = _compile(legal, regions, configuration, chosen, modular=False)
        except CipherlearnError:
            raise
        except Exception as error:
            raise _translated(error, circuit, legal, chosen) from error
        return ConcreteProgram(circuit, chosen, self, compiled)


@dataclass(frozen=True, eq=False)
class Compiled:
    """What the engine made of a circuit.

    Parameters
    ----------
    native : concrete.fhe.Circuit
    legal : Legalized
        What was compiled.
    parameters : tuple of int
        Positions, in the legalized circuit, of what the compiled circuit takes.
    reduced : bool
        Whether integers were replaced by others of the same effect modulo a power of two.
    """

    native: Any
    legal: Legalized
    parameters: tuple[int, ...]
    reduced: bool
    #: The engine's own statistics: it reads them from `folder`, which may be gone later.
    figures: dict[str, Any] = field(init=False)
    #: Where the engine put the compiled code; it never removes it.
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        folder = self.native.server._library.get_output_dir_path()  # noqa: SLF001 - not public
        object.__setattr__(self, "figures", dict(self.native.statistics))
        object.__setattr__(self, "folder", Path(folder))


class ConcreteProgram(Program):
    """A circuit compiled to fully homomorphic encryption.

    Parameters
    ----------
    circuit : Circuit
    options : CompileOptions
    engine : ConcreteEngine
    compiled : Compiled
    """

    def __init__(
        self,
        circuit: ir.Circuit,
        options: CompileOptions,
        engine: ConcreteEngine,
        compiled: Compiled,
    ) -> None:
        super().__init__(circuit, options, engine)
        self._compiled = compiled
        self._cleaner = weakref.finalize(self, remove_folder, compiled.folder)

    @property
    def native(self) -> Any:
        """The engine's own circuit; its integers are shifted to start at zero."""
        return self._compiled.native

    def keygen(self, force: bool = False, seed: int | None = None) -> None:
        """Make the keys, unless there are some. Takes 0.6 s to minutes.

        Parameters
        ----------
        force : bool, default=False
            Make new keys although there are some: what was encrypted before becomes unreadable.
        seed : int or None, default=None
            Makes the same keys each time. For tests only: whoever knows the seed has the keys.
        """
        if seed is not None and not 0 <= seed < 2**127:
            raise InvalidParameterError(f"a seed lies between 0 and 2**127, not {seed}")
        # The engine takes 0 for "random", and one seed for secrets, another for noise.
        seeds = (None, None) if seed is None else (2 * seed + 1, 2 * seed + 2)
        if self.has_keys and not force:
            return
        with _engine_errors("make keys"), clock("making keys"):
            self.native.keygen(force=force, seed=seeds[0], encryption_seed=seeds[1])

    @property
    def has_keys(self) -> bool:
        """Whether keys were made."""
        keys = self.native.keys
        return keys is not None and bool(keys.are_generated)

    def _encrypt(self, integers: Sequence[IntArray]) -> tuple[Any, ...]:
        legal = self._compiled.legal
        moved = [a - o for a, o in zip(integers, legal.input_offsets, strict=True)]
        values = _clear_values(legal.circuit, moved)
        arguments = []
        for position in self._compiled.parameters:
            value = values[position][0]
            arguments.append(np.array(value.reshape(value.shape or (1,))))
        with _engine_errors("encrypt"):
            return _as_tuple(self.native.client.encrypt(*arguments))

    def _run(self, encrypted: tuple[Any, ...]) -> tuple[Any, ...]:
        self._check_values(encrypted, len(self._compiled.parameters))
        with self._open(), _engine_errors("run"):
            keys = self.native.client.evaluation_keys
            return _as_tuple(self.native.server.run(*encrypted, evaluation_keys=keys))

    def _decrypt(self, encrypted: tuple[Any, ...]) -> tuple[IntArray, ...]:
        self._check_values(encrypted, len(self.circuit.outputs))
        with _engine_errors("decrypt"):
            values = _as_tuple(self.native.client.decrypt(*encrypted))
        offsets = self._compiled.legal.output_offsets
        results = tuple(
            np.asarray(value, dtype=np.int64).reshape(offset.shape) + offset
            for value, offset in zip(values, offsets, strict=True)
        )
        self._check_results(results)
        return results

    def _check_results(self, results: tuple[IntArray, ...]) -> None:
        """Raise if a result is one that the circuit cannot have, where all of them are known."""
        known = self.circuit.is_proved and self.circuit.is_deterministic
        # A look-up that fails may give an entry that no table has.
        if not known or self.global_p_error > EXPLAINED_BY_P_ERROR:
            return
        for node, result in zip(self.circuit.output_nodes, results, strict=True):
            if ((result < node.interval.lo) | (result > node.interval.hi)).any():
                raise SelfCheckError(
                    "the decrypted integers are outside of what the circuit can give: the values "
                    "were encrypted with other keys, belong to another program, were damaged, or "
                    "the engine erred"
                )

    def _check_values(self, encrypted: tuple[Any, ...], count: int) -> None:
        kind = _load("concrete.fhe").Value
        for value in encrypted:
            if not isinstance(value, kind):
                raise InvalidTypeError(
                    f"a {type(value).__name__} was given where an encrypted value is needed: "
                    "pass what encrypt() or run() returned"
                )
        if len(encrypted) != count:
            raise InvalidShapeError(f"{len(encrypted)} values were given; {count} are needed")

    @contextmanager
    def _open(self) -> Iterator[None]:
        if not self._cleaner.alive:
            raise EngineError("the program was closed: compile the circuit again to run it")
        yield

    @property
    def statistics(self) -> dict[str, Any]:
        """Figures of the program by name: those of every engine, then Concrete's own."""
        return {**super().statistics, **self._compiled.figures}

    @property
    def programmable_bootstrap_count(self) -> int:
        """Table look-ups of one execution, those of exact rounding included."""
        return int(self._compiled.figures["programmable_bootstrap_count"])

    @property
    def complexity(self) -> float:
        """What one execution costs, in the unit of the engine's optimizer."""
        return float(self._compiled.figures["complexity"])

    @property
    def p_error(self) -> float:
        """Effective probability that one table look-up gives a wrong entry."""
        return float(self._compiled.figures["p_error"])

    @property
    def global_p_error(self) -> float:
        """Effective probability that any look-up of one execution gives a wrong entry."""
        return float(self._compiled.figures["global_p_error"])

    @property
    def size_of_inputs(self) -> int:
        """Bytes of one encrypted sample."""
        return int(self._compiled.figures["size_of_inputs"])

    @property
    def size_of_outputs(self) -> int:
        """Bytes of one encrypted result."""
        return int(self._compiled.figures["size_of_outputs"])

    @property
    def size_of_secret_keys(self) -> int:
        """Bytes of the keys that stay with the client."""
        return int(self._compiled.figures["size_of_secret_keys"])

    @property
    def size_of_evaluation_keys(self) -> int:
        """Bytes of the keys that the server needs, as it holds them while running."""
        figures = self._compiled.figures
        return int(figures["size_of_bootstrap_keys"] + figures["size_of_keyswitch_keys"])

    def close(self) -> None:
        """Remove the compiled code from the disk. `encrypt` and `decrypt` keep working."""
        self._cleaner()


def _configuration(options: CompileOptions) -> tuple[Any, bool]:
    """The engine's configuration, and whether its arithmetic is modulo a power of two."""
    fhe = _load("concrete.fhe")
    given = options.configuration
    if given is None:
        given = fhe.Configuration()
    elif not isinstance(given, fhe.Configuration):
        raise InvalidTypeError(
            f"configuration must be a concrete.fhe.Configuration, not {type(given).__name__}"
        )
    if given.p_error is not None or given.global_p_error is not None:
        raise InvalidParameterError(
            "the configuration sets an error probability: give p_error or global_p_error to the "
            "compilation instead"
        )
    if options.device == "cuda":
        _check_gpu()
    own = given.fork(
        p_error=options.p_error,
        global_p_error=options.global_p_error,
        compress_input_ciphertexts=options.compress_inputs,
        compress_evaluation_keys=options.compress_keys,
        use_gpu=options.device == "cuda",
        dump_artifacts_on_unexpected_failures=False,
        fhe_simulation=False,
        fhe_execution=True,
        verbose=options.verbose or given.verbose,
        show_mlir=options.show_mlir or given.show_mlir,
    )
    # Other strategies may represent wide values by residues, and one precision for all adds bits.
    multi = fhe.ParameterSelectionStrategy.MULTI
    return own, own.parameter_selection_strategy == multi and not own.single_precision


def _fitted(circuit: ir.Circuit) -> tuple[Legalized, Regions]:
    """The rewritten circuit, so that every look-up reads a value of at most 16 bits."""
    narrowed: frozenset[int] = frozenset()
    while True:
        legal = legalize(circuit, narrowed)
        regions = find_regions(legal.circuit)
        nodes = legal.circuit.nodes
        too_wide = {
            int(nodes[reader].label)
            for reader, operand in regions.read
            if isinstance(nodes[reader].primitive, ir.Lookup)
            and regions.width[operand] > MAXIMUM_LOOKUP_WIDTH
        }
        if too_wide <= narrowed:
            return legal, regions
        narrowed |= too_wide


def _compile(
    legal: Legalized, regions: Regions, configuration: Any, options: CompileOptions, modular: bool
) -> Compiled:
    fhe = _load("concrete.fhe")
    lowering = Lowering(legal.circuit, regions, fhe, reduce=modular)
    processor = _load("concrete.fhe.representation").GraphProcessor
    integer = _load("concrete.fhe.dtypes").Integer
    set_widths, check_widths = width_passes(lowering, processor, integer)
    checks = [check_widths] if modular else []
    own = configuration.fork(
        additional_pre_processors=[set_widths, *configuration.additional_pre_processors],
        additional_post_processors=[*configuration.additional_post_processors, *checks],
    )
    statuses = {
        name: "encrypted" if legal.circuit.nodes[position].encrypted else "clear"
        for name, position in zip(lowering.names, lowering.parameters, strict=True)
    }
    compiler = fhe.Compiler(lowering.function(), statuses)
    try:
        # The engine changes how NumPy treats divisions by zero, for the whole process.
        with np.errstate():
            native = compiler.compile([lowering.sample()], own, options.artifacts)
    except BaseException as error:
        _remove_leftovers(error)
        raise
    return Compiled(native, legal, lowering.parameters, lowering.reduced)


def _clear_values(circuit: ir.Circuit, inputs: Sequence[IntArray]) -> dict[int, IntArray]:
    """Inputs, and all values that the client computes in the clear, with a batch axis of one."""
    given = iter(inputs)
    values: dict[int, IntArray] = {}
    for position, node in enumerate(circuit.nodes):
        if isinstance(node.primitive, ir.Input):
            values[position] = next(given)
        elif not node.encrypted:
            operands = (values[index] for index in node.inputs)
            result = kernels.apply(node.primitive, *operands)
            values[position] = np.broadcast_to(result, (1, *node.shape))
    return values


def _translated(
    error: Exception, circuit: ir.Circuit, legal: Legalized, options: CompileOptions
) -> EngineError:
    """Our error for one of the engine's; its stack trace stays out of the message."""
    text = str(error)
    if any(part in text for part in _NO_PARAMETERS):
        name = "p_error" if options.p_error is not None else "global_p_error"
        value = options.p_error if options.p_error is not None else options.global_p_error
        return NoParametersError(explain_no_parameters(circuit, legal, f"{name}={value:.3g}"))
    return CompilationError(f"the engine refused the circuit: {_last_line(error)}")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _engine_errors(action: str) -> Iterator[None]:
    try:
        yield
    except CipherlearnError:
        raise
    except Exception as error:
        raise EngineError(f"the engine could not {action}: {_last_line(error)}") from error


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return values if isinstance(values, tuple) else (values,)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all it holds; one that is gone is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(error: BaseException) -> None:
    """Remove the folder of a compilation that failed: only the engine's frame knows its name."""
    trace = error.__traceback__
    while trace is not None:
        folder = trace.tb_frame.f_locals.get("output_dir")
        if trace.tb_frame.f_globals.get("__name__") == _SERVER_MODULE and folder is not None:
            remove_folder(Path(folder))
        trace = trace.tb_next


def _load(name: str) -> types.ModuleType:
    """Import a module of the engine, without the warnings of what it imports."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise EngineUnavailableError(
            f"the engine cannot be imported ({error}). Install it with: "
            'pip install "concrete-python>=2.11" "numpy<2" "setuptools<81"'
        ) from error


def _check_gpu() -> None:
    compiler = _load("concrete.compiler")
    if not compiler.check_gpu_enabled():
        raise EngineUnavailableError(
            "device='cuda' needs the engine's build for GPUs: pip install concrete-python "
            "--extra-index-url https://pypi.zama.ai/gpu"
        )
    if not compiler.check_gpu_available():
        raise EngineUnavailableError("device='cuda' was asked for, but no CUDA device is available")


ENGINE = ConcreteEngine
