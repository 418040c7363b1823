"""Distillation: integer weights that are trained to give the float model's results.

No labels are needed: the float model tells what any input should give. Roundings and look-ups are
inside of the trained function, so the weights of all layers make up for them together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from cipherlearn.circuit import count_lookups, ir, simulate
from cipherlearn.engines import CompileOptions
from cipherlearn.engines.progress import bar
from cipherlearn.errors import InvalidParameterError, InvalidTypeError
from cipherlearn.onnx import Graph, execute
from cipherlearn.quantization.accumulators import expected_range
from cipherlearn.quantization.calibration import check_calibration_data
from cipherlearn.quantization.lookup_aware import PostTrainingLookupQuantization
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.post_training import ONNXConverter
from cipherlearn.quantization.prepare import Parts
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.replay import LearnedLayer, Replay, layout_of
from cipherlearn.quantization.scoring import agreement_score, is_classifier
from cipherlearn.torch._descent import Descent
from cipherlearn.torch._differentiable import DifferentiableCircuit, rounded

#: Training rows at once.
BATCH = 256
#: Rows made of calibration rows, as a multiple of them.
POOL = 8
#: Class scores are compared at this temperature.
TEMPERATURE = 2.0
#: What is tried, the best being kept: the learning rate, as a share of a layer's largest integer,
#: and the largest share of features that a made row takes from another row.
SETTINGS = ((2e-3, 0.1), (1e-2, 0.0), (1e-2, 0.1))
#: Standard errors by which a loss on held-out rows must be lower: few rows tell little.
CLEARLY = 2.0
#: Steps between two looks at the ranges of accumulators.
PROJECT_EVERY = 20
#: Share of the rows that judge.
HELD_OUT = 0.2
#: Fewest rows on each side of the split: fewer cannot tell which result is better.
LEAST_ROWS = 10
#: Simulated executions that a module is judged by.
EXECUTIONS = 4


def distill(
    converter: ONNXConverter,
    *calibration_data: Any,
    held_out: float = HELD_OUT,
    steps: int = 800,
    random_state: int = 0,
    keep_onnx: bool = True,
    options: CompileOptions | None = None,
) -> QuantizedModule:
    """Quantize, then train the integer weights end to end to give the float model's results.

    Training on a part of the rows is judged on the others, with the errors of encrypted execution
    simulated. Where it does not win there, the analytic result is returned; where it does, weights
    trained on all rows are. Widths and prices stay those of the analytic result.

    Parameters
    ----------
    converter : PostTrainingLookupQuantization
        Holds the float model and the bits.
    *calibration_data : numpy.ndarray of float, each of shape (rows, *shape)
        One array an input of the model; no labels.
    held_out : float, default=0.2
        Share of the rows that judge.
    steps : int, default=800
        Training steps.
    random_state : int, default=0
        Seed of the split, the order of the rows, and the simulated errors.
    keep_onnx : bool, default=True
        Whether the module keeps the float model.
    options : CompileOptions, optional
        Error probability of the execution that is simulated.

    Returns
    -------
    QuantizedModule

    Raises
    ------
    InvalidTypeError
        If ``converter`` is of another kind: its weights are not chosen for look-ups.
    InvalidParameterError
        If there are too few rows for the split, or an option is out of what is accepted.
    """
    if not isinstance(converter, PostTrainingLookupQuantization):
        raise InvalidTypeError(
            "distill takes a PostTrainingLookupQuantization, whose weights are chosen for "
            f"look-ups, not {type(converter).__name__}"
        )
    graph = Graph.from_model(converter.numpy_model.onnx_model)
    data = check_calibration_data(graph, calibration_data)
    training = Training(steps, random_state, options or CompileOptions.of())
    check_split(len(data[0]), held_out)
    fit, judge = _split(len(data[0]), held_out, random_state)
    setting = _best_setting(converter, data, fit, judge, training)
    analytic = converter.quantize_module(*data, keep_onnx=keep_onnx)
    if setting is None:
        return analytic
    return _trained(converter, analytic, data, setting, training, keep_onnx)


def check_split(rows: int, held_out: float = HELD_OUT) -> None:
    """Raise `InvalidParameterError` if there are too few rows to train on some and judge by others.

    Parameters
    ----------
    rows : int
    held_out : float, default=0.2
    """
    if not 0.0 < held_out < 1.0:
        raise InvalidParameterError(f"held_out must lie between 0 and 1, not {held_out}")
    count = round(rows * held_out)
    if min(count, rows - count) < LEAST_ROWS:
        raise InvalidParameterError(
            f"{rows} calibration rows, of which a share of {held_out} is held out, are too few to "
            f"distill: both parts need {LEAST_ROWS} rows. Give more rows"
        )


@dataclass(frozen=True)
class Training:
    """How long is trained, and under which errors.

    Parameters
    ----------
    steps, random_state : int
    options : CompileOptions

    Raises
    ------
    InvalidParameterError
        If there is no step.
    """

    steps: int
    random_state: int
    options: CompileOptions

    def __post_init__(self) -> None:
        given: Any = self.steps
        if isinstance(given, bool) or not isinstance(given, Integral) or given < 1:
            raise InvalidParameterError(f"steps must be an integer from 1 on, not {given!r}")

    def p_error(self, module: QuantizedModule) -> float:
        """Error probability of one look-up."""
        return self.options.p_error_of(count_lookups(module.circuit).total)


def _split(rows: int, held_out: float, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and rows that judge."""
    order = np.random.default_rng(random_state).permutation(rows)
    count = round(rows * held_out)
    return np.sort(order[count:]), np.sort(order[:count])


def _best_setting(
    converter: PostTrainingLookupQuantization,
    data: list[np.ndarray],
    fit: np.ndarray,
    judge: np.ndarray,
    training: Training,
) -> tuple[float, float] | None:
    """What wins on rows held out; None where nothing clearly beats the analytic result."""
    inside, outside = [array[fit] for array in data], [array[judge] for array in data]
    analytic = converter.quantize_module(*inside)
    teacher = Teacher.of(converter, outside)
    best = None
    least, agreed = _judged(analytic, outside, teacher, training)
    for setting in SETTINGS:
        module = _trained(converter, analytic, inside, setting, training)
        losses, agreement = _judged(module, outside, teacher, training)
        gain = least - losses
        is_clear = gain.mean() > CLEARLY * gain.std() / math.sqrt(len(gain))
        if is_clear and agreement >= agreed:
            best, least, agreed = setting, losses, agreement
    return best


@dataclass(frozen=True, eq=False)
class Teacher:
    """What the float model gives before the client's part of it.

    Parameters
    ----------
    parts : Parts
    targets : list of numpy.ndarray
        One array an output, for the rows of ``parts.data``.
    """

    parts: Parts
    targets: list[np.ndarray]

    @classmethod
    def of(cls, converter: PostTrainingLookupQuantization, data: list[np.ndarray]) -> Teacher:
        """The results for given rows."""
        parts = converter.parts(Graph.from_model(converter.numpy_model.onnx_model), data)
        return cls(parts, _results(parts, parts.data))

    def enlarged(
        self, swapped: float, generator: np.random.Generator
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The rows, rows with some features of other rows, and the results for all of them."""
        rows = len(self.parts.data[0])
        first, second = generator.integers(0, rows, (2, POOL * rows))
        share = generator.uniform(0.0, swapped, POOL * rows)
        made = []
        for array in self.parts.data:
            drawn = generator.random((POOL * rows, *array.shape[1:]))
            limit = share.reshape(-1, *(1,) * (array.ndim - 1))
            made.append(np.where(drawn < limit, array[second], array[first]))
        targets = _results(self.parts, made)
        return (
            [np.concatenate(p) for p in zip(self.parts.data, made, strict=True)],
            [np.concatenate(p) for p in zip(self.targets, targets, strict=True)],
        )


def _results(parts: Parts, data: list[np.ndarray]) -> list[np.ndarray]:
    results = execute(parts.body, *data)
    return parts.totals([np.asarray(result, np.float64) for result in results])


def _judged(
    module: QuantizedModule, data: list[np.ndarray], teacher: Teacher, training: Training
) -> tuple[np.ndarray, float]:
    """Loss of every row, and agreement, under simulated errors."""
    losses, agreements = [], []
    for execution in range(EXECUTIONS):
        found = simulate(
            module.circuit,
            *module.samples(*data),
            p_error=training.p_error(module),
            random_state=training.random_state + execution,
        )
        places = zip(module.output_quantizers, found.outputs, strict=True)
        parts = teacher.parts.totals([np.asarray(q.dequant(v[:, 0])) for q, v in places])
        for part, target in zip(parts, teacher.targets, strict=True):
            output = part.reshape(target.shape)
            losses.append(_losses(torch.tensor(output), torch.tensor(target)).numpy())
            agreements.append(agreement_score(output, target))
    return np.mean(losses, axis=0), float(np.mean(agreements))


def _losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """How far each row is from the float model's: as scores of classes, or as values."""
    if not is_classifier(targets.numpy()):
        spread = torch.var(targets, correction=0).clamp_min(torch.finfo(targets.dtype).eps)
        return (outputs - targets).square().reshape(len(targets), -1).mean(1) / spread
    wanted = functional.log_softmax(targets / TEMPERATURE, -1)
    found = functional.log_softmax(outputs / TEMPERATURE, -1)
    divergence = functional.kl_div(found, wanted, log_target=True, reduction="none").sum(-1)
    return divergence.reshape(len(targets), -1).mean(1) * TEMPERATURE**2


def _trained(
    converter: PostTrainingLookupQuantization,
    analytic: QuantizedModule,
    data: list[np.ndarray],
    setting: tuple[float, float],
    training: Training,
    keep_onnx: bool = False,
) -> QuantizedModule:
    """The module with weights trained on given rows."""
    student = Student(analytic, Teacher.of(converter, data), training)
    if student.layers:
        student.train(*setting)
    learned = Replay(converter, student.learned())
    return learned.quantize_module(*data, keep_onnx=keep_onnx)


@contextmanager
def one_thread() -> Iterator[None]:
    """Train in one thread: sums come in one order on every machine, and small steps go faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(eq=False)
class TrainedLayer:
    """The weights of a layer in training.

    Parameters
    ----------
    op : QuantizedMixingOp
    product : int
        Position in the circuit of the product with the weights.
    weights : torch.Tensor of shape (groups, channels, inputs)
        In steps of the analytic weights.
    bias : torch.Tensor
        One a channel, in steps of the accumulator; broadcasts against the product.
    largest, norm : float
        Of the analytic weights: of one weight, and of one channel.
    """

    op: QuantizedMixingOp
    product: int
    weights: torch.Tensor
    bias: torch.Tensor
    largest: float
    norm: float

    def matrix(self) -> np.ndarray:
        """The weights as an array of one row a channel."""
        weights = self.weights.detach().double().numpy()
        return np.asarray(weights.reshape(-1, weights.shape[-1]))

    @classmethod
    def of(
        cls, op: QuantizedMixingOp, circuit: ir.Circuit, dtype: torch.dtype
    ) -> TrainedLayer | None:
        """The layer, if its weights are found in the circuit as they were chosen."""
        matrix = layout_of(op).matrix(np.asarray(op.constant_inputs[1].qvalues), op.attrs)
        for position, node in enumerate(circuit.nodes):
            if node.label != op.op_instance_name or len(node.inputs) != 2:
                continue
            held = circuit.nodes[node.inputs[1]].primitive
            if not isinstance(held, ir.Constant) or held.values.size != matrix.size:
                continue
            arranged = _arranged(node.primitive, torch.tensor(matrix), held.values.shape)
            if arranged is not None and bool((arranged.numpy() == held.values).all()):
                axis = 1 if isinstance(node.primitive, ir.Convolve) else len(node.shape) - 1
                shape = [1] * (len(node.shape) + 1)
                shape[axis + 1] = matrix.shape[0] * matrix.shape[1]
                weights = torch.tensor(matrix, dtype=dtype, requires_grad=True)
                bias = torch.zeros(shape, dtype=dtype, requires_grad=True)
                largest = max(1.0, float(np.abs(matrix).max()))
                norm = max(1.0, float(np.linalg.norm(matrix, axis=-1).max()))
                return cls(op, position, weights, bias, largest, norm)
        return None


def _arranged(
    primitive: ir.Primitive, matrix: torch.Tensor, shape: tuple[int, ...]
) -> torch.Tensor | None:
    """A matrix (groups, channels, inputs) as a primitive reads it; None if it reads no weights."""
    if isinstance(primitive, ir.MatMul) and len(matrix) == 1:
        return matrix[0].T.reshape(shape)
    return matrix.reshape(shape) if isinstance(primitive, ir.Convolve) else None


class Student:
    """A quantized module in training.

    Parameters
    ----------
    module : QuantizedModule
    teacher : Teacher
    training : Training
    """

    def __init__(self, module: QuantizedModule, teacher: Teacher, training: Training) -> None:
        self.module = module
        self.function = DifferentiableCircuit(
            module.circuit, training.p_error(module), training.random_state
        )
        self.training = training
        self.teacher = teacher
        fitted = [
            op
            for _, op in module.quant_layers_dict.values()
            if isinstance(op, QuantizedMixingOp) and op.fitted is not None
        ]
        found = (TrainedLayer.of(op, module.circuit, self.function.dtype) for op in fitted)
        self.layers = [layer for layer in found if layer is not None]
        self._analytic, self._known = self._means(), self._extents()

    @one_thread()
    def train(self, rate: float, swapped: float) -> None:
        """Train; the learning rate falls to zero."""
        generator = np.random.default_rng(self.training.random_state)
        steps = self.training.steps
        rows, targets = self.teacher.enlarged(swapped, generator)
        inputs = self._integers(rows)
        wanted = [torch.tensor(target, dtype=self.function.dtype) for target in targets]
        groups = []
        for layer, products in zip(self.layers, self._products(), strict=True):
            # The typical size of the layer's accumulators.
            accumulated = max(1.0, float(products.std(0).median()))
            groups.append((layer.weights, rate * layer.largest))
            groups.append((layer.bias, rate * accumulated))
        optimizer = Descent(groups, steps)
        for step in bar(range(steps), "distillation"):
            chosen = torch.tensor(generator.integers(0, len(rows[0]), BATCH))
            outputs = self._outputs([array[chosen] for array in inputs], wanted)
            pairs = zip(outputs, wanted, strict=True)
            loss = torch.stack(
                [_losses(output, goal[chosen]).mean() for output, goal in pairs]
            ).sum()
            torch.autograd.backward(loss)
            optimizer.step()
            if step % PROJECT_EVERY == 0 or step == steps - 1:
                self._project()

    def _project(self) -> None:
        """Shrink channels whose accumulators or weights outgrew the analytic ones."""
        for layer, extents, known in zip(self.layers, self._extents(), self._known, strict=True):
            matrix = layer.matrix()
            with torch.no_grad():
                size = np.maximum(extents / known, np.linalg.norm(matrix, axis=1) / layer.norm)
                factors = torch.tensor(1.0 / np.maximum(size, 1.0), dtype=layer.weights.dtype)
                layer.weights *= factors.reshape(*layer.weights.shape[:2], 1)
                layer.weights.clamp_(-layer.largest, layer.largest)

    def learned(self) -> dict[str, LearnedLayer]:
        """What was learned, by the names of layers."""
        result = {}
        for layer, before, after in zip(self.layers, self._analytic, self._means(), strict=True):
            weights = layer.weights.detach().numpy().astype(np.float64)
            known = LearnedLayer(weights, np.zeros(before.size), layer.op)
            shift = known.scale * (after - before)
            result[layer.op.op_instance_name] = LearnedLayer(weights, shift, layer.op)
        return result

    def _integers(self, rows: list[np.ndarray]) -> list[torch.Tensor]:
        pairs = zip(self.module.input_quantizers, rows, strict=True)
        return [torch.tensor(q.quant(x)[:, None], dtype=self.function.dtype) for q, x in pairs]

    def _values(self, inputs: list[torch.Tensor], noisy: bool) -> list[torch.Tensor]:
        constants, biases = {}, {}
        for layer in self.layers:
            node = self.module.circuit.nodes[layer.product]
            shape = self.module.circuit.nodes[node.inputs[1]].shape
            arranged = _arranged(node.primitive, rounded(layer.weights), shape)
            if arranged is not None:
                constants[node.inputs[1]] = arranged[None]
            biases[layer.product] = layer.bias
        return self.function(inputs, constants, biases, noisy)

    def _outputs(
        self, inputs: list[torch.Tensor], targets: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Real outputs under the noise of encrypted execution."""
        values = self._values(inputs, noisy=True)
        places = zip(self.module.circuit.outputs, self.module.output_quantizers, strict=True)
        results = []
        for position, quantizer in places:
            scale, zero = (
                torch.tensor(np.asarray(part, np.float64), dtype=self.function.dtype)
                for part in (quantizer.scale, quantizer.zero_point)
            )
            results.append(scale * (values[position][:, 0] - zero))
        totals = zip(self.teacher.parts.totals(results), targets, strict=True)
        return [total.reshape(-1, *target.shape[1:]) for total, target in totals]

    def _products(self) -> list[torch.Tensor]:
        """Accumulators of all layers on calibration rows, one column a channel."""
        with torch.no_grad():
            values = self._values(self._integers(self.teacher.parts.data), noisy=False)
        products = []
        for layer in self.layers:
            axis = int(np.argmax(layer.bias.shape)) if layer.bias.numel() > 1 else -1
            products.append(values[layer.product].movedim(axis, -1).reshape(-1, layer.bias.numel()))
        return products

    def _extents(self) -> list[np.ndarray]:
        """How far the accumulators of each channel are expected to reach."""
        ranges = (expected_range(p.double().numpy(), (0,)) for p in self._products())
        return [np.maximum((hi - lo)[0], 1.0) for lo, hi in ranges]

    def _means(self) -> list[np.ndarray]:
        return [np.asarray(p.double().mean(0).numpy()) for p in self._products()]
