"""Looking into a quantized module: every tensor, in float and as integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cipherlearn.circuit import Builder, IntValue, Node, width_of
from cipherlearn.circuit.ir import Assume, Lookup
from cipherlearn.errors import (
    CircuitError,
    InvalidParameterError,
    InvalidShapeError,
    ModelError,
    NotCalibratedError,
)
from cipherlearn.onnx import Graph, intermediate_values
from cipherlearn.quantization.calibration import as_array, check_real_arrays
from cipherlearn.quantization.client_side import tail_inputs
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.quantized_array import QuantizedArray

if TYPE_CHECKING:
    from cipherlearn.quantization.quantized_module import QuantizedModule

#: ``(integers of the inputs, builder) -> all tensors``, of arrays or of values of a circuit.
Compute = Callable[..., Mapping[str, QuantizedArray]]


@dataclass(frozen=True, eq=False)
class HeldIntegers:
    """How a tensor is held as integers: ``real = scale * (integer - zero_point)``.

    Parameters
    ----------
    scale, zero_point : float or numpy.ndarray
        Arrays broadcast against the tensor (one scale a channel).
    range : tuple of int
        Smallest and largest integer that is provided for.
    is_proved : bool
        Whether no input leads out of `range`; else it was observed in calibration.
    lsbs_to_remove : int
        Bits that rounding takes off before look-ups read the integers.
    """

    scale: Any
    zero_point: Any
    range: tuple[int, int]
    is_proved: bool
    lsbs_to_remove: int = 0

    @property
    def bitwidth(self) -> int:
        """Bits that hold every integer of `range`."""
        return width_of(*self.range)

    @property
    def real_range(self) -> tuple[float, float]:
        """What the two ends of `range` stand for, over all channels."""
        scale, zero = np.asarray(self.scale, np.float64), np.asarray(self.zero_point, np.float64)
        low, high = (scale * (end - zero) for end in self.range)
        return float(min(low.min(), high.min())), float(max(low.max(), high.max()))


@dataclass(frozen=True, eq=False)
class TracedTensor:
    """One tensor of a model, on given rows.

    Parameters
    ----------
    name : str
        The tensor.
    layer : str
        Name of the node that computes it; that of the tensor for an input.
    operator : str
        Operator of that node; ``"input"`` for an input.
    float_values : numpy.ndarray
        What the float model computes.
    quantized : numpy.ndarray
        The real values that the quantized model has in the same place.
    integers : numpy.ndarray or None
        The integers that stand for these; None where a value exists inside of a table only.
    held : HeldIntegers or None
        How the integers are held; None if there are none, or if no circuit can be built.
    on_client : bool
        Whether the client computes it in the clear, before encryption or after decryption.
    """

    name: str
    layer: str
    operator: str
    float_values: np.ndarray
    quantized: np.ndarray
    integers: np.ndarray | None
    held: HeldIntegers | None
    on_client: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape for one row."""
        return self.quantized.shape[1:]

    @property
    def bitwidth(self) -> int | None:
        """Bits of the integers (of those observed, if no circuit can be built)."""
        if self.held is not None:
            return self.held.bitwidth
        return None if self.observed_range is None else width_of(*self.observed_range)

    @property
    def observed_range(self) -> tuple[int, int] | None:
        """Smallest and largest of the integers."""
        if self.integers is None or not self.integers.size:
            return None
        return int(self.integers.min()), int(self.integers.max())

    @property
    def float_range(self) -> tuple[float, float]:
        """Smallest and largest of the float values that are numbers."""
        finite = self.float_values[np.isfinite(self.float_values)]
        return (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)

    @property
    def largest_error(self) -> float:
        """Largest distance of a quantized value from the float one (0 without values)."""
        errors = self._errors()
        return float(errors.max()) if errors.size else 0.0

    @property
    def mean_error(self) -> float:
        """Mean distance of the quantized values from the float ones."""
        errors = self._errors()
        return float(errors.mean()) if errors.size else 0.0

    def _errors(self) -> np.ndarray:
        errors = np.abs(self.quantized - self.float_values)
        return errors[np.isfinite(errors)]


@dataclass(frozen=True, eq=False)
class Trace:
    """Results of `QuantizedModule.trace`; prints as a table.

    Parameters
    ----------
    tensors : tuple of TracedTensor
        Inputs first, then what the layers compute, in their order.
    """

    tensors: tuple[TracedTensor, ...]

    def __getitem__(self, name: str) -> TracedTensor:
        """A tensor by its name, or by the name of the node that computes it."""
        for known in self.tensors:
            if known.name == name:
                return known
        computed = [known for known in self.tensors if known.layer == name]
        if len(computed) == 1:
            return computed[0]
        if computed:
            listed = ", ".join(repr(known.name) for known in computed)
            raise InvalidParameterError(f"the node {name!r} computes {listed}: name one of them")
        names = ", ".join(known.name for known in self.tensors)
        raise InvalidParameterError(f"no tensor or node is named {name!r}; the tensors are {names}")

    def __iter__(self) -> Iterator[TracedTensor]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __str__(self) -> str:
        return _table(_HEAD, [_line(known) for known in self.tensors])


def trace_module(module: QuantizedModule, compute: Compute, *x: Any) -> Trace:
    """Every tensor of a module on given rows: see `QuantizedModule.trace`.

    Parameters
    ----------
    module : QuantizedModule
    compute : callable
        Computes all tensors from quantized inputs.
    *x : numpy.ndarray
        Real rows, one array an input.
    """
    check_has_layers(module)
    given, encrypted = _checked_inputs(module, x)
    quantizers = zip(module.input_quantizers, encrypted, strict=True)
    values = compute(tuple(quantizer.quant(array) for quantizer, array in quantizers))
    shown = integer_tensors(module, values)
    held = held_integers(module, compute)
    reals = {
        name: _reals_of(module, name, shown[name]) if name in shown else value.values
        for name, value in values.items()
    }
    if module.tail is not None:
        reals = {**_after_decryption(module.tail, reals), **reals}
    reals = {**given, **reals}
    floats = _float_values(module, given, dict(zip(values, encrypted, strict=False)))
    return Trace(
        tuple(
            TracedTensor(
                name,
                layer,
                operator,
                np.asarray(floats[name], dtype=np.float64),
                np.asarray(reals[name], dtype=np.float64),
                np.asarray(shown[name].qvalues) if name in shown else None,
                held.get(name),
                on_client=name not in values,
            )
            for name, layer, operator in _places(module)
        )
    )


def check_has_layers(module: QuantizedModule) -> None:
    """Raise `ModelError` unless the module has layers to look into."""
    if not module.quant_layers_dict:
        raise ModelError(
            "this module has no layers to look into (a loaded one has its circuit only): use the "
            "module that was saved, or print(module.circuit)"
        )


def integer_tensors(
    module: QuantizedModule, values: Mapping[str, QuantizedArray]
) -> dict[str, QuantizedArray]:
    """The tensors that exist as integers, as the first layer that reads them holds them.

    All others are computed on reals inside of a table, together with their neighbours.

    Parameters
    ----------
    module : QuantizedModule
    values : mapping of str to QuantizedArray
        All tensors: arrays, or values of a circuit.
    """
    kept = (*module.ordered_module_input_names, *module.ordered_module_output_names)
    found = {name: values[name] for name in values if values[name].holds_integers or name in kept}
    for inputs, op in module.quant_layers_dict.values():
        if op.can_fuse() or op.moves_elements():
            continue
        prepared = op.form.prepare if isinstance(op, QuantizedMixingOp) and op.form else {}
        operands = op.read_operands(*(values[name] for name in inputs))
        positions = [i for i in range(len(operands)) if i not in op.constant_inputs]
        for name, position in zip(inputs, positions, strict=False):
            # The integers of a divisor stand for its reciprocal.
            if position not in prepared and isinstance(operands[position], QuantizedArray):
                found.setdefault(name, operands[position])
    return found


def held_integers(module: QuantizedModule, compute: Compute) -> dict[str, HeldIntegers]:
    """How the tensors that exist as integers are held; empty if no circuit can be built.

    Parameters
    ----------
    module : QuantizedModule
    compute : callable
        Computes all tensors from quantized inputs.
    """
    builder = Builder()
    names = module.ordered_module_input_names
    inputs = zip(names, module.input_quantizers, module.input_shapes, strict=True)
    try:
        sources = [builder.input(name, shape, *q.integer_limits) for name, q, shape in inputs]
        tensors = integer_tensors(module, compute(sources, builder))
        integers = {name: array.qvalues for name, array in tensors.items()}
    except CircuitError:
        # A look-up is too wide: that is when one wants to look into the module.
        return {}
    nodes = list(builder)
    return {
        name: HeldIntegers(
            tensors[name].quantizer.scale,
            tensors[name].quantizer.zero_point,
            *_limits(value, nodes),
            _lsbs_to_remove(module, name),
        )
        for name, value in integers.items()
    }


def ranges_of_layers(module: QuantizedModule, compute: Compute) -> dict[str, dict[str, Any]]:
    """Range and width of the integers of each layer, where no circuit can be built.

    Each layer is looked at on its own, for operands that take any integer of their width.

    Parameters
    ----------
    module : QuantizedModule
    compute : callable
        Computes all tensors from quantized inputs.

    Returns
    -------
    dict
        As `CircuitModel.bitwidth_and_range_report`.
    """
    values = compute(tuple(np.zeros(shape, dtype=np.int64) for shape in module.input_shapes))
    shown, layers = integer_tensors(module, values), module.quant_layers_dict
    ranges: dict[str, tuple[int, int]] = {}
    for name in (known for known in layers if known in shown):
        inputs, op = layers[name]
        if not shown[name].quantizer.no_clipping:
            ranges[name] = shown[name].quantizer.integer_limits
        elif isinstance(op, QuantizedMixingOp):
            ranges[name] = _provided_range(op, [values[source] for source in inputs])
        else:
            ranges[name] = ranges[inputs[0]]  # moved
    return {
        layers[name][1].op_instance_name: {"range": limits, "bitwidth": width_of(*limits)}
        for name, limits in ranges.items()
    }


def _provided_range(op: QuantizedMixingOp, operands: list[QuantizedArray]) -> tuple[int, int]:
    found = op.proved_integers(operands, [np.shape(one.values) for one in operands])
    if op.plan is None or found is None:
        raise NotCalibratedError(f"{op.op_instance_name} has no accumulator whose range is known")
    interval = op.plan.place(found.integers).interval
    return interval.min, interval.max


def _checked_inputs(
    module: QuantizedModule, x: Sequence[Any]
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """The inputs of the model by name, and what is quantized and encrypted of them."""
    if module.head is None:
        encrypted = check_real_arrays(module.ordered_module_input_names, x)
        given = dict(zip(module.ordered_module_input_names, encrypted, strict=True))
    else:
        encrypted = [np.asarray(a, np.float64) for a in module.pre_processing(*x)]
        given = dict(zip(module.head.input_names, map(as_array, x), strict=True))
    names = module.ordered_module_input_names
    for name, array, shape in zip(names, encrypted, module.input_shapes, strict=True):
        if array.shape[1:] != shape[1:]:
            raise InvalidShapeError(
                f"the input {name!r} has shape {array.shape}; it must be (rows, "
                f"{', '.join(map(str, shape[1:]))})"
            )
    return given, encrypted


def _places(module: QuantizedModule) -> Iterator[tuple[str, str, str]]:
    """Every tensor with its node and operator, as the model has them."""
    graph = None if module.onnx_model is None else Graph.from_model(module.onnx_model)
    head = () if module.head is None else module.head.input_names
    for name in dict.fromkeys([*head, *module.ordered_module_input_names]):
        yield name, name, "input"
    for name, (_, op) in module.quant_layers_dict.items():
        # Some operators are written with several simpler ones; the last has the model's name.
        known = None if graph is None else graph.producer(name)
        yield (
            name,
            known.name if known else op.op_instance_name,
            known.op if known else op.op_type(),
        )
    for node in () if module.tail is None else module.tail.nodes:
        for name in filter(None, node.outputs):
            yield name, node.name, node.op


def _float_values(
    module: QuantizedModule, given: Mapping[str, np.ndarray], encrypted: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """All tensors in float: those of the model, and those that quantization put in between."""
    values: dict[str, np.ndarray] = {**given, **encrypted}
    if module.onnx_model is not None:
        values.update(intermediate_values(module.onnx_model, *given.values()))
    for name, (inputs, op) in module.quant_layers_dict.items():
        if name not in values:
            values[name] = op.float_result(*(values[source] for source in inputs))
    return values if module.tail is None else {**_after_decryption(module.tail, values), **values}


def _after_decryption(tail: Graph, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the client computes at the end."""
    decrypted = [values[name] for name in tail.input_names]
    return intermediate_values(tail, *tail_inputs(tail, decrypted))


def _reals_of(module: QuantizedModule, name: str, held: QuantizedArray) -> Any:
    """What integers stand for: rounded where look-ups read them, exact in a result."""
    if name in module.ordered_module_output_names or not held.holds_integers:
        return held.quantizer.dequant(held.qvalues)
    return held.values


def _limits(value: Any, nodes: Sequence[Node]) -> tuple[tuple[int, int], bool]:
    """Range of integers, and whether it is proved."""
    if not isinstance(value, IntValue):
        array = np.asarray(value)
        return (int(array.min()), int(array.max())), True
    interval = value.interval
    left, proved = [value.position], True
    while left and proved:
        node = nodes[left.pop()]
        proved = not isinstance(node.primitive, Assume) or node.primitive.encoded
        # A table holds what it holds, wherever it is read.
        left.extend(() if isinstance(node.primitive, Lookup) else node.inputs)
    return (interval.min, interval.max), proved


def _lsbs_to_remove(module: QuantizedModule, name: str) -> int:
    op = module.quant_layers_dict[name][1] if name in module.quant_layers_dict else None
    return op.lsbs_to_remove if isinstance(op, QuantizedMixingOp) and not op.can_fuse() else 0


_HEAD = (
    "tensor",
    "operator",
    "layer",
    "shape",
    "float",
    "integers",
    "range",
    "bits",
    "largest error",
    "mean error",
)
_TEXT_COLUMNS = 3


def _line(known: TracedTensor) -> tuple[str, ...]:
    held, observed = known.held, known.observed_range
    kept, bits = "-", f"{known.bitwidth or '-'}"
    if known.integers is None:
        bits = "on the client" if known.on_client else "in a table"
    if held is not None:
        kept = f"{held.range[0]} to {held.range[1]}" + ("" if held.is_proved else ", observed")
        bits += f", {held.bitwidth - held.lsbs_to_remove} read" if held.lsbs_to_remove else ""
    return (
        known.name,
        known.operator,
        known.layer,
        "x".join(map(str, known.shape)) or "1",
        "{:.4g} to {:.4g}".format(*known.float_range) if known.float_values.size else "-",
        "-" if observed is None else f"{observed[0]} to {observed[1]}",
        kept,
        bits,
        f"{known.largest_error:.3g}",
        f"{known.mean_error:.3g}",
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < _TEXT_COLUMNS else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *lines)
    )
