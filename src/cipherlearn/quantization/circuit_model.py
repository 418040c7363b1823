"""What every model that is a circuit between quantizers can do: run, compile, report."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from cipherlearn.circuit import Circuit, Evaluation
from cipherlearn.engines import CompileOptions, Engine, Program, get_engine
from cipherlearn.engines.check import self_check
from cipherlearn.engines.estimate import CostReport, estimate_cost
from cipherlearn.engines.execution import FheMode, run_circuit
from cipherlearn.errors import (
    FormatError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    LookupWidthError,
    NotCompiledError,
    OverflowWarning,
    warn,
)
from cipherlearn.quantization.calibration import as_tuple, check_real_arrays, report_clipped
from cipherlearn.quantization.quantizers import UniformQuantizer


class CircuitModel(ABC):
    """An integer program (`circuit`) between quantizers, in the clear or encrypted.

    Attributes
    ----------
    input_quantizers, output_quantizers : list of UniformQuantizer
    fhe_circuit : Program or None
        The compiled circuit; None before `compile`.
    overflow_count : int
        Values that left the range kept for an accumulator, over all rows seen so far.
    clipped_count : int
        Input values that were clipped to the range of their quantizer, over all rows seen so far.
    """

    def __init__(self, input_names: Sequence[str], output_names: Sequence[str]) -> None:
        self.ordered_module_input_names = tuple(input_names)
        self.ordered_module_output_names = tuple(output_names)
        self.input_quantizers: list[UniformQuantizer] = []
        self.output_quantizers: list[UniformQuantizer] = []
        self.input_shapes: tuple[tuple[int, ...], ...] = ()
        self.fhe_circuit: Program | None = None
        self.overflow_count = 0
        self.clipped_count = 0
        self._encrypted: tuple[bool, ...] = ()
        self._circuit: Circuit | None = None

    @property
    def circuit(self) -> Circuit:
        """The integer program, for one row; built when it is first needed.

        Raises
        ------
        NotCalibratedError
            If the model was not calibrated.
        """
        if self._circuit is None:
            self._circuit = self._build_circuit()
        return self._circuit

    @abstractmethod
    def _build_circuit(self) -> Circuit:
        """The integer program of the calibrated model."""

    def _discard_circuit(self) -> None:
        """Build and compile anew when next needed."""
        self._circuit, self.fhe_circuit = None, None

    def _explained(self, error: LookupWidthError) -> LookupWidthError:
        """The engine's error, with what the model knows of its cause."""
        return error

    def restore(
        self,
        circuit: Circuit,
        input_quantizers: list[UniformQuantizer],
        output_quantizers: list[UniformQuantizer],
    ) -> None:
        """Take over a saved circuit, once its quantizers are known to fit it.

        Raises
        ------
        FormatError
            If there is not one name and one quantizer for each input and output of the circuit.
        """
        inputs = (self.ordered_module_input_names, circuit.inputs, input_quantizers)
        outputs = (self.ordered_module_output_names, circuit.outputs, output_quantizers)
        for what, parts in (("inputs", inputs), ("outputs", outputs)):
            counts = [len(part) for part in parts]
            if len(set(counts)) > 1:
                raise FormatError(
                    f"the saved model is damaged: {counts[0]} names of {what}, {counts[1]} "
                    f"{what} of the circuit, {counts[2]} quantizers"
                )
        for known, quantizer in zip(circuit.inputs, input_quantizers, strict=True):
            quantizer.check_calibrated()
            if (known.lo, known.hi) != quantizer.integer_limits:
                raise FormatError(
                    f"the saved model is damaged: the quantizer of {known.label!r} gives integers "
                    f"from {quantizer.integer_limits[0]} to {quantizer.integer_limits[1]}, its "
                    f"circuit takes {known.lo} to {known.hi}"
                )
        pairs = [
            (known.shape, q) for known, q in zip(circuit.inputs, input_quantizers, strict=True)
        ]
        results = zip(circuit.output_nodes, output_quantizers, strict=True)
        pairs += [(node.shape[1:] or (1,), quantizer) for node, quantizer in results]
        for shape, quantizer in pairs:
            if not _fits(quantizer, shape):
                raise FormatError(
                    "the saved model is damaged: scales and zero-points do not fit values of shape "
                    f"{shape}"
                )
        self._circuit = circuit
        self.input_quantizers, self.output_quantizers = input_quantizers, output_quantizers
        self.input_shapes = tuple(known.shape for known in circuit.inputs)
        self._encrypted = tuple(known.encrypted for known in circuit.inputs)

    def __getstate__(self) -> dict[str, Any]:
        # Copies are not compiled: an engine's program cannot be copied.
        return {**self.__dict__, "fhe_circuit": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # Layers, float model and circuit never change: copies share them.
        result = copy.copy(self)
        memo[id(self)] = result
        result.input_quantizers = copy.deepcopy(self.input_quantizers, memo)
        result.output_quantizers = copy.deepcopy(self.output_quantizers, memo)
        return result

    def __repr__(self) -> str:
        names = ", ".join(self.ordered_module_input_names)
        results = ", ".join(self.ordered_module_output_names)
        state = "compiled" if self.is_compiled else "not compiled"
        return f"{type(self).__name__}({names} -> {results}; {state})"

    def forward(self, *x: np.ndarray, fhe: str | FheMode = "disable") -> Any:
        """Real outputs of real inputs.

        Parameters
        ----------
        *x : numpy.ndarray of float, each of shape (rows, *shape)
            One array an input.
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray of float64, or a tuple of them

        Raises
        ------
        InvalidTypeError
            If an array does not hold floating-point values.
        NotCompiledError
            If the mode needs a compiled model.
        """
        mode = FheMode.of(fhe)
        integers = as_tuple(self.quantized_forward(*self._rows(x), fhe=mode))
        self._count_clipped(x)
        return self.post_processing(*as_tuple(self.dequantize_output(*integers)))

    def _count_clipped(self, x: Sequence[Any]) -> None:
        """Count input values beyond the range of their quantizer, and warn of many."""
        names = self.ordered_module_input_names
        reals = [array for array in self._checked_reals(x) if array is not None]
        self.clipped_count += report_clipped(names, reals, self.input_quantizers)

    def quantized_forward(self, *q_x: np.ndarray, fhe: str | FheMode = "disable") -> Any:
        """Integer outputs of integer inputs.

        Parameters
        ----------
        *q_x : numpy.ndarray of signed integers, each of shape (rows, *shape)
            What `quantize_input` returns.
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        numpy.ndarray of int64, or a tuple of them

        Raises
        ------
        InvalidTypeError
            If an array does not hold signed integers.
        InvalidShapeError
            If the number of arrays or a shape is wrong.
        """
        names = self.ordered_module_input_names
        if len(q_x) != len(names):
            raise InvalidShapeError(
                f"{len(q_x)} arrays were given; the model takes {len(names)} ({', '.join(names)})"
            )
        arrays = []
        for name, array, shape in zip(names, map(np.asarray, q_x), self.input_shapes, strict=True):
            if array.dtype.kind != "i":
                raise InvalidTypeError(
                    f"the input {name!r} has dtype {array.dtype}; quantized inputs are signed "
                    "integers (quantize_input makes them)"
                )
            if array.shape[1:] != shape[1:]:
                raise InvalidShapeError(
                    f"the input {name!r} has shape {array.shape}; it must be (rows, "
                    f"{', '.join(map(str, shape[1:]))})"
                )
            arrays.append(array)
        evaluation = self._evaluated(arrays, FheMode.of(fhe))
        self._report_overflows(evaluation, len(arrays[0]))
        outputs = tuple(_without_sample_axis(output) for output in evaluation.outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def _evaluated(self, q_x: Sequence[np.ndarray], mode: FheMode) -> Evaluation:
        """Results of the circuit on checked integers."""
        samples = (array[:, None] for array in q_x)
        return run_circuit(self.circuit, self.fhe_circuit, *samples, fhe=mode)

    def _report_overflows(self, evaluation: Evaluation, rows: int) -> None:
        count = evaluation.overflow_count
        self.overflow_count += count
        if not count:
            return
        labels = [self.circuit.nodes[p].label for p, found in evaluation.overflows.items() if found]
        warn(
            f"{count} accumulators of {rows} rows left the range observed in calibration (in "
            f"{', '.join(dict.fromkeys(labels))}): they are moved to its border in the clear, and "
            "encrypted results of these rows may be wrong. Calibrate on more rows, or on rows like "
            "these",
            OverflowWarning,
        )

    def samples(self, *x: Any) -> tuple[np.ndarray, ...]:
        """Real inputs as the circuit takes them: integers of shape (rows, 1, *shape)."""
        return tuple(integers[:, None] for integers in self._rows(x))

    def real_outputs(self, integers: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Outputs of the model from what `cipherlearn.circuit.evaluate` returns."""
        reals = as_tuple(self.dequantize_output(*map(_without_sample_axis, integers)))
        return as_tuple(self.post_processing(*reals))

    def quantize_input(self, *x: Any, dtype: Any = np.int64) -> Any:
        """Integers of real inputs, in the client's hands.

        Parameters
        ----------
        *x : numpy.ndarray or None
            One an input; None leaves one out (several parties give an input each).
        dtype : numpy dtype, default=int64

        Returns
        -------
        numpy.ndarray, or a tuple with one entry an input

        Raises
        ------
        InvalidShapeError
            If there is not one entry an input, or the numbers of rows differ.
        InvalidTypeError, InvalidParameterError
            If an array does not hold floating-point values, or holds NaN or infinity.
        """
        pairs = zip(self.input_quantizers, self._checked_reals(x), strict=True)
        result = tuple(None if value is None else q.quant(value, dtype) for q, value in pairs)
        return result if len(result) > 1 else result[0]

    def _checked_reals(self, x: Sequence[Any]) -> list[np.ndarray | None]:
        """What the client quantizes of its inputs; None for those that it does not have."""
        x = self.pre_processing(*x)
        if len(x) != len(self.input_quantizers):
            raise InvalidShapeError(
                f"{len(x)} arrays were given; the model takes {len(self.input_quantizers)} "
                f"({', '.join(self.ordered_module_input_names)})"
            )
        names = self.ordered_module_input_names
        given = [name for name, value in zip(names, x, strict=True) if value is not None]
        if not given:
            raise InvalidParameterError("at least one input must be given")
        arrays = iter(check_real_arrays(given, [value for value in x if value is not None]))
        return [None if value is None else next(arrays) for value in x]

    def dequantize_output(self, *q_y: np.ndarray) -> Any:
        """Real outputs of integer outputs: float64, or a tuple of arrays.

        What the client adds or computes on its own comes after it: with several outputs, that is
        ``post_processing(*dequantize_output(*decrypted))``.
        """
        if len(q_y) != len(self.output_quantizers):
            raise InvalidShapeError(
                f"{len(q_y)} arrays were given; the model has {len(self.output_quantizers)} outputs"
            )
        result = tuple(
            np.asarray(quantizer.dequant(np.asarray(value)), dtype=np.float64)
            for quantizer, value in zip(self.output_quantizers, q_y, strict=True)
        )
        return result if len(result) > 1 else result[0]

    def pre_processing(self, *values: Any) -> tuple[Any, ...]:
        """What the client does before quantization: nothing, unless a subclass says otherwise."""
        return values

    def post_processing(self, *values: np.ndarray) -> Any:
        """What the client does after dequantization: nothing, unless a subclass says otherwise."""
        return values if len(values) > 1 else values[0]

    @property
    def is_compiled(self) -> bool:
        """Whether the module can simulate and execute."""
        return self.fhe_circuit is not None

    def check_model_is_compiled(self) -> None:
        """Raise `NotCompiledError` unless the module is compiled."""
        if not self.is_compiled:
            raise NotCompiledError("the model is not compiled: call compile() first")

    def compile(
        self,
        inputs: Any = None,
        configuration: Any = None,
        artifacts: Any = None,
        show_mlir: bool = False,
        p_error: float | None = None,
        global_p_error: float | None = None,
        verbose: bool = False,
        inputs_encryption_status: Sequence[str] | None = None,
        device: str = "cpu",
        *,
        engine: str = "concrete",
        check: bool = False,
        compress_inputs: bool = True,
    ) -> Program:
        """Compile the circuit. No key is made.

        Parameters
        ----------
        inputs : numpy.ndarray or tuple of them, optional
            Real rows. Ranges come from calibration already; overflows on these rows are counted
            and warned of, and a self-check runs on them.
        configuration, artifacts : object, optional
            The engine's own configuration and artifacts collector.
        show_mlir, verbose : bool, default=False
            Print the engine's intermediate code, or its whole compilation.
        p_error : float, optional
            Error probability of one look-up. Default: 2**-40.
        global_p_error : float, optional
            Error probability of a whole row, instead of ``p_error``.
        inputs_encryption_status : sequence of {"encrypted", "clear"}, optional
            One an input. Default: all encrypted.
        device : {"cpu", "cuda"}, default="cpu"
        engine : str, default="concrete"
            What compiles: see `cipherlearn.engines`.
        check : bool, default=False
            Make keys, run one encrypted row, and compare with the exact evaluator.
        compress_inputs : bool, default=True
            Whether encrypted inputs are sent as seeds: hundreds of times smaller, and the server
            takes about as long to expand them as the client to encrypt them.

        Returns
        -------
        Program
            Also kept as `fhe_circuit`.

        Raises
        ------
        InvalidParameterError
            If both probabilities are given, or an option is unknown.
        CompilationError
            If the engine refuses the circuit; the message names the layer.
        """
        options = CompileOptions.of(
            p_error,
            global_p_error,
            configuration=configuration,
            artifacts=artifacts,
            show_mlir=show_mlir,
            verbose=verbose,
            device=device,
            compress_inputs=compress_inputs,
        )
        self._set_encryption_status(inputs_encryption_status)
        try:
            self.fhe_circuit = self._compiled(get_engine(engine), options)
        except LookupWidthError as error:
            raise self._explained(error) from error
        rows = None if inputs is None else self._rows(as_tuple(inputs))
        if rows is not None:
            self.quantized_forward(*rows)
        if check:
            if rows is None:
                raise InvalidParameterError("check=True needs inputs to run on")
            self_check(self.fhe_circuit, *(integers[:1, None] for integers in rows))
        return self.fhe_circuit

    def _compiled(self, engine: Engine, options: CompileOptions) -> Program:
        """The program of the circuit, or of the cheapest of several with the same results."""
        return engine.compile(self.circuit, options)

    def _rows(self, inputs: Sequence[Any]) -> tuple[np.ndarray, ...]:
        """Quantized rows of checked real inputs."""
        return as_tuple(self.quantize_input(*inputs))

    def _set_encryption_status(self, given: Sequence[str] | None) -> None:
        count = len(self.input_quantizers)
        status = self._default_encryption_status() if given is None else given
        encrypted = check_encryption_status(status, count)
        if encrypted == (self._encrypted or (True,) * count):
            return
        self._encrypted = encrypted
        self._discard_circuit()

    def _default_encryption_status(self) -> list[str]:
        return ["encrypted"] * len(self.input_quantizers)

    def cost(self) -> CostReport:
        """What a prediction costs, before any key is made.

        Returns
        -------
        CostReport
            Prints as a table: look-ups by width, complexity, estimated seconds on this machine,
            sizes of keys and ciphertexts, memory.

        Raises
        ------
        NotCompiledError
            If the module is not compiled.
        """
        if self.fhe_circuit is None:
            raise NotCompiledError("the cost is asked of the engine: call compile() first")
        return estimate_cost(self.circuit, self.fhe_circuit)

    def bitwidth_and_range_report(self) -> dict[str, dict[str, Any]]:
        """Range and width of what each layer hands on: known before compiling, and without keys.

        Returns
        -------
        dict
            Name of the layer -> ``{"range": (smallest, largest integer), "bitwidth": bits}``.
        """
        nodes, readers = self.circuit.nodes, self.circuit.consumers()
        report: dict[str, dict[str, Any]] = {}
        for position, node in enumerate(nodes):
            used = any(nodes[reader].label != node.label for reader in readers[position])
            handed_on = used or position in self.circuit.outputs
            if not (node.label and node.encrypted and handed_on):
                continue
            low, high = node.interval.min, node.interval.max
            known = report.setdefault(node.label, {"range": (low, high), "bitwidth": 0})
            known["range"] = (min(known["range"][0], low), max(known["range"][1], high))
            known["bitwidth"] = max(known["bitwidth"], node.interval.width)
        return report


def check_encryption_status(given: Any, count: int | None = None) -> tuple[bool, ...]:
    """For each input, whether it is encrypted.

    Parameters
    ----------
    given : sequence of {"encrypted", "clear"}
    count : int or None, default=None
        How many inputs there are; not checked if None.

    Raises
    ------
    InvalidParameterError
        If there is not one entry an input, an entry is unknown, or none is encrypted.
    """
    listed = list(given) if isinstance(given, (list, tuple)) else []
    status = [str(entry).lower() for entry in listed]
    right_count = bool(status) if count is None else len(status) == count
    if not right_count or not set(status) <= {"clear", "encrypted"} or "encrypted" not in status:
        number = "each input" if count is None else f"each of the {count} inputs"
        raise InvalidParameterError(
            f"inputs_encryption_status takes a list with 'clear' or 'encrypted' for {number}, at "
            f"least one of them 'encrypted'; {given!r} was given"
        )
    return tuple(entry == "encrypted" for entry in status)


def _without_sample_axis(output: np.ndarray) -> np.ndarray:
    """Drop the axis that stands for one row within a row: (rows, 1, ...) -> (rows, ...)."""
    return output[:, 0] if output.ndim > 1 and output.shape[1] == 1 else output


def _fits(quantizer: UniformQuantizer, shape: tuple[int, ...]) -> bool:
    """Whether scale and zero-point broadcast to values of a shape."""
    try:
        broadcast = np.broadcast_shapes(
            np.shape(quantizer.scale), np.shape(quantizer.zero_point), shape
        )
    except ValueError:
        return False
    return broadcast[-len(shape) :] == shape and int(np.prod(broadcast)) == int(np.prod(shape))
