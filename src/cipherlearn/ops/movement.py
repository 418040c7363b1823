"""Operators that only put elements elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cipherlearn.ops._registry import Kind, register


def _check_inference(values: Mapping[str, Any]) -> str | None:
    training = values.get("training_mode")
    if training is None or not np.any(training):
        return None
    return (
        "training mode draws random numbers, which has no meaning on encrypted data. Export the"
        " model for inference (torch: `module.eval()` first)."
    )


register("Flatten", "Identity", "Transpose", kind=Kind.MOVEMENT)
register("DepthToSpace", "SpaceToDepth", kind=Kind.MOVEMENT)
register("Reshape", "Squeeze", "Unsqueeze", kind=Kind.MOVEMENT, raw_inputs={1})
register("Expand", "Tile", kind=Kind.MOVEMENT, raw_inputs={1})
register("Compress", "GatherElements", "GatherND", kind=Kind.MOVEMENT, raw_inputs={1})
register("ReverseSequence", kind=Kind.MOVEMENT, raw_inputs={1})
register("Slice", kind=Kind.MOVEMENT, raw_inputs={1, 2, 3, 4})
register("Dropout", kind=Kind.MOVEMENT, raw_inputs={1, 2}, check=_check_inference)
