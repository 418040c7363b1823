"""Simplification of graphs: the same function with fewer and plainer nodes."""

from __future__ import annotations

import onnx

from cipherlearn.onnx import _edit
from cipherlearn.onnx._batch import free_batch
from cipherlearn.onnx._fold import fold_constants
from cipherlearn.onnx._rewrite import cast_like_to_cast, fuse_bias, remove_identities
from cipherlearn.onnx.support import inline_functions

# Initializers that are not inputs exist from this version of the file format on.
_IR_VERSION = 4


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify a model.

    Functions of the model are inlined; sub-graphs that depend on no input are replaced by their
    values; initializers stop being inputs; Identity, inference-mode Dropout and whatever no output
    depends on disappear; CastLike becomes Cast; MatMul followed by the addition of a constant
    becomes Gemm where both mean the same. Where the model was traced with a fixed batch size and
    treats every row alike, it accepts any batch size afterwards.

    Parameters
    ----------
    model : ModelProto
        A model as :func:`cipherlearn.onnx.load_model` returns it; it is not changed.

    Returns
    -------
    ModelProto
        A new model with the same input and output names.

    Raises
    ------
    ModelError
        When a function of the model cannot be inlined.
    """
    result = onnx.ModelProto()
    result.CopyFrom(inline_functions(model))
    result.ir_version = max(result.ir_version, _IR_VERSION)
    _edit.initializers_out_of_inputs(result.graph)
    clean(result)
    return free_batch(result, clean)


def clean(model: onnx.ModelProto) -> None:
    """Apply the rewritings that keep shapes as they are, until none applies (in place).

    Parameters
    ----------
    model : ModelProto
        Model without functions of its own, whose initializers are not inputs.
    """
    changed = True
    while changed:
        changed = fold_constants(model)
        changed |= remove_identities(model)
        changed |= cast_like_to_cast(model)
        changed |= _edit.remove_dead(model.graph)
    if fuse_bias(model):
        _edit.remove_dead(model.graph)
    del model.graph.value_info[:]
