"""Expansions of operators, run in the clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.ops import REQUIRED
from cipherlearn.ops._expand import Composer, Tensor


def evaluate(
    op: str, operands: Sequence[Any], opset: int, attributes: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    return ops.get(op).numpy(*operands, opset=opset, **attributes)


@dataclass
class Expanded:
    """What an expansion made of an operator."""

    composer: Composer
    inputs: list[Tensor]
    results: list[Tensor]

    @property
    def steps(self) -> list[str]:
        return [step.op for step in self.composer.steps]

    def run(self, *rows: np.ndarray) -> list[np.ndarray]:
        """The recorded steps on other values of the encrypted operands."""
        values: dict[str, Any] = {"": None, **self.composer.constants}
        values |= {one.name: one.sample for one in self.inputs if one.constant}
        given = [one.name for one in self.inputs if not one.constant]
        values |= dict(zip(given, rows, strict=True))
        for step in self.composer.steps:
            operands = [values[name] for name in step.inputs]
            outputs = evaluate(step.op, operands, self.composer.opset, step.attributes)
            values[step.output] = outputs[0]
        return [values[result.name] for result in self.results]


def expand(
    name: str,
    operands: Sequence[np.ndarray | None],
    attributes: Mapping[str, Any],
    *,
    opset: int = ops.NEWEST_OPSET,
    encrypted: Sequence[int] = (0,),
) -> Expanded:
    """Expand an operator whose operands at some places are encrypted."""
    op = ops.get(name)
    assert op.expand is not None
    composer = Composer("node", opset, evaluate)
    tensors = [
        None if array is None else Tensor(f"x{i}", np.asarray(array), i not in encrypted)
        for i, array in enumerate(operands)
    ]
    known = op.signature(opset).attributes
    defaults = {k: a.default for k, a in known.items() if a.default not in (None, REQUIRED)}
    result = op.expand(composer, tensors, {**defaults, **attributes})
    results = [result] if isinstance(result, Tensor) else list(result)
    return Expanded(composer, [one for one in tensors if one is not None], results)
