"""Simplification of graphs: the same function with fewer and plainer nodes."""

from __future__ import annotations

import onnx

from cipherlearn.onnx import _edit
from cipherlearn.onnx._batch import free_batch
from cipherlearn.onnx._branches import inline_branches
from cipherlearn.onnx._declared import (
    declare_grids,
    hide_constants,
    move_behind,
    show_constants,
)
from cipherlearn.onnx._fold import fold_constants
from cipherlearn.onnx._fuse import fuse_linear
from cipherlearn.onnx._labels import plain_outputs
from cipherlearn.onnx._padding import fold_padding
from cipherlearn.onnx._rewrite import merge_duplicates, remove_identities, simplify_casts
from cipherlearn.onnx._shapes import fold_known_sizes
from cipherlearn.onnx.support import inline_functions

# Initializers that are not inputs exist from this version of the file format on.
_IR_VERSION = 4


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify a model.

    Functions of the model are inlined, and so is the branch of an If that is always taken;
    sub-graphs that depend on no input are replaced by their values; what several nodes compute
    alike is computed once; initializers stop being inputs; Identity, inference-mode Dropout and
    whatever no output depends on disappear; CastLike becomes
    Cast, and casts to the same type disappear. Where the model was traced with
    a fixed batch size and treats every row alike, it accepts any batch size afterwards.

    Factors, offsets and normalizations by constants of each channel are folded into the linear
    operators beside them (so MatMul and Add become Gemm), and Pad into the windows that read it.

    Grids that the model declares, with whatever operators, are ``Quant`` nodes of QONNX afterwards;
    constants stay behind theirs.

    Of a classifier's outputs, dictionaries of probabilities become arrays, and names of classes
    are left out.

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

    Warns
    -----
    CipherlearnWarning
        When an output is left out because it holds strings.
    """
    result = onnx.ModelProto()
    result.CopyFrom(inline_functions(model))
    result.ir_version = max(result.ir_version, _IR_VERSION)
    _edit.initializers_out_of_inputs(result.graph)
    plain_outputs(result)
    declare_grids(result)
    clean(result)
    hidden = hide_constants(result)
    result = free_batch(result, clean)
    show_constants(result, hidden)
    while fold_padding(result) | fuse_linear(result):
        clean(result)
    return result


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
        changed |= move_behind(model)
        changed |= fold_known_sizes(model)
        changed |= inline_branches(model)
        changed |= remove_identities(model)
        changed |= simplify_casts(model)
        changed |= merge_duplicates(model)
        changed |= _edit.remove_dead(model.graph)
    del model.graph.value_info[:]
