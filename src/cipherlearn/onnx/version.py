"""Operator sets of a model."""

from __future__ import annotations

import onnx

from cipherlearn.errors import InvalidTypeError
from cipherlearn.ops import NEWEST_OPSET


def get_onnx_opset_version(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set that a model uses.

    Parameters
    ----------
    model : ModelProto
        Any model.

    Returns
    -------
    int
        Version of the domain ``""`` (also written ``"ai.onnx"``). A model that uses other domains
        only has no such version: the newest that is known then.

    Raises
    ------
    InvalidTypeError
        When ``model`` is not a ``ModelProto``.
    """
    if not isinstance(model, onnx.ModelProto):
        raise InvalidTypeError(f"Expected an onnx.ModelProto, not {type(model).__name__}.")
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions) if versions else NEWEST_OPSET
