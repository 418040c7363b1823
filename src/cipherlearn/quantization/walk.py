"""The walk over the graph of a float model that quantizes it, layer by layer."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherlearn import ops
from cipherlearn.errors import (
    CalibrationWarning,
    CipherlearnError,
    EncryptedOperandError,
    ModelError,
    UnsupportedAttributeError,
    warn,
)
from cipherlearn.onnx import Graph, Node, execute
from cipherlearn.quantization.base_quantized_op import QuantizedOp, observed_values
from cipherlearn.quantization.breakdown import Breakdown
from cipherlearn.quantization.expand import Provenance
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.quantized_ops import quantized_class
from cipherlearn.quantization.quantizers import UniformQuantizer

if TYPE_CHECKING:
    from cipherlearn.quantization.post_training import ONNXConverter


class Walk:
    """One pass over a graph, in topological order, with calibration data.

    Parameters
    ----------
    converter : ONNXConverter
        Decides how constants and operands are quantized.
    graph : Graph
        The float model.
    data : list of numpy.ndarray of float64
        Calibration data, one array an input.
    samples : dict of str to numpy.ndarray
        Every tensor for one row.
    encodings : set of str, default=()
        Inputs that hold zeros and ones only.
    plain : Graph, optional
        Tells what reads the inputs of the model, and so their grids. Default: ``graph``.
    side_by_side : mapping of str to tuple of str, default={}
        Nodes whose operands keep grids of their own -> the layers that say how many bits they have.

    Attributes
    ----------
    layers : dict
        Output tensor -> (input tensors, quantized operator).
    parameters : dict
        Constants as the operators hold them.
    """

    def __init__(
        self,
        converter: ONNXConverter,
        graph: Graph,
        data: list[np.ndarray],
        samples: Mapping[str, np.ndarray],
        encodings: Iterable[str] = (),
        plain: Graph | None = None,
        side_by_side: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.converter = converter
        self.graph = graph
        self._plain = graph if plain is None else plain
        self._side_by_side = side_by_side or {}
        self.layers: dict[str, tuple[tuple[str, ...], QuantizedOp]] = {}
        self.parameters: dict[str, Any] = {}
        self._shapes = {name: np.shape(value) for name, value in samples.items()}
        self._quantized: dict[str, QuantizedArray] = {}
        self._floats: dict[str, np.ndarray] = {}
        self._provenance = Provenance(graph.input_names)
        # Inputs, and what is one moved: quantized by the client.
        self._from_client = set(graph.input_names)
        self._floats.update(zip(graph.input_names, data, strict=True))
        for names in _joined_inputs(self._plain):
            together = np.concatenate([self._floats[name].reshape(-1) for name in names])
            for name in names:
                if name in encodings:
                    known = _bits(self._floats[name])
                else:
                    known = self._input_quantizer(name, together)
                self._quantized[name] = _from_client(self._floats[name], known)
        self._breakdown = Breakdown(self._floats, self._quantized)

    def _input_quantizer(self, name: str, together: np.ndarray) -> UniformQuantizer:
        """Of an input, for the range of all inputs that it is joined with."""
        values = self._floats[name]
        own = None
        if together.size == values.size:
            own = self.converter.feature_grids(name, self._plain, values)
        return self.converter.quantize_input(together).quantizer if own is None else own

    def quantizers(self, names: tuple[str, ...]) -> list[UniformQuantizer]:
        """Quantizers of inputs or outputs."""
        return [self._quantized[name].quantizer for name in names]

    def run(self) -> None:
        """Quantize all layers.

        Raises
        ------
        ModelError
            If a node cannot be quantized; the message names it.
        """
        for node in self.graph.nodes:
            self._visit(node)
        self._breakdown.report(self.graph.output_names)

    def _visit(self, node: Node) -> None:
        try:
            self._quantize(node)
        except CipherlearnError as error:
            if repr(node.name) in str(error):
                raise
            raise type(error)(f"node {node.name!r} ({node.op}): {error}") from error

    def _quantize(self, node: Node) -> None:
        outputs = [name for name in node.outputs if name]
        if len(outputs) != 1:
            raise UnsupportedAttributeError(
                f"{len(outputs)} outputs are used ({', '.join(outputs)}); only operators with one "
                "output can be quantized"
            )
        variable = tuple(name for name in node.inputs if name in self._quantized)
        if not variable:
            raise ModelError("its operands are constants: simplify the model first")
        op = self._make(node, variable)
        output = outputs[0]
        result = op.calibrate(*(self._calibration_values(name) for name in variable))
        if self.converter.calibrates_on_quantized_data and self.converter.needs_float_values:
            result = op.float_result(*(self._floats[name] for name in variable))
        operands = [self._quantized[name] for name in variable]
        self.converter.keep_grid(op, operands)
        self._breakdown.compute(output, variable, op)
        if isinstance(op, QuantizedMixingOp):
            shapes = [self._shapes[name] for name in variable]
            self.converter.choose_weights(op, operands, result)
            op.calibrate_accumulator(*operands, sample_shapes=shapes)
        self._quantized[output] = op(*operands)
        self._breakdown.compare(output, variable, op, self._quantized[output])
        self._floats[output] = result
        shape, constants = self._shapes[variable[0]], self.graph.constants
        self._provenance.record(node, op.can_fuse(), shape, constants)
        is_same = op.moves_elements() or self._quantized[output] is operands[0]
        if is_same and self._from_client.issuperset(variable):
            self._from_client.add(output)
        self.layers[output] = (variable, op)

    def _calibration_values(self, name: str) -> np.ndarray:
        if self.converter.calibrates_on_quantized_data:
            return np.asarray(observed_values(self._quantized[name]))
        return self._floats[name]

    def _make(self, node: Node, variable: tuple[str, ...]) -> QuantizedOp:
        kind = quantized_class(node.op)
        _check_clear_operands(node, self._quantized, self.graph.opset)
        converter = self.converter
        by_client = self._from_client.issuperset(variable)
        readers = self._side_by_side.get(node.name, (node.name,))
        own_bits = max(map(converter.input_bits_of, readers))
        n_bits = converter.n_bits_model_inputs if by_client else own_bits
        values = [np.asarray(self._quantized[name].values) for name in variable]
        options: dict[str, Any] = {
            "n_bits_output": converter.n_bits_model_outputs,
            "op_instance_name": node.name,
            "int_input_names": set(self._provenance.of(variable)),
            "constant_inputs": self._constants(node),
            "input_quant_opts": converter.options_for_inputs(n_bits, values),
            "opset": self.graph.opset,
            **node.attributes,
        }
        if issubclass(kind, QuantizedMixingOp):
            options["rounding_threshold_bits"] = converter.rounding_of(node.name)
        op = kind(**options)
        op.integer_operands = self._integer_operands(node)
        op.produces_graph_output = node.outputs[0] in self.graph.output_names
        if isinstance(op, QuantizedMixingOp):
            op.feeds_lookup = self._is_looked_up(node.outputs[0])
            op.follows_lookup = not by_client
            op.read_elsewhere = self._read_elsewhere(node)
            op.keeps_grids = node.name in self._side_by_side
            op.keeps_sums = converter.keeps_sums
            op.operand_bits_of = readers
        if not op.can_fuse() and not op.moves_elements():
            self._quantize_constants(op, node)
            self._quantize_operands(op, node, n_bits, by_client)
        converter.take_grid(op)
        return op

    def _quantize_operands(self, op: QuantizedOp, node: Node, n_bits: int, by_client: bool) -> None:
        joined: dict[str, QuantizedArray] = {}
        for position, name in enumerate(node.inputs):
            if name not in self._quantized:
                continue
            if not _has_own_scale(op, position):
                joined[name] = self._quantized[name]
                continue
            value = self._quantized[name]
            found = self.converter.operand_quantizer(value, name, n_bits, by_client)
            op.set_operand_quantizer(position, found)
            if found is not None and isinstance(op, QuantizedMixingOp):
                op.operand_bits_of = ()
        if joined and isinstance(op, QuantizedMixingOp):
            self.converter.check_joined(op, joined)

    def _integer_operands(self, node: Node) -> dict[int, np.dtype[Any]]:
        declared = {
            position: self.graph.dtypes.get(name)
            for position, name in enumerate(node.inputs)
            if name in self._quantized
        }
        return {
            i: dtype for i, dtype in declared.items() if dtype is not None and dtype.kind != "f"
        }

    def _read_elsewhere(self, node: Node) -> frozenset[int]:
        """Positions of operands that another operator quantizes to a grid of its own."""
        return frozenset(
            position
            for position, name in enumerate(node.inputs)
            if name in self._quantized
            and any(
                reader is not node and _has_grid(reader) for reader in self.graph.consumers(name)
            )
        )

    def _is_looked_up(self, tensor: str) -> bool:
        """Whether anything but outputs reads a tensor, if need be moved."""
        return any(
            ops.get(reader.op).kind is not ops.Kind.MOVEMENT
            or any(self._is_looked_up(name) for name in reader.outputs if name)
            for reader in self.graph.consumers(tensor)
        )

    def _constants(self, node: Node) -> dict[int | str, Any]:
        constants: dict[int | str, Any] = {}
        for position, name in enumerate(node.inputs):
            if name in self.graph.constants:
                value = self.graph.constants[name]
                constants[position] = value.astype(np.float64) if value.dtype.kind == "f" else value
                self.parameters.setdefault(name, value)
            elif not name:
                constants[position] = None
        return constants

    def _quantize_constants(self, op: QuantizedOp, node: Node) -> None:
        for position, value in op.constant_inputs.items():
            if value is not None and not np.isfinite(value).all():
                name = node.inputs[position]
                raise ModelError(f"the constant {name!r} holds values that are NaN or infinite")
        form = op.form if isinstance(op, QuantizedMixingOp) else None
        if form is not None and (form.keeps_grid or form.common_scale):
            return  # they share the scale of the others
        kept = ops.get(node.op).raw_inputs | (form.real_inputs if form else frozenset())
        for position, value in op.constant_inputs.items():
            name = node.inputs[position]
            if position not in kept and value is not None:
                op.constant_inputs[position] = self.converter.quantize_weights(
                    op, position, value, name
                )
                self.parameters[name] = op.constant_inputs[position]


def _joined_inputs(graph: Graph) -> list[list[str]]:
    """The inputs in groups: those that are added, or stand side by side, share one grid.

    The client quantizes them; on grids of their own, each of their elements would cost a look-up.
    """
    groups = {name: [name] for name in graph.input_names}
    behind = {name: name for name in graph.input_names}
    for node in graph.nodes:
        op = ops.get(node.op)
        sources = [behind[name] for name in node.inputs if name in behind]
        if op.kind is ops.Kind.MOVEMENT and sources:
            behind.update(dict.fromkeys(node.outputs, sources[0]))
        elif _is_joint(op) and len(set(sources)) > 1:
            union = list(dict.fromkeys(name for source in sources for name in groups[source]))
            groups.update(dict.fromkeys(union, union))
            behind.update(dict.fromkeys(node.outputs, sources[0]))
    return [names for name, names in groups.items() if names[0] == name]


def _is_joint(op: ops.Op) -> bool:
    return op.integer is not None and (op.integer.keeps_grid or op.integer.common_scale)


def _from_client(values: np.ndarray, known: UniformQuantizer) -> QuantizedArray:
    """An input as the client's integers: calibration goes on with what they stand for."""
    return QuantizedArray(
        known.n_bits, known.quant(values), False, options=known, stats=known, params=known
    )


def _bits(array: np.ndarray) -> UniformQuantizer:
    """Zeros and ones as they are."""
    reals = array.astype(np.float64)
    return QuantizedArray(1, reals, rmin=0.0, rmax=1.0, scale=1.0, zero_point=0).quantizer


def _has_grid(reader: Node) -> bool:
    form = ops.get(reader.op).integer
    return form is not None and not form.univariate and not form.common_scale


def _has_own_scale(op: QuantizedOp, position: int) -> bool:
    form = op.form if isinstance(op, QuantizedMixingOp) else None
    if form is None:
        return True
    joined = form.keeps_grid and len(op.int_input_names) > 1
    return not (joined or form.common_scale or position in form.prepare)


def check_outputs(graph: Graph) -> None:
    """Raise `ModelError` if an output does not depend on any input."""
    dependent = _dependent(graph)
    constant = [repr(name) for name in graph.output_names if name not in dependent]
    if constant:
        raise ModelError(
            f"constant output: {', '.join(constant)} depends on no input of the model. Remove it, "
            "there is nothing to encrypt"
        )


def _dependent(graph: Graph) -> set[str]:
    """The tensors that depend on an input."""
    names = set(graph.input_names)
    for node in graph.nodes:
        if ops.get(node.op).kind is not ops.Kind.CONSTANT and names.intersection(node.inputs):
            names.update(node.outputs)
    return names


def check_clear_operands(graph: Graph) -> None:
    """Check that shapes, axes and the like do not depend on encrypted values.

    Parameters
    ----------
    graph : Graph
        Without what the client computes in the clear.

    Raises
    ------
    EncryptedOperandError
        If one does; the message names the node and the operand.
    """
    dependent = _dependent(graph)
    for node in graph.nodes:
        op = ops.get(node.op)
        others = (name for i, name in enumerate(node.inputs) if i not in op.raw_inputs)
        if op.expand is not None and dependent.isdisjoint(others):
            continue  # a table of the model, read at an encrypted place
        try:
            _check_clear_operands(node, dependent, graph.opset)
        except EncryptedOperandError as error:
            raise EncryptedOperandError(f"node {node.name!r} ({node.op}): {error}") from error


def _check_clear_operands(node: Node, encrypted: Container[str], opset: int) -> None:
    op = ops.get(node.op)
    for position in sorted(op.raw_inputs):
        if position < len(node.inputs) and node.inputs[position] in encrypted:
            name = op.signature(opset).operand(position).name
            raise EncryptedOperandError(
                f"the operand {name!r} ({node.inputs[position]}) depends on an input of the "
                "model; it must be a constant"
            )


def check_rows(graph: Graph, data: list[np.ndarray]) -> None:
    """Check that the float model gives a result for each row, and gives it for each row alone.

    Raises
    ------
    ModelError
        If the rows of an output are not those of the inputs, or depend on each other.
    """
    rows = data[0].shape[0]
    together = execute(graph, *data)
    first = execute(graph, *(array[:1] for array in data))
    last = execute(graph, *(array[-1:] for array in data))
    for name, batch, row, other in zip(graph.output_names, together, first, last, strict=True):
        if not np.ndim(row) or row.shape[0] != 1 or batch.shape != (rows, *row.shape[1:]):
            raise ModelError(
                f"the output {name!r} has shape {batch.shape} for {rows} rows: the first axis must "
                "be that of the rows. Do not transpose or flatten the batch axis away"
            )
        # Sums in another order may move one row across a step; not two.
        if not _is_close(batch[:1], row) and not _is_close(batch[-1:], other):
            raise ModelError(
                f"the output {name!r} of a row depends on the other rows of its batch: encrypted "
                "rows are computed one by one, so the model must treat every row alike"
            )
        missing = int(np.count_nonzero(~np.isfinite(np.asarray(batch, dtype=np.float64))))
        if missing:
            warn(
                f"the float model's output {name!r} is NaN or infinite for {missing} of "
                f"{batch.size} calibration values; no encrypted result can stand for these",
                CalibrationWarning,
            )


def _is_close(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.isclose(left, right, rtol=1e-3, atol=1e-5, equal_nan=True).all())
