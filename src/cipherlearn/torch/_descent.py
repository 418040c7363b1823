"""Gradient descent for integer weights."""

from __future__ import annotations

import math

import torch

#: Share of its direction that descent keeps from step to step.
MOMENTUM = 0.95


class Descent:
    """Gradient descent with momentum, in units of the typical gradient of each tensor.

    Steps of the same size for every weight, as Adam takes them, would let those that hardly matter
    wander with the noise of the gradient, and each integer that changes costs accuracy.
    """

    def __init__(self, tensors: list[tuple[torch.Tensor, float]], steps: int) -> None:
        self._tensors = tensors
        self._momenta = [torch.zeros_like(tensor) for tensor, _ in tensors]
        self._squares = [0.0 for _ in tensors]
        self._steps, self._done = steps, 0

    def step(self) -> None:
        """Take one step; rates fall to zero with the last one."""
        left = 0.5 * (1.0 + math.cos(math.pi * self._done / self._steps))
        self._done += 1
        unbiased = 1.0 - MOMENTUM**self._done
        with torch.no_grad():
            for place, (tensor, rate) in enumerate(self._tensors):
                gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
                self._momenta[place].mul_(MOMENTUM).add_(gradient, alpha=1.0 - MOMENTUM)
                square = float(gradient.square().mean())
                self._squares[place] = MOMENTUM * self._squares[place] + (1 - MOMENTUM) * square
                typical = math.sqrt(self._squares[place] / unbiased)
                if typical > 0:
                    tensor.sub_(self._momenta[place], alpha=rate * left / (unbiased * typical))
                tensor.grad = None
