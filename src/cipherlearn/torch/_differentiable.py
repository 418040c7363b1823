"""Circuits as differentiable functions, for training the integers in them.

Forwards, every primitive computes what `cipherlearn.circuit.kernels` does. Backwards, rounding
passes gradients on as they are (straight-through), and a look-up has the slope of its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from statistics import NormalDist

import numpy as np
import torch

from cipherlearn.circuit import Circuit, ir
from cipherlearn.errors import CircuitError

#: Integers below are exact in single precision, which is twice as fast.
EXACT_IN_SINGLE = 2**24

#: The slope of a table is taken over this share of its rows on each side: fine tables are stairs.
SLOPE_SHARE = 32


class DifferentiableCircuit:
    """A circuit that gradients run through.

    Parameters
    ----------
    circuit : Circuit
    p_error : float
        Error probability of a look-up; it tells how noisy approximate rounding decides.
    random_state : int
        Seed of that noise.
    """

    def __init__(self, circuit: Circuit, p_error: float, random_state: int) -> None:
        self.circuit = circuit
        largest = max(max(-n.interval.min, n.interval.max) for n in circuit.nodes)
        self.dtype = torch.float32 if largest < EXACT_IN_SINGLE else torch.float64
        self._generator = torch.Generator().manual_seed(random_state)
        self._sigma = 0.5 / -NormalDist().inv_cdf(p_error / 2.0)
        self._constants = {
            position: torch.tensor(node.primitive.values[None], dtype=self.dtype)
            for position, node in enumerate(circuit.nodes)
            if isinstance(node.primitive, ir.Constant)
        }
        self._lookups = {
            position: _Table(node.primitive, self.dtype)
            for position, node in enumerate(circuit.nodes)
            if isinstance(node.primitive, ir.Lookup)
        }

    def __call__(
        self,
        inputs: list[torch.Tensor],
        constants: Mapping[int, torch.Tensor],
        biases: Mapping[int, torch.Tensor],
        noisy: bool,
    ) -> list[torch.Tensor]:
        """Values of all nodes.

        Parameters
        ----------
        inputs : list of torch.Tensor, each of shape (batch, *shape)
        constants : mapping of int to torch.Tensor
            What stands in place of constants, by their position.
        biases : mapping of int to torch.Tensor
            What is added to the results of nodes, by their position.
        noisy : bool
            Whether approximate rounding decides by noisy values, as encrypted execution does.
        """
        given = iter(inputs)
        values: list[torch.Tensor] = []
        for position, node in enumerate(self.circuit.nodes):
            primitive = node.primitive
            operands = [values[index] for index in node.inputs]
            if isinstance(primitive, ir.Input):
                value = next(given)
            elif isinstance(primitive, ir.Constant):
                value = constants.get(position, self._constants[position])
            elif isinstance(primitive, ir.Lookup):
                value = self._lookups[position](operands[0])
            elif noisy and isinstance(primitive, ir.Round) and not primitive.exact:
                value = self._noisy_rounding(primitive, operands[0])
            else:
                value = apply(primitive, *operands)
            values.append(value + biases[position] if position in biases else value)
        return values

    def _noisy_rounding(self, primitive: ir.Round, value: torch.Tensor) -> torch.Tensor:
        step = 1 << primitive.lsbs
        return rounded_with_noise(value / step, self._sigma, self._generator) * step


def rounded(value: torch.Tensor) -> torch.Tensor:
    """The nearest integers; gradients pass as they are."""
    return _straight_through(value, torch.round(value))


def rounded_with_noise(
    value: torch.Tensor, sigma: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """One of the two nearest integers, as noisy values decide; gradients pass as they are.

    Parameters
    ----------
    value : torch.Tensor
    sigma : float
        Deviation of the noise; 0 rounds to the nearest integer, halves upwards.
    generator : torch.Generator, optional
        Default: the current one of torch.
    """
    given, noise = value.detach(), torch.zeros((), dtype=value.dtype, device=value.device)
    if sigma:
        shape, kind, place = value.shape, value.dtype, value.device
        noise = sigma * torch.randn(shape, generator=generator, dtype=kind, device=place)
    decided = torch.floor(given + noise + 0.5)
    return _straight_through(value, decided.clamp(torch.floor(given), torch.ceil(given)))


def _straight_through(value: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """The result forwards, the value backwards; adding their difference would not be exact."""
    return result.detach() + (value - value.detach())


class _Table:
    """A look-up: its entries forwards, the slope of its table backwards."""

    def __init__(self, primitive: ir.Lookup, dtype: torch.dtype) -> None:
        table, rows = primitive.table, primitive.table.shape[0]
        self.start, self.step, self.last = primitive.start, primitive.step, rows - 1
        reach = max(1, rows // SLOPE_SHARE)
        above = np.minimum(np.arange(rows) + reach, rows - 1)
        below = np.maximum(np.arange(rows) - reach, 0)
        distance = np.maximum(above - below, 1) * primitive.step
        slopes = (table[above] - table[below]) / distance.reshape(-1, *(1,) * (table.ndim - 1))
        self.entries = torch.tensor(table.reshape(-1), dtype=dtype)
        self.slopes = torch.tensor(slopes.reshape(-1), dtype=dtype)
        self.size = table.size // rows
        self.columns = torch.arange(self.size).reshape(table.shape[1:])

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        rows = torch.floor((torch.round(value.detach()) - self.start) / self.step)
        places = rows.clamp(0, self.last).long() * self.size + self.columns
        change = (value - value.detach()) * self.slopes[places]
        return self.entries[places] + change


@singledispatch
def apply(primitive: ir.Primitive, *operands: torch.Tensor) -> torch.Tensor:
    """Result of a primitive on batched operands: see `cipherlearn.circuit.kernels.apply`."""
    raise CircuitError(
        f"no gradient for the primitive {primitive.name} with {len(operands)} operands"
    )


@apply.register
def _(_primitive: ir.Add, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left + right


@apply.register
def _(_primitive: ir.Subtract, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left - right


@apply.register
def _(_primitive: ir.Multiply, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left * right


@apply.register
def _(_primitive: ir.MatMul, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.matmul(left, right)


@apply.register
def _(primitive: ir.Convolve, image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    batch, samples = image.shape[:2]
    space = image.ndim - 3
    # torch lists the pads of the last axis first.
    pads = [primitive.pads[i + side * space] for i in range(space)[::-1] for side in (0, 1)]
    flat = torch.nn.functional.pad(image.reshape(batch * samples, *image.shape[2:]), pads)
    convolve = {
        1: torch.nn.functional.conv1d,
        2: torch.nn.functional.conv2d,
        3: torch.nn.functional.conv3d,
    }[space]
    result = convolve(
        flat,
        kernel[0],
        stride=primitive.strides,
        dilation=primitive.dilations,
        groups=primitive.groups,
    )
    return result.reshape(batch, samples, *result.shape[1:])


@apply.register
def _(primitive: ir.Sum, value: torch.Tensor) -> torch.Tensor:
    axes = tuple(axis + 1 for axis in primitive.axes)
    return value.sum(dim=axes, keepdim=primitive.keepdims) if axes else value


@apply.register
def _(primitive: ir.Index, value: torch.Tensor) -> torch.Tensor:
    # torch has no negative steps: which elements are meant is asked of NumPy.
    shape = tuple(value.shape[1:])
    places = np.arange(int(np.prod(shape))).reshape(shape)[primitive.key].copy()
    return value.reshape(value.shape[0], -1)[:, torch.tensor(places)]


@apply.register
def _(primitive: ir.Reshape, value: torch.Tensor) -> torch.Tensor:
    return value.reshape(value.shape[0], *primitive.shape)


@apply.register
def _(primitive: ir.Transpose, value: torch.Tensor) -> torch.Tensor:
    return value.permute(0, *(axis + 1 for axis in primitive.axes))


@apply.register
def _(primitive: ir.Concatenate, *values: torch.Tensor) -> torch.Tensor:
    batch = max(value.shape[0] for value in values)
    parts = [value.expand(batch, *value.shape[1:]) for value in values]
    return torch.cat(parts, dim=primitive.axis + 1)


@apply.register
def _(primitive: ir.Broadcast, value: torch.Tensor) -> torch.Tensor:
    return value.expand(value.shape[0], *primitive.shape)


@apply.register
def _(primitive: ir.Round, value: torch.Tensor) -> torch.Tensor:
    step = 1 << primitive.lsbs
    return _straight_through(value, torch.floor(torch.round(value) / step + 0.5) * step)


@apply.register
def _(primitive: ir.Assume, value: torch.Tensor) -> torch.Tensor:
    lo, hi = (torch.tensor(bound, dtype=value.dtype) for bound in (primitive.lo, primitive.hi))
    return torch.clamp(value, lo, hi)


@apply.register
def _(_primitive: ir.Maximum, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.maximum(left, right)
