"""A float model as a NumPy function."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from cipherlearn.errors import InvalidParameterError, InvalidTypeError
from cipherlearn.onnx import Graph, execute, prepare
from cipherlearn.ops import qonnx
from cipherlearn.torch.export import check_exported, to_onnx

if TYPE_CHECKING:
    import torch

    from cipherlearn.onnx import ModelSource

Array = np.ndarray[Any, np.dtype[Any]]

#: Operators whose result may be another step where floats are rounded otherwise.
_STEPS = qonnx.GRID_OPERATORS | {"Cast", "Ceil", "Floor", "QuantizeLinear", "Round"}


class NumpyModule:
    """A PyTorch or ONNX model, evaluated in NumPy.

    Parameters
    ----------
    model : torch.nn.Module, ModelProto, bytes, str or path
        A PyTorch module, or an ONNX model in memory, as the content of a file or as its path.
    dummy_input : tensor, ndarray or tuple of them, default None
        One example of each input, with a batch axis. Needed for a PyTorch module, which is traced
        with it; not used otherwise.
    debug_onnx_output_file_path : str or path, default None
        Where to write the ONNX model that is evaluated.

    Attributes
    ----------
    numpy_forward : callable
        ``(*arrays) -> tuple of ndarray``: one array per input of the model, one per output.

    Raises
    ------
    InvalidTypeError
        When ``model`` is none of these.
    InvalidParameterError
        When ``dummy_input`` is missing.
    ModelError
        When the model cannot be exported, read, or holds something that is not supported.

    Examples
    --------
    >>> import torch
    >>> module = NumpyModule(torch.nn.Linear(4, 2), dummy_input=torch.zeros(1, 4))
    >>> module(np.zeros((3, 4), dtype=np.float32)).shape
    (3, 2)
    """

    def __init__(
        self,
        model: torch.nn.Module | ModelSource,
        dummy_input: Any = None,
        debug_onnx_output_file_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self._onnx_model = _to_prepared_onnx(model, dummy_input)
        self._graph = Graph.from_model(self._onnx_model)
        self.numpy_forward = self._execute
        steps = _STEPS.intersection(node.op for node in self._graph.nodes)
        if not isinstance(model, onnx.ModelProto | bytes | str | os.PathLike) and not steps:
            check_exported(model, dummy_input, self._execute)
        if debug_onnx_output_file_path is not None:
            onnx.save_model(self._onnx_model, Path(debug_onnx_output_file_path))

    @property
    def onnx_model(self) -> onnx.ModelProto:
        """The simplified ONNX model that is evaluated."""
        return self._onnx_model

    def forward(self, *args: Any) -> Array | tuple[Array, ...]:
        """Evaluate the model.

        Parameters
        ----------
        *args : ndarray
            One array per input. Give float64 arrays to compute in float64.

        Returns
        -------
        ndarray or tuple of ndarray
            An array when the model has one output, a tuple otherwise.

        Raises
        ------
        InvalidShapeError
            When the number of inputs or a shape is wrong.
        InvalidTypeError
            When an input has another dtype than the model takes.
        """
        outputs = self.numpy_forward(*args)
        return outputs[0] if len(outputs) == 1 else outputs

    __call__ = forward

    def _execute(self, *args: Any) -> tuple[Array, ...]:
        return execute(self._graph, *args)


def _to_prepared_onnx(model: Any, dummy_input: Any) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto | bytes | str | os.PathLike):
        return prepare(model)
    # A module exists only after torch was imported: who has none need not wait for that import.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        raise InvalidTypeError(
            "NumpyModule takes a torch.nn.Module, an onnx.ModelProto, or the bytes or path of an"
            f" ONNX file, not {type(model).__name__}."
        )
    if dummy_input is None:
        raise InvalidParameterError(
            "A PyTorch module is traced with an example: give `dummy_input`, a tensor or a tuple of"
            " tensors with a batch axis (one row is enough)."
        )
    return prepare(to_onnx(model, dummy_input))
