"""Export of PyTorch modules: names, batch sizes, modes, fall-backs, silence."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
)
from cipherlearn.onnx import execute, prepare
from cipherlearn.torch import export
from cipherlearn.torch.export import to_onnx
from tests.onnx_models import dimensions


class Dense(nn.Module):
    """Flatten rows of 3 by 4, dense layer, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 5)
        self.dropout = nn.Dropout(0.5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.dropout(torch.relu(self.layer(pixels.view(pixels.shape[0], -1))))


class Two(nn.Module):
    """Two inputs, two outputs."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.where(first > second, first, second), first + second


class Branching(nn.Module):
    """Decides in Python, on the values of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Fixed(nn.Module):
    """Works for one row only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x.view(1, 12))


class Broken(nn.Module):
    """Cannot run at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"cannot take {x.ndim} axes")


class Shy(nn.Module):
    """Runs, but not while somebody looks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            raise ValueError("not now")
        return x


class Contradictory(nn.Module):
    """torch's current exporter writes a product of floats and integers for this one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.arange(1, 4.0)


class Same(nn.Module):
    """Returns its input, twice."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


def agree(module: nn.Module, model: onnx.ModelProto, *inputs: torch.Tensor) -> None:
    """Compare the exported model with the module."""
    with torch.no_grad():
        wanted = module.eval()(*inputs)
    found = execute(prepare(model), *(tensor.numpy() for tensor in inputs))
    for array, tensor in zip(found, wanted if isinstance(wanted, tuple) else [wanted], strict=True):
        assert array.dtype == tensor.numpy().dtype
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-4, atol=1e-5)


def names(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]


@pytest.mark.parametrize("rows", [1, 2])
def test_inputs_have_the_names_of_forward_and_any_batch_size(rows: int) -> None:
    module = Dense()
    model = to_onnx(module, torch.randn(rows, 3, 4))
    assert names(model) == ["pixels"]
    assert dimensions(model.graph.input[0])[1:] == [3, 4]
    agree(module, model, torch.randn(4, 3, 4))


def test_several_inputs_and_outputs() -> None:
    module = Two()
    model = to_onnx(module, (torch.randn(1, 3), torch.randn(1, 3)))
    assert names(model) == ["first", "second"]
    agree(module, model, torch.randn(5, 3), torch.randn(5, 3))


def test_any_number_of_inputs() -> None:
    class Sum(nn.Module):
        def forward(self, *terms: torch.Tensor) -> torch.Tensor:
            return terms[0] + terms[1]

    model = to_onnx(Sum(), [torch.randn(1, 3), torch.randn(1, 3)])
    assert names(model) == ["terms_0", "terms_1"]
    agree(Sum(), model, torch.randn(2, 3), torch.randn(2, 3))


def test_inputs_of_different_lengths_keep_their_sizes() -> None:
    model = to_onnx(Two(), (torch.randn(4, 3), torch.randn(1, 3)))
    assert [dimensions(value) for value in model.graph.input] == [[4, 3], [1, 3]]


def test_a_module_for_one_row_is_freed_by_simplification() -> None:
    model = to_onnx(Fixed(), torch.randn(1, 3, 4))
    assert dimensions(model.graph.input[0]) == [1, 3, 4]
    assert dimensions(prepare(model).graph.input[0]) == ["batch", 3, 4]


def test_numpy_examples_get_the_type_of_the_module() -> None:
    double = nn.Linear(3, 2).double()
    for module, dtype in ((nn.Linear(3, 2), np.float32), (double, np.float64)):
        model = to_onnx(module, np.zeros((1, 3)))
        (found,) = execute(model, np.zeros((2, 3), dtype=dtype))
        assert found.dtype == dtype


def test_modes_are_put_back() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9), nn.BatchNorm1d(3))
    module.train()
    module[1].eval()
    with pytest.raises(ModelError):
        to_onnx(nn.Sequential(module, Broken()), torch.randn(2, 3))
    assert [part.training for part in module.modules()] == [True, True, False, True]
    model = to_onnx(module[:2], torch.randn(2, 3))
    assert [part.training for part in module.modules()] == [True, True, False, True]
    x = np.ones((1, 3), dtype=np.float32)
    assert execute(prepare(model), x)[0].all()


def test_graphs_of_torch_export_stay_in_their_mode() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    x = torch.randn(5, 3)
    dynamic = ({0: torch.export.Dim("rows")},)
    module = torch.export.export(net, (x,), dynamic_shapes=dynamic).module()
    with pytest.raises(NotImplementedError):
        module.eval()
    mode = module.training
    agree(net, to_onnx(module, x), torch.randn(7, 3))
    assert module.training is mode


def test_the_model_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = to_onnx(nn.Linear(3, 2), torch.randn(1, 3), path)
    assert onnx.load_model(path) == model
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_the_older_exporter_steps_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> onnx.ModelProto:
        raise RuntimeError("not today")

    monkeypatch.setattr(export, "_export_dynamo", fail)
    module = Dense()
    model = to_onnx(module, torch.randn(2, 3, 4))
    assert names(model) == ["pixels"]
    agree(module, model, torch.randn(4, 3, 4))


def test_decisions_on_values_are_refused() -> None:
    # Tracing would keep the branch that the example took, for all inputs.
    with pytest.raises(ModelError) as caught:
        to_onnx(Branching(), torch.ones(1, 3))
    message = str(caught.value)
    assert "Branching could not be exported" in message
    assert "- the current exporter: " in message
    assert "- the TorchScript exporter: ModelError: `forward` looks at values" in message
    assert "test_export.py, line" in message
    assert "torch.where" in message


def test_both_reasons_are_shown() -> None:
    with pytest.raises(ModelError) as caught:
        to_onnx(Shy(), torch.ones(1, 3))
    message = str(caught.value)
    assert "- the current exporter: ValueError: not now" in message
    assert "- the TorchScript exporter: ValueError: not now" in message


def test_a_module_that_cannot_run_is_no_matter_of_exporting() -> None:
    with pytest.raises(ModelError, match=r"Broken does not run .*cannot take 2 axes"):
        to_onnx(Broken(), torch.ones(1, 3))
    with pytest.raises(InvalidShapeError, match=r"input: \(rows, 3\) of torch.float32"):
        to_onnx(nn.Linear(4, 2), torch.ones(2, 3))


@pytest.mark.parametrize("module", [Contradictory(), Same()])
def test_graphs_that_contradict_themselves_are_mended(module: nn.Module) -> None:
    x = torch.randn(2, 3)
    results = execute(prepare(to_onnx(module, x)), x.numpy())
    expected = module(x)
    for result, known in zip(
        results, expected if isinstance(expected, tuple) else (expected,), strict=True
    ):
        np.testing.assert_allclose(result, known.numpy(), rtol=1e-6)


def test_nothing_is_said_and_nothing_global_changes(capfd: pytest.CaptureFixture[str]) -> None:
    to_onnx(nn.Linear(3, 2), torch.randn(1, 3))  # loads what is loaded on first use
    names_of_loggers = [name for name in logging.root.manager.loggerDict if "torch" in name]
    levels = {name: logging.getLogger(name).level for name in ["", *names_of_loggers]}
    filters, environment = list(warnings.filters), dict(os.environ)
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    capfd.readouterr()
    to_onnx(Two(), (torch.randn(1, 3), torch.randn(1, 3)))
    with pytest.raises(ModelError):
        to_onnx(Branching(), torch.ones(1, 3))
    assert capfd.readouterr() == ("", "")
    assert levels == {name: logging.getLogger(name).level for name in levels}
    assert (filters, environment) == (list(warnings.filters), dict(os.environ))
    assert (grad, dtype) == (torch.is_grad_enabled(), torch.get_default_dtype())
    print("still heard")  # noqa: T201
    assert capfd.readouterr().out == "still heard\n"


@pytest.mark.parametrize(
    ("module", "examples", "error", "message"),
    [
        (3, torch.ones(1), InvalidTypeError, r"a torch\.nn\.Module, not int"),
        (Two(), (), InvalidParameterError, "at least one example"),
        (Two(), (torch.ones(1),) * 3, InvalidParameterError, "takes 2: first, second"),
        (Two(), (torch.ones(1), "x"), InvalidTypeError, "not str"),
    ],
)
def test_bad_calls_say_what_is_wrong(
    module: Any, examples: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        to_onnx(module, examples)


def test_an_input_that_the_exporter_removed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = to_onnx(nn.Linear(3, 2), torch.randn(1, 3))
    linear.graph.input[0].name = "first"
    linear.graph.node[0].input[0] = "first"
    monkeypatch.setattr(export, "_export_dynamo", lambda *_: linear)
    with pytest.raises(ModelError, match=r"does not use its input.s. second"):
        to_onnx(Two(), (torch.randn(1, 3), torch.randn(1, 3)))
