"""Why a look-up is too wide: the layer whose integers it reads, and what they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cipherlearn.errors import LookupWidthError
from cipherlearn.quantization.base_quantized_op import QuantizedOp
from cipherlearn.quantization.quantized_array import QuantizedArray

Layers = Mapping[str, tuple[tuple[str, ...], QuantizedOp]]


@contextmanager
def naming_sources(layers: Layers, output: str) -> Iterator[None]:
    """Add to a `LookupWidthError` which layers its integers come from.

    Parameters
    ----------
    layers : mapping
        Output tensor -> (input tensors, quantized operator), in topological order.
    output : str
        The tensor that is being computed.
    """
    try:
        yield
    except LookupWidthError as error:
        raise with_sources(error, layers, output) from error


def with_sources(
    error: LookupWidthError, layers: Layers, output: str | None = None
) -> LookupWidthError:
    """The error with the layers that made the integers so wide.

    Parameters
    ----------
    error : LookupWidthError
    layers : mapping
    output : str, optional
        The tensor whose look-up it is. Default: that of the layer that the message names.
    """
    if output is None:
        named = [
            name for name, (_, op) in layers.items() if repr(op.op_instance_name) in str(error)
        ]
        if not named:
            return error
        output = named[-1]
    if output not in layers:
        return error
    told = ", ".join(_told(name, layers) for name in _sources(output, layers))
    return LookupWidthError(f"{error}. It reads the integers of {told}")


def _sources(output: str, layers: Layers) -> list[str]:
    """The tensors that hold the integers which a layer reads: inputs, or results of integers."""
    found: dict[str, None] = {}
    left = list(layers[output][0])[::-1]
    while left:
        name = left.pop()
        if name in layers and (layers[name][1].can_fuse() or layers[name][1].moves_elements()):
            left.extend(layers[name][0][::-1])
        else:
            found[name] = None
    return list(found)


def _told(name: str, layers: Layers) -> str:
    if name not in layers:
        return f"the input {name!r}"
    op = layers[name][1]
    constants = [c.n_bits for c in op.constant_inputs.values() if isinstance(c, QuantizedArray)]
    weights = f" and constants of {max(constants)} bits" if constants else ""
    return (
        f"the layer {op.op_instance_name!r} ({op.op_type()}), which computes them from operands of "
        f"{op.input_quant_opts.n_bits} bits{weights}"
    )
