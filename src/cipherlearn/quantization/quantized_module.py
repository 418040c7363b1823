"""A quantized model: integers in, integers out, in the clear or encrypted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from cipherlearn.circuit import (
    Builder,
    Circuit,
    Evaluation,
    circuit_from_dict,
    circuit_to_dict,
    fuse,
)
from cipherlearn.circuit.linear import fold_factors
from cipherlearn.circuit.serialize import decode, encode, parse_json
from cipherlearn.circuit.steps import round_steps
from cipherlearn.engines.execution import FheMode
from cipherlearn.errors import (
    CircuitError,
    FormatError,
    InvalidParameterError,
    InvalidShapeError,
    LookupWidthError,
    ModelError,
    NotCalibratedError,
)
from cipherlearn.onnx import Graph
from cipherlearn.quantization.agreement import Agreement, measure_agreement
from cipherlearn.quantization.annotation import annotated_model
from cipherlearn.quantization.circuit_model import CircuitModel
from cipherlearn.quantization.client_side import (
    encoded,
    graph_from_dict,
    graph_to_dict,
    run_tail,
)
from cipherlearn.quantization.inspection import (
    Trace,
    check_has_layers,
    held_integers,
    ranges_of_layers,
    trace_module,
)
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.quantizers import UniformQuantizer
from cipherlearn.quantization.widths import Layers, naming_sources, with_sources

if TYPE_CHECKING:
    from cipherlearn.quantization.search import SearchResult

#: Written into saved modules; files with a higher number come from a newer version.
FORMAT_VERSION = 1


class QuantizedModule(CircuitModel):
    """A quantized model.

    Made by `PostTrainingAffineQuantization.quantize_module` or by the compile functions of
    `cipherlearn.torch`. Its meaning is an integer program (`circuit`) between quantizers.

    Parameters
    ----------
    ordered_module_input_names, ordered_module_output_names : sequence of str, optional
        Tensors of the model, in order.
    quant_layers_dict : mapping, optional
        Output tensor -> (input tensors, quantized operator), in topological order.
    onnx_model : onnx.ModelProto, optional
        The float model.

    Attributes
    ----------
    input_quantizers, output_quantizers : list of UniformQuantizer
    fhe_circuit : Program or None
        The compiled circuit; None before `compile`.
    bypassed : dict of str to str
        Activations whose linear part goes around the look-up -> ``"hidden"``, or ``"outputs"``
        where it is an output of its own, which tells the client more of the model.
    search : SearchResult or None
        What was measured, where ``n_bits="auto"`` found the bits.
    overflow_count : int
        Values that left the range kept for an accumulator, over all rows seen by `forward` and
        `quantized_forward`.
    clipped_count : int
        Input values that `forward` moved to the border of the range of their quantizer: there is a
        warning where they are more than a trace.

    Raises
    ------
    InvalidParameterError
        If only some of names and layers are given.
    """

    def __init__(
        self,
        ordered_module_input_names: Sequence[str] | None = None,
        ordered_module_output_names: Sequence[str] | None = None,
        quant_layers_dict: Layers | None = None,
        onnx_model: Any = None,
    ) -> None:
        given = (ordered_module_input_names, ordered_module_output_names, quant_layers_dict)
        if any(part is None for part in given) and any(part is not None for part in given):
            raise InvalidParameterError(
                "give the names of inputs and outputs together with the layers, or none of them"
            )
        super().__init__(ordered_module_input_names or (), ordered_module_output_names or ())
        self.quant_layers_dict: dict[str, Any] = dict(quant_layers_dict or {})
        self.onnx_model = onnx_model
        self.numpy_model: Any = None
        self.head: Graph | None = None
        self.tail: Graph | None = None
        self.post_processing_params: dict[str, Any] = {}
        self.search: SearchResult | None = None
        self.bypassed: dict[str, str] = {}

    @classmethod
    def from_layers(
        cls,
        *,
        ordered_module_input_names: Sequence[str],
        ordered_module_output_names: Sequence[str],
        quant_layers_dict: Layers,
        input_quantizers: list[UniformQuantizer],
        output_quantizers: list[UniformQuantizer],
        calibration_data: list[np.ndarray],
        onnx_model: Any,
        numpy_model: Any,
        head: Graph | None = None,
        tail: Graph | None = None,
        bypassed: Mapping[str, str] | None = None,
    ) -> QuantizedModule:
        """A module of calibrated layers: what converters make.

        Parameters
        ----------
        ordered_module_input_names, ordered_module_output_names, quant_layers_dict, onnx_model
            As for the class.
        input_quantizers, output_quantizers : list of UniformQuantizer
        calibration_data : list of numpy.ndarray
            Tells the shapes of the inputs.
        numpy_model : NumpyModule or None
            The float model, to compare with.
        head, tail : Graph, optional
            What the client computes before quantization, and after dequantization.
        bypassed : mapping of str to str, optional
            As the attribute.
        """
        module = cls(
            ordered_module_input_names, ordered_module_output_names, quant_layers_dict, onnx_model
        )
        module.input_quantizers = input_quantizers
        module.output_quantizers = output_quantizers
        module.input_shapes = tuple((1, *array.shape[1:]) for array in calibration_data)
        module.numpy_model = numpy_model
        module.head, module.tail = head, tail
        module.bypassed = dict(bypassed or {})
        return module

    def _build_circuit(self) -> Circuit:
        if not self.input_quantizers:
            raise NotCalibratedError(
                "the module is empty: make one with quantize_module or a compile function"
            )
        builder = Builder()
        encrypted = self._encrypted or (True,) * len(self.input_shapes)
        names, limits = self.ordered_module_input_names, self.input_quantizers
        sources = [
            builder.input(name, shape, *quantizer.integer_limits, encrypted=secret)
            for name, quantizer, shape, secret in zip(
                names, limits, self.input_shapes, encrypted, strict=True
            )
        ]
        values = self._values(sources, builder)
        outputs = []
        for name in self.ordered_module_output_names:
            with builder.scope(name), naming_sources(self.quant_layers_dict, name):
                outputs.append(values[name].qvalues)
        try:
            circuit = builder.finish(outputs, self.ordered_module_output_names)
            return round_steps(fuse(fold_factors(circuit)))
        except CircuitError as error:
            raise ModelError(str(error)) from error

    def _explained(self, error: LookupWidthError) -> LookupWidthError:
        return with_sources(error, self.quant_layers_dict)

    def pre_processing(self, *values: Any) -> tuple[Any, ...]:
        """What the client does before quantization: encodings of tokens, for example.

        Raises
        ------
        InvalidShapeError, InvalidParameterError
            If there is not one array an input, or a token is outside of its table.
        """
        return values if self.head is None else encoded(self.head, values)

    def post_processing(self, *values: np.ndarray) -> Any:
        """What the client does after dequantization: a softmax or an arg-max, for example."""
        if self.tail is not None:
            values = run_tail(self.tail, values)
        return super().post_processing(*values)

    def __call__(self, *x: np.ndarray) -> Any:
        """`forward` in the clear."""
        return self.forward(*x)

    def forward(self, *x: np.ndarray, fhe: str | FheMode = "disable", debug: bool = False) -> Any:
        """Real outputs of real inputs: see `CircuitModel.forward`.

        Parameters
        ----------
        *x : numpy.ndarray of float, each of shape (rows, *shape)
        fhe : {"disable", "simulate", "execute"}, default="disable"
        debug : bool, default=False
            Also return the integers of every layer (in the clear only): a dictionary layer ->
            operand number or ``"output"`` -> `QuantizedArray`.
        """
        mode = FheMode.of(fhe)
        if debug and mode is not FheMode.DISABLE:
            raise InvalidParameterError("debug=True works with fhe='disable' only")
        result = super().forward(*x, fhe=mode)
        return (result, self._layer_values(self._rows(x))) if debug else result

    def _evaluated(self, q_x: Sequence[np.ndarray], mode: FheMode) -> Evaluation:
        try:
            return super()._evaluated(q_x, mode)
        except LookupWidthError:
            if mode is not FheMode.DISABLE or self.is_compiled or not self.quant_layers_dict:
                raise
        # What cannot be encrypted can still be looked at: layer by layer, on arrays.
        values = self._values(q_x)
        names = self.ordered_module_output_names
        return Evaluation(tuple(np.asarray(values[name].qvalues)[:, None] for name in names))

    def bitwidth_and_range_report(self) -> dict[str, dict[str, Any]]:
        """Range and width of what each layer hands on: see `CircuitModel`.

        Where a look-up is too wide for any circuit, each layer is looked at on its own.
        """
        try:
            return super().bitwidth_and_range_report()
        except LookupWidthError:
            if not self.quant_layers_dict:
                raise
        return ranges_of_layers(self, self._values)

    def set_inputs_quantization_parameters(self, *quantizers: UniformQuantizer) -> None:
        """Use other quantizers for the inputs; the circuit is built anew, compile it again.

        Parameters
        ----------
        *quantizers : UniformQuantizer
            Calibrated, one an input.

        Raises
        ------
        InvalidShapeError
            If there are more or fewer than inputs.
        ModelError
            If the module was loaded: it has a circuit, and no layers.
        """
        if len(quantizers) != len(self.input_quantizers):
            raise InvalidShapeError(
                f"{len(quantizers)} quantizers were given; the model has "
                f"{len(self.input_quantizers)} inputs"
            )
        for quantizer in quantizers:
            quantizer.check_calibrated()
        self._discard_circuit()
        self.input_quantizers = [_with_range(q) for q in quantizers]
        # What the outputs stand for depends on the steps of the inputs.
        zeros = tuple(np.zeros(shape) for shape in self.input_shapes)
        integers = tuple(q.quant(x) for q, x in zip(self.input_quantizers, zeros, strict=True))
        values = self._values(integers)
        self.output_quantizers = [values[n].quantizer for n in self.ordered_module_output_names]

    def _values(self, q_x: Sequence[Any], builder: Builder | None = None) -> dict[str, Any]:
        """All tensors, quantized: of arrays, or of values of a circuit."""
        values: dict[str, QuantizedArray] = {}
        names = self.ordered_module_input_names
        for name, q, integers in zip(names, self.input_quantizers, q_x, strict=True):
            values[name] = QuantizedArray(q.n_bits, integers, False, options=q, stats=q, params=q)
        for output, (inputs, op) in self.quant_layers_dict.items():
            with (
                nullcontext() if builder is None else builder.scope(op.op_instance_name),
                naming_sources(self.quant_layers_dict, output),
            ):
                values[output] = op(*(values[name] for name in inputs))
        return values

    def _layer_values(self, q_x: tuple[np.ndarray, ...]) -> dict[str, dict[Any, Any]]:
        if not self.quant_layers_dict:
            raise ModelError(
                "a loaded module has a circuit and no layers: there is no debug report"
            )
        values = self._values(q_x)
        return {
            op.op_instance_name: {
                **{position: values[name] for position, name in enumerate(inputs)},
                "output": values[output],
            }
            for output, (inputs, op) in self.quant_layers_dict.items()
        }

    def _discard_circuit(self) -> None:
        if not self.quant_layers_dict:
            raise ModelError(
                "a loaded module keeps its circuit: quantizers and encryption status are those "
                "that it was saved with"
            )
        super()._discard_circuit()

    def _default_encryption_status(self) -> list[str]:
        if self.quant_layers_dict:
            return super()._default_encryption_status()
        return ["encrypted" if secret else "clear" for secret in self._encrypted]

    def agreement(
        self, X: Any, y: Any = None, n_fhe: int = 0, *, random_state: int = 0
    ) -> Agreement:
        """Compare float, quantized, simulated and encrypted results.

        Parameters
        ----------
        X : numpy.ndarray or tuple of them
            Real rows, one array an input.
        y : numpy.ndarray, optional
            Labels (class numbers) or targets of the first output.
        n_fhe : int, default=0
            Rows that are encrypted for real, from the first one on; needs a compiled module.
        random_state : int, default=0
            Seed of simulated errors.

        Returns
        -------
        Agreement
            Prints as a table of scores, mismatches, overflows, and inputs outside of calibration.
        """
        return measure_agreement(self, X, y, n_fhe, random_state)

    def weight_layers(self) -> dict[str, tuple[bool, bool]]:
        """The layers with constant weights, in order.

        Returns
        -------
        dict of str to (bool, bool)
            Name of the node -> whether its operand comes from a look-up, and whether a look-up
            reads its result.
        """
        return {
            op.op_instance_name: (op.follows_lookup, op.feeds_lookup)
            for _, op in self.quant_layers_dict.values()
            if isinstance(op, QuantizedMixingOp) and op.has_weights
        }

    def operand_layers(self) -> frozenset[str]:
        """Names of the layers whose operand bits say how many bits a look-up writes.

        Other layers read integers that have their grid already.
        """
        ops = [op for _, op in self.quant_layers_dict.values() if isinstance(op, QuantizedMixingOp)]
        return frozenset(name for op in ops for name in op.operand_bits_of)

    def trace(self, *x: np.ndarray) -> Trace:
        """Every intermediate tensor on given rows, in float and quantized, in the clear.

        Parameters
        ----------
        *x : numpy.ndarray of float, each of shape (rows, *shape)

        Returns
        -------
        Trace
            Prints as a table; ``trace[name]`` is one tensor, by its name or that of its node.

        Raises
        ------
        ModelError
            If the module was loaded: it has a circuit, and no layers.
        """
        return trace_module(self, self._values, *x)

    def annotated_onnx(self) -> Any:
        """The float model with bits, scale, zero-point and range of its tensors as metadata.

        Returns
        -------
        onnx.ModelProto

        Raises
        ------
        ModelError
            If the module was loaded, or made with ``keep_onnx=False``.
        """
        check_has_layers(self)
        if self.onnx_model is None:
            raise ModelError("the float model was not kept: quantize with keep_onnx=True")
        tail = () if self.tail is None else self.tail.nodes
        on_client = [name for node in tail for name in node.outputs]
        held = held_integers(self, self._values)
        return annotated_model(self.onnx_model, held, self.quant_layers_dict, on_client)

    def save_onnx(self, path: str | Path) -> None:
        """Write `annotated_onnx` to a file, which viewers such as Netron open."""
        Path(path).write_bytes(self.annotated_onnx().SerializeToString())

    def dump_dict(self) -> dict[str, Any]:
        """Circuit and quantizers as JSON-compatible data; no float model, no keys."""
        return {
            "format": "cipherlearn.quantized_module",
            "version": FORMAT_VERSION,
            "circuit": circuit_to_dict(self.circuit),
            "input_names": list(self.ordered_module_input_names),
            "output_names": list(self.ordered_module_output_names),
            "input_quantizers": [q.dump_dict() for q in self.input_quantizers],
            "output_quantizers": [q.dump_dict() for q in self.output_quantizers],
            "post_processing_params": {
                k: encode(v) for k, v in self.post_processing_params.items()
            },
            "head": None if self.head is None else graph_to_dict(self.head),
            "tail": None if self.tail is None else graph_to_dict(self.tail),
            "bypassed": dict(self.bypassed),
        }

    def dumps(self) -> str:
        """The module as JSON text."""
        return json.dumps(self.dump_dict())

    def dump(self, file: IO[str]) -> None:
        """Write `dumps` to an open text file."""
        file.write(self.dumps())

    @classmethod
    def load_dict(cls, data: Any) -> QuantizedModule:
        """The module whose `dump_dict` is given; compile it to execute.

        Raises
        ------
        FormatError
            If the data is damaged, of another kind, or of a newer version.
        """
        if not isinstance(data, dict) or data.get("format") != "cipherlearn.quantized_module":
            raise FormatError("this is not a saved quantized module")
        if data.get("version") != FORMAT_VERSION:
            raise FormatError(
                f"the module was saved in format version {data.get('version')}; this cipherlearn "
                f"reads version {FORMAT_VERSION}"
            )
        try:
            names = [str(name) for name in data["input_names"]]
            module = cls(names, [str(name) for name in data["output_names"]], {})
            module.restore(
                circuit_from_dict(data["circuit"]),
                [UniformQuantizer.load_dict(q) for q in data["input_quantizers"]],
                [UniformQuantizer.load_dict(q) for q in data["output_quantizers"]],
            )
            parameters = data["post_processing_params"].items()
            module.post_processing_params = {key: decode(value) for key, value in parameters}
            # The first files of this version have neither: the client computed nothing.
            head, tail = data.get("head"), data.get("tail")
            module.head = None if head is None else graph_from_dict(head)
            module.tail = None if tail is None else graph_from_dict(tail)
            bypassed = data.get("bypassed", {}).items()
            module.bypassed = {str(name): str(where) for name, where in bypassed}
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"the saved module is damaged: {error!r}") from error
        return module

    @classmethod
    def loads(cls, text: str | bytes) -> QuantizedModule:
        """The module in a JSON text."""
        return cls.load_dict(parse_json(text))

    @classmethod
    def load(cls, file: IO[str]) -> QuantizedModule:
        """The module in an open text file."""
        return cls.loads(file.read())


def _with_range(quantizer: UniformQuantizer) -> UniformQuantizer:
    """A copy that knows its range: without an observed one, all that its integers stand for."""
    result = UniformQuantizer(quantizer, quantizer, quantizer, quantizer.no_clipping)
    if result.rmin is None or result.rmax is None:
        result.compute_quantization_stats(result.dequant(np.asarray(result.integer_limits)))
    return result
