"""A network of a few linear layers that trains on the integers that it will be encrypted with."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from cipherlearn.circuit import Builder
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    NotCalibratedError,
)
from cipherlearn.onnx import Graph, Node, TensorInfo
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
    quantizer_of_results,
)
from cipherlearn.torch._integer_grids import IntegerGrid, Levels
from cipherlearn.torch._integer_layers import IntegerLinear, LookupLinear
from cipherlearn.torch._sparse_parameters import (
    as_module,
    check_count,
    check_pruned_share,
    hidden_width,
    precision_of,
)

#: Names of the input and of the result.
ROWS, SCORES = "rows", "scores"

#: Of operators of ONNX that the client computes.
_OPSET = 18


class SparseQuantNeuralNetwork(nn.Module):
    """Linear layers with a look-up for each hidden neuron, trained as they are encrypted.

    Inputs, weights and activations are integers in training; sums are rounded to the bits that
    look-ups read, with the noise that approximate rounding has; and sums fit ``n_accum_bits`` for
    any input at all, because weights are limited (many become 0). Encrypted results are those of
    the trained network, up to this noise.

    Parameters
    ----------
    input_dim : int
        Number of features.
    n_layers : int
        Number of linear layers; all but the last are followed by look-ups.
    n_outputs : int
    n_hidden_neurons_multiplier : float, default=4
        Neurons of a hidden layer for each feature.
    n_w_bits, n_a_bits : int, default=4
        Bits of weights, 2 to 8, and of inputs and activations, 1 to 8.
    n_accum_bits : int, default=16
        Bits of sums as signed integers, at most 16: no input leads to more.
    n_prune_neurons_percentage : float, default=0.0
        Share of hidden neurons that are left out, from 0 to less than 1: see `pruned`.
    activation_function : type, module or callable, default=torch.nn.ReLU
        Element-wise; any costs one look-up a neuron.
    quant_narrow : bool, default=False
        Whether weights leave out their smallest integer, and are symmetric.
    quant_signed : bool, default=True
        Whether integers of inputs and activations count from ``-2 ** (n_a_bits - 1)``, or from 0.
    power_of_two_scaling : bool, default=False
        Whether scales of weights and activations are powers of two. Less accurate, and no cheaper
        here: rounding takes whole bits off with any scale.
    n_lookup_bits : int, optional
        Bits of a sum that a look-up reads, 2 to 8: they decide the price. Default: one more than
        activations have, at most 8.
    n_output_bits : int, optional
        Bits of the sums that are the result. No look-up rounds these, and wide ones ask for more of
        the look-ups before them: 784-64-10 costs 9.1e9 with 12, 1.2e10 with 13. Default:
        ``n_accum_bits``.
    exact_rounding : bool, default=False
        Whether rounding to these bits is exact, which costs a look-up for each bit taken off.
    bounds : {"observed", "proved"}, default="observed"
        Whether the bits that look-ups read are those of the range of sums that training led to
        (sums beyond it are clipped in the clear, counted and warned of; encrypted, they give a
        wrong result), or of all that any input can lead to, which leaves fewer steps to what does
        occur.
    input_ranges : {"feature", "tensor"}, default="feature"
        Whether each feature is quantized over its own range, or all over one (pixels).

    Attributes
    ----------
    hidden : torch.nn.ModuleList
        Layers with look-ups.
    last : torch.nn.Module
        The layer that gives the scores.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of its range.
    """

    input_low: torch.Tensor
    input_high: torch.Tensor

    def __init__(
        self,
        input_dim: int,
        n_layers: int,
        n_outputs: int,
        n_hidden_neurons_multiplier: float = 4,
        n_w_bits: int = 4,
        n_a_bits: int = 4,
        n_accum_bits: int = 16,
        n_prune_neurons_percentage: float = 0.0,
        activation_function: type[nn.Module] | nn.Module | Callable[..., Any] = nn.ReLU,
        quant_narrow: bool = False,
        quant_signed: bool = True,
        power_of_two_scaling: bool = False,
        n_lookup_bits: int | None = None,
        n_output_bits: int | None = None,
        exact_rounding: bool = False,
        bounds: str = "observed",
        input_ranges: str = "feature",
    ) -> None:
        super().__init__()
        # What a copy with fewer neurons is made of.
        self._parameters_given = {k: v for k, v in locals().items() if k in _PARAMETERS}
        for name, count in (
            ("input_dim", input_dim),
            ("n_layers", n_layers),
            ("n_outputs", n_outputs),
        ):
            check_count(count, name)
        check_pruned_share(n_prune_neurons_percentage)
        self.precision = precision_of(self._parameters_given)
        self.input_ranges = input_ranges
        self.register_buffer("input_low", torch.full((input_dim,), torch.inf, dtype=torch.float64))
        self.register_buffer(
            "input_high", torch.full((input_dim,), -torch.inf, dtype=torch.float64)
        )
        hidden = hidden_width(input_dim, n_hidden_neurons_multiplier, n_prune_neurons_percentage)
        widths = [input_dim, *[hidden] * (n_layers - 1)]
        self.hidden = nn.ModuleList(
            LookupLinear(before, after, self.precision, as_module(activation_function))
            for before, after in itertools.pairwise(widths)
        )
        self.last = IntegerLinear(widths[-1], n_outputs, self.precision)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of rows, as encrypted ones will be.

        Parameters
        ----------
        x : torch.Tensor, shape (rows, features)

        Returns
        -------
        torch.Tensor of float32, shape (rows, outputs)

        Raises
        ------
        NotCalibratedError
            In evaluation mode, if no row was seen in training mode.
        """
        self._check_rows(x)
        if self.training:
            self.observe(x)
        levels = self._input_levels(x)
        for layer in self._lookups:
            levels = layer.activations(levels)
        result: torch.Tensor = self.last(levels)
        return result

    @property
    def _lookups(self) -> list[LookupLinear]:
        """The layers of `hidden`, by their type."""
        return [layer for layer in self.hidden if isinstance(layer, LookupLinear)]

    @torch.no_grad()
    def observe(self, x: torch.Tensor) -> None:
        """Widen the ranges of features to some rows: in training mode `forward` does it.

        Parameters
        ----------
        x : torch.Tensor, shape (rows, features)
        """
        self._check_rows(x)
        low, high = x.double().amin(dim=0), x.double().amax(dim=0)
        if self.input_ranges == "tensor":
            low, high = low.min().expand_as(low), high.max().expand_as(high)
        self.input_low = torch.minimum(self.input_low, low)
        self.input_high = torch.maximum(self.input_high, high)

    def _check_rows(self, x: Any) -> None:
        """Raise an error unless rows are finite numbers of all features."""
        if not isinstance(x, torch.Tensor):
            raise InvalidTypeError(f"the network takes a torch.Tensor, not {type(x).__name__}")
        if x.ndim != 2 or x.shape[1] != len(self.input_low) or not len(x):
            raise InvalidShapeError(
                f"rows of shape {tuple(x.shape)} were given; the network takes (rows, "
                f"{len(self.input_low)})"
            )
        if not bool(torch.isfinite(x).all()):
            raise InvalidParameterError(
                "rows hold values that are infinite or not numbers: no integer stands for them"
            )

    @torch.no_grad()
    def calibrate(self, x: torch.Tensor) -> None:
        """Widen what look-ups have room for to all that some rows lead to, when training is over.

        While weights change, ranges follow the latest batches. What they forgot is seen here, or
        rows that training did not have.

        Parameters
        ----------
        x : torch.Tensor, shape (rows, features)

        Raises
        ------
        NotCalibratedError
            If the network was not trained.
        """
        self.observe(x)
        self._check_calibrated()
        was_training = self.training
        self.eval()
        levels = self._input_levels(x)
        for layer in self._lookups:
            levels = layer.cover(levels)
        self.train(was_training)

    @property
    def is_calibrated(self) -> bool:
        """Whether it has seen rows in training mode."""
        seen = bool(torch.isfinite(self.input_low).all())
        return seen and all(layer.is_calibrated for layer in self._lookups)

    def _check_calibrated(self) -> None:
        if not self.is_calibrated:
            raise NotCalibratedError(
                "the network was not trained: call it on rows in training mode (train()) first, "
                "which shows it the ranges of features and sums"
            )

    @property
    def _span(self) -> torch.Tensor:
        span = self.input_high - self.input_low
        return torch.where(span > 0, span, 1.0)

    def _input_levels(self, x: torch.Tensor) -> Levels:
        if not self.training:
            self._check_calibrated()
        grid = self.precision.activations
        # The very operations of the client, in double precision.
        units = (x.double() - self.input_low) / self._span
        integers = torch.round(units / (1.0 / grid.levels) + grid.lo).clamp(grid.lo, grid.hi)
        return self._levels_of(integers.float())

    def _levels_of(self, integers: torch.Tensor) -> Levels:
        grid = self.precision.activations
        return Levels(integers, torch.tensor(1.0 / grid.levels), grid.lo, grid)

    @property
    def hidden_neurons(self) -> tuple[int, ...]:
        """Neurons of each hidden layer: a look-up each."""
        return tuple(len(layer.bias) for layer in self._lookups)

    def max_active_neurons(self) -> int:
        """How many inputs a neuron may have if all its weights are as large as they can be."""
        precision = self.precision
        largest = precision.weights.largest * precision.activations.largest
        return int(precision.sums.hi // largest)

    def quantized_module(self, scale: Any = 1.0, shift: Any = 0.0) -> QuantizedModule:
        """The integer program of the trained network, not compiled.

        Parameters
        ----------
        scale, shift : float or numpy.ndarray of shape (outputs,), default=1.0 and 0.0
            What scores are multiplied by, and what is added: by the client.

        Returns
        -------
        QuantizedModule
            Its client brings features to units of their ranges, which it thereby learns.

        Raises
        ------
        NotCalibratedError
            If the network was not trained.
        """
        self._check_calibrated()
        network = copy.deepcopy(self).cpu().eval()
        with torch.no_grad():
            return network._emitted(np.asarray(scale), np.asarray(shift))  # noqa: SLF001 - a copy

    def _emitted(self, scale: np.ndarray, shift: np.ndarray) -> QuantizedModule:
        grid, features = self.precision.activations, len(self.input_low)
        builder = Builder()
        given = value = builder.input(ROWS, (1, features), grid.lo, grid.hi)
        levels = self._levels_of(torch.zeros(1, features))
        for number, layer in enumerate(self._lookups):
            with builder.scope(f"layer{number}"):
                value, levels = layer.emit(value, levels)
        weights, unit = self.last.matrix(levels)
        constant = self.last.bias.double().numpy() - unit * levels.zero * weights.sum(axis=0)
        with builder.scope(SCORES):
            sums = value @ weights
            varies = sums.encrypted and bool((sums.interval.lo < sums.interval.hi).any())
            if not varies:
                # No engine computes a constant: an input that counts for nothing stands for it.
                constant = constant + unit * sums.interval.lo.reshape(-1)
                first = np.eye(features, 1, dtype=np.int64)
                sums = given @ first.repeat(len(unit), axis=1)
            circuit = builder.finish([sums], [SCORES])
        module = QuantizedModule((ROWS,), (SCORES,), {})
        quantizer = quantizer_of_results(circuit.output_nodes[0].interval, unit * scale)
        module.restore(circuit, [_unit_quantizer(grid)], [quantizer])
        module.head = units_of(self.input_low.numpy(), self._span.numpy())
        module.tail = _with_constant(constant * scale + shift, float(varies))
        return module

    def pruned(self, n_prune_neurons_percentage: float) -> SparseQuantNeuralNetwork:
        """A smaller network of the neurons that matter most, to be trained further.

        A neuron matters as much as the weights that read it, times how far its activations vary.

        Parameters
        ----------
        n_prune_neurons_percentage : float
            Share of the hidden neurons of the whole network that are left out; more than are left
            out already.

        Raises
        ------
        InvalidParameterError
            If it is not from 0 to less than 1, or no more than are left out already.
        """
        check_pruned_share(n_prune_neurons_percentage)
        self._check_calibrated()
        if not self._lookups:
            raise InvalidParameterError("a network of one layer has no hidden neurons to leave out")
        known = self._parameters_given["n_prune_neurons_percentage"]
        if n_prune_neurons_percentage <= known:
            raise InvalidParameterError(
                f"n_prune_neurons_percentage={n_prune_neurons_percentage} leaves out no more "
                f"neurons than are left out already ({known})"
            )
        given = {**self._parameters_given, "n_prune_neurons_percentage": n_prune_neurons_percentage}
        smaller = SparseQuantNeuralNetwork(**given)
        smaller.input_low, smaller.input_high = self.input_low.clone(), self.input_high.clone()
        kept: torch.Tensor | slice = slice(None)
        readers = [*self._lookups[1:], self.last]
        levels = self._levels_of(torch.zeros(1, len(self.input_low)))
        for layer, fewer, reader in zip(self._lookups, smaller._lookups, readers, strict=True):
            levels, varies = layer.reach_of_activations(levels)
            reach = varies * reader.weight.detach().abs().sum(dim=0)
            order = reach.argsort(descending=True, stable=True)
            chosen = order[: len(fewer.bias)].sort().values
            fewer.take_over(layer, chosen, kept)
            kept = chosen
        smaller.last.take_over(self.last, slice(None), kept)
        return smaller.train(self.training)


def units_of(low: np.ndarray, span: np.ndarray) -> Graph:
    """What the client computes: features in units of their ranges.

    Parameters
    ----------
    low, span : numpy.ndarray of float64, shape (features,)
        What becomes 0, and how much becomes 1.
    """
    double = np.dtype(np.float64)
    return Graph(
        inputs=(TensorInfo(ROWS, double, ("rows", len(low))),),
        outputs=(TensorInfo("units", double, ("rows", len(low))),),
        nodes=(
            Node("Sub", "from_low", (ROWS, "low"), ("from_low",)),
            Node("Div", "in_units", ("from_low", "span"), ("units",)),
        ),
        constants={"low": low.copy(), "span": span.copy()},
        opset=_OPSET,
    )


def _unit_quantizer(grid: IntegerGrid) -> UniformQuantizer:
    """From 0 to 1, over all integers of a grid."""
    return UniformQuantizer(
        QuantizationOptions(grid.n_bits, is_signed=grid.is_signed),
        MinMaxQuantizationStats(1.0, 0.0),
        UniformQuantizationParameters(1.0 / grid.levels, grid.lo, -grid.lo),
    )


def _with_constant(constant: np.ndarray, counts: float) -> Graph:
    """What the client adds to decrypted sums, which count once or not at all."""
    double = np.dtype(np.float64)
    return Graph(
        inputs=(TensorInfo("sums", double, ("rows", len(constant))),),
        outputs=(TensorInfo(SCORES, double, ("rows", len(constant))),),
        nodes=(
            Node("Mul", "counted", ("sums", "counts"), ("counted",)),
            Node("Add", "constant", ("counted", "bias"), (SCORES,)),
        ),
        constants={"bias": constant, "counts": np.array(counts)},
        opset=_OPSET,
    )


#: Names of the parameters of the network, which subclasses may hide.
_PARAMETERS = frozenset(inspect.signature(SparseQuantNeuralNetwork).parameters)
