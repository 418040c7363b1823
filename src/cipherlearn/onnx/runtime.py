"""Fast evaluation of float models with onnxruntime."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from cipherlearn.errors import MissingDependencyError, ModelError
from cipherlearn.onnx.graph import Array, Graph
from cipherlearn.onnx.interpreter import check_inputs, execute
from cipherlearn.onnx.read import MAX_MESSAGE_BYTES

# onnxruntime refuses files that say they are newer than it is, though nothing that plain tensor
# graphs use has changed since this version of the file format.
_IR_VERSION = 10
_SILENT = 4


class OnnxRuntimeModel:
    """A model ready to be run by onnxruntime, with one session that is kept.

    Models that onnxruntime cannot take (operators of your own, operator sets that are newer than
    it) are evaluated in NumPy: the same values, more slowly.

    Parameters
    ----------
    model : ModelProto
        Model to run. Later changes to it are not seen.

    Attributes
    ----------
    graph : Graph
        The model, decoded.
    uses_onnxruntime : bool
        Whether onnxruntime runs it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = Graph.from_model(model)
        self._session = _new_session(model)

    @property
    def uses_onnxruntime(self) -> bool:
        """Whether onnxruntime runs the model."""
        return self._session is not None

    def __call__(self, *inputs: Any) -> tuple[Array, ...]:
        """Run the model.

        Parameters
        ----------
        *inputs : array_like
            One array per graph input. Floating arrays are cast to the declared dtype.

        Returns
        -------
        tuple of ndarray
            One array per graph output.

        Raises
        ------
        InvalidShapeError
            When the number of inputs or a shape is wrong.
        InvalidTypeError
            When an input has another dtype than declared.
        ModelError
            When the model cannot be computed on these inputs.
        """
        feeds = {
            info.name: np.asarray(array, dtype=info.dtype, order="C")
            for info, array in zip(
                self.graph.inputs, check_inputs(self.graph, inputs).values(), strict=True
            )
        }
        if self._session is None:
            return execute(self.graph, *feeds.values())
        try:
            outputs = self._session.run(list(self.graph.output_names), feeds)
        except Exception as error:
            raise ModelError(f"onnxruntime could not run the model: {error}") from error
        return tuple(np.asarray(output) for output in outputs)


def run_with_onnxruntime(model: onnx.ModelProto, *inputs: Any) -> tuple[Array, ...]:
    """Run a model once with onnxruntime.

    Use :class:`OnnxRuntimeModel` to run it several times.

    Parameters
    ----------
    model : ModelProto
        Model to run.
    *inputs : array_like
        One array per graph input.

    Returns
    -------
    tuple of ndarray
        One array per graph output.

    Raises
    ------
    CipherlearnError
        As :meth:`OnnxRuntimeModel.__call__` does.
    """
    return OnnxRuntimeModel(model)(*inputs)


def _new_session(model: onnx.ModelProto) -> Any:
    """Create a session; ``None`` when onnxruntime does not know something in the model."""
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as native
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime is needed to run float models quickly: `pip install onnxruntime`."
        ) from error
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = min(copy.ir_version, _IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    # One thread and plain kernels: the same bits on every run and every machine size.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    unknown = (native.Fail, native.InvalidGraph, native.NotImplemented, native.InvalidArgument)
    providers = ["CPUExecutionProvider"]
    try:
        if copy.ByteSize() <= MAX_MESSAGE_BYTES:
            return onnxruntime.InferenceSession(
                copy.SerializeToString(), options, providers=providers
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save_model(copy, path, save_as_external_data=True, location="weights.bin")
            return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except unknown:
        return None
