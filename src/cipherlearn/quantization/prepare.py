"""From the float graph of a model to the part of it that is quantized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.errors import ModelError
from cipherlearn.onnx import Graph, check_batch_first, intermediate_values
from cipherlearn.quantization.client_side import (
    run_head,
    split_head,
    split_tail,
    with_encodings,
)
from cipherlearn.quantization.declared import without_constant_nodes
from cipherlearn.quantization.expand import expand
from cipherlearn.quantization.quantized_array import QuantizedArray


@dataclass(frozen=True)
class Parts:
    """A float model, cut into what the client and what the server computes.

    Parameters
    ----------
    head, tail : Graph or None
        What the client computes before encryption, and after decryption.
    body : Graph
        What is quantized: every operator has a table or an integer form.
    data : list of numpy.ndarray of float64
        Calibration data of the body.
    samples : dict of str to numpy.ndarray
        Every tensor of the body for one row.
    encodings : frozenset of str
        Inputs of the body that hold zeros and ones only.
    sums : mapping of str to tuple of str
        What the client has after decryption -> outputs of the body whose sum it is.
    plain : Graph or None
        The body before activations went around look-ups; None where none did.
    side_by_side : mapping of str to tuple of str
        Nodes whose operands keep grids of their own -> the layers that read the result.
    bypassed : mapping of str to str
        Activations whose linear part goes around the look-up -> ``"hidden"``, or ``"outputs"``
        where it is an output of its own.
    grids : mapping of str to QuantizedArray
        Constants that the model declares the integers of.
    """

    head: Graph | None
    body: Graph
    tail: Graph | None
    data: list[np.ndarray]
    samples: Mapping[str, np.ndarray]
    encodings: frozenset[str]
    sums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    plain: Graph | None = None
    side_by_side: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bypassed: Mapping[str, str] = field(default_factory=dict)
    grids: Mapping[str, QuantizedArray] = field(default_factory=dict)

    def totals(self, outputs: Sequence[Any]) -> list[Any]:
        """What the client has after decryption: outputs of the body, added where there are sums.

        Parameters
        ----------
        outputs : sequence of numpy.ndarray or tensor
            One an output of the body.
        """
        named = dict(zip(self.body.output_names, outputs, strict=True))
        for first, *others in self.sums.values():
            named[first] = sum((named.pop(part) for part in others), start=named[first])
        return list(named.values())


def prepare(graph: Graph, data: list[np.ndarray]) -> Parts:
    """Cut a model into parts, and write its operators with those that can be quantized.

    Parameters
    ----------
    graph : Graph
    data : list of numpy.ndarray
        Calibration data, one array an input.

    Raises
    ------
    ModelError
        If what is encrypted would be integers that the client cannot encode, or a node moves the
        rows of the batch away from the first axis.
    """
    graph, grids = without_constant_nodes(graph)
    samples = dict(intermediate_values(graph, *(array[:1] for array in data)))
    # What ends or begins a model may be hidden in larger operators (a classifier).
    graph = expand(graph, samples, lambda node: "." in node.op and not ops.get(node.op).client)
    graph = with_encodings(graph, samples)
    head, graph = split_head(graph)
    body, tail = split_tail(graph)
    encodings: frozenset[str] = frozenset()
    if head is not None:
        inputs: tuple[Any, ...] = tuple(data)
        data = [np.asarray(array) for array in run_head(head, inputs)]
        encodings = frozenset(body.input_names) - frozenset(head.input_names)
    for info, array in zip(body.inputs, data, strict=True):
        if array.dtype.kind != "f" and info.name not in encodings:
            raise ModelError(
                f"the model declares its input {info.name!r} as {array.dtype}; inputs are "
                "quantized from floating-point values: declare it as float, and cast it in the "
                "model if need be"
            )
    if all(len(array) > 1 for array in data):
        check_batch_first(body, *(array[:2] for array in data))
    body = expand(body, samples)
    reals = [array.astype(np.float64) for array in data]
    return Parts(head, body, tail, reals, samples, encodings, grids=grids)
