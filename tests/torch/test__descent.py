from __future__ import annotations

import pytest
import torch

from cipherlearn.torch._descent import Descent


def test_descent_reaches_the_minimum_whatever_the_scale() -> None:
    goals = [torch.tensor([3.0, -1.0]), torch.tensor([2000.0])]
    tensors = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
    descent = Descent([(tensors[0], 0.05), (tensors[1], 30.0)], 400)
    for _ in range(400):
        pairs = zip(tensors, goals, strict=True)
        loss = torch.stack([(1e-3 * (t - g)).square().sum() for t, g in pairs]).sum()
        torch.autograd.backward(loss)
        descent.step()
    for tensor, goal in zip(tensors, goals, strict=True):
        assert tensor.detach().numpy() == pytest.approx(goal.numpy(), rel=0.02, abs=0.05)


def test_what_has_no_gradient_stays() -> None:
    tensor = torch.ones(2, requires_grad=True)
    Descent([(tensor, 1.0)], 3).step()
    assert tensor.tolist() == [1.0, 1.0]
