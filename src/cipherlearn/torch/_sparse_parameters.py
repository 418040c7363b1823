"""Parameters of a `SparseQuantNeuralNetwork`, checked."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from cipherlearn.errors import InvalidParameterError, InvalidTypeError
from cipherlearn.quantization.quantizers import check_bits
from cipherlearn.torch._integer_grids import IntegerGrid, Precision

#: Most bits of weights and activations, of what look-ups read, and of sums.
MOST_BITS, MOST_LOOKUP_BITS, MOST_ACCUMULATOR_BITS = 8, 8, 16

#: What accumulators get a range from, and what inputs share one.
BOUNDS, INPUT_RANGES = ("observed", "proved"), ("feature", "tensor")


def precision_of(given: Mapping[str, Any]) -> Precision:
    """The bits and the guarantees that parameters of the network ask for.

    Raises
    ------
    InvalidParameterError
        If one is out of range, or sums have no room for anything.
    """
    for name, accepted in (("bounds", BOUNDS), ("input_ranges", INPUT_RANGES)):
        if given[name] not in accepted:
            raise InvalidParameterError(
                f"{name} must be one of {list(accepted)}, not {given[name]!r}"
            )
    for name in ("quant_narrow", "quant_signed", "exact_rounding", "power_of_two_scaling"):
        if not isinstance(given[name], (bool, np.bool_)):
            raise InvalidParameterError(f"{name} must be True or False, not {given[name]!r}")
    weights = check_bits(given["n_w_bits"], "n_w_bits", MOST_BITS, lowest=2)
    activations = check_bits(given["n_a_bits"], "n_a_bits", MOST_BITS)
    sums = check_bits(given["n_accum_bits"], "n_accum_bits", MOST_ACCUMULATOR_BITS, lowest=2)
    read, outputs = given["n_lookup_bits"], given["n_output_bits"]
    read = min(activations + 1, MOST_LOOKUP_BITS) if read is None else read
    outputs = sums if outputs is None else outputs
    found = Precision(
        weights=IntegerGrid(weights, is_signed=True, is_narrow=bool(given["quant_narrow"])),
        activations=IntegerGrid(activations, is_signed=bool(given["quant_signed"])),
        lookup_bits=min(check_bits(read, "n_lookup_bits", MOST_LOOKUP_BITS, lowest=2), sums),
        accumulator_bits=sums,
        output_bits=check_bits(outputs, "n_output_bits", sums, lowest=2),
        is_exact=bool(given["exact_rounding"]),
        is_proved=given["bounds"] == "proved",
        powers_of_two=bool(given["power_of_two_scaling"]),
    )
    room = min(found.outputs.hi, found.sums.hi // (2 if found.is_proved else 1))
    if room < found.activations.levels:
        raise InvalidParameterError(
            f"n_accum_bits={sums} (n_output_bits={outputs}): not even one weight of 1 times an "
            f"activation of {activations} bits (n_a_bits) fits; {activations + 2} bits do"
        )
    return found


def hidden_width(input_dim: int, multiplier: Any, pruned: float = 0.0) -> int:
    """Neurons of a hidden layer, at least 1.

    Parameters
    ----------
    input_dim : int
    multiplier : float
        Neurons for each feature; above 0.
    pruned : float, default=0.0
        Share of them that are left out.

    Raises
    ------
    InvalidParameterError
        If the multiplier is no number above 0.
    """
    is_number = isinstance(multiplier, (int, float, np.number)) and not isinstance(multiplier, bool)
    if not is_number or not 0 < multiplier < np.inf:
        raise InvalidParameterError(
            f"n_hidden_neurons_multiplier must be a number above 0, not {multiplier!r}"
        )
    whole = max(1, round(input_dim * float(multiplier)))
    return max(1, round(whole * (1.0 - pruned)))


def check_count(value: Any, name: str) -> None:
    """Raise `InvalidParameterError` unless a value is a whole number above 0."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < 1:
        raise InvalidParameterError(f"{name} must be a whole number above 0, not {value!r}")


def check_pruned_share(value: Any) -> None:
    """Raise `InvalidParameterError` unless a value is a share of neurons that leaves some."""
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise InvalidParameterError(
            "n_prune_neurons_percentage is the share of hidden neurons that are left out, from 0 "
            f"to less than 1, not {value!r}"
        )


def as_module(given: Any) -> nn.Module:
    """A module of its own for an activation function.

    Parameters
    ----------
    given : type, module or callable

    Raises
    ------
    InvalidTypeError
        If it is neither.
    """
    if isinstance(given, nn.Module):
        return copy.deepcopy(given)
    made: Any = given() if inspect.isclass(given) else given
    if isinstance(made, nn.Module):
        return made
    if not callable(made):
        raise InvalidTypeError(
            "activation_function must be a class of modules such as torch.nn.ReLU, a module, or a "
            f"function of tensors, not {given!r}"
        )
    return _Elementwise(made)


class _Elementwise(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Element by element."""
        return self.function(x)
