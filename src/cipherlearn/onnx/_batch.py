"""Letting a graph that was traced with a fixed batch size run at any batch size.

Nothing is believed: a rewritten graph is kept only if it gives, row by row, the same results as the
original one on random data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from cipherlearn.errors import CipherlearnError
from cipherlearn.onnx import _edit
from cipherlearn.onnx._batch_axis import misplaced, with_batch_first
from cipherlearn.onnx._gather import gather_from_every_row
from cipherlearn.onnx.graph import Array, Graph, element_dtype, tensor_shapes
from cipherlearn.onnx.interpreter import execute
from cipherlearn.onnx.runtime import OnnxRuntimeModel
from cipherlearn.onnx.version import get_onnx_opset_version

Clean = Callable[[onnx.ModelProto], None]

_SEED: Final = 20240229
_ROWS: Final = 3
_MANY_ROWS: Final = 48
_AXIS: Final = "batch"
_RESIZE_HAS_AXES: Final = 18


def free_batch(model: onnx.ModelProto, clean: Clean) -> onnx.ModelProto:
    """Free the first axis of all inputs, where the model treats every row alike.

    Parameters
    ----------
    model : ModelProto
        Simplified model.
    clean : callable
        Simplifies a model in place without touching the batch axis.

    Returns
    -------
    ModelProto
        A model that takes any batch size; the given one when there is no such model.
    """
    sizes = _batch_sizes(model.graph)
    if sizes is None:
        return model
    size = max(sizes)
    model = _with_free_rows(model)
    static = _specialised(model, size or 1, clean)
    try:
        rows = Rows(static, size or 1)
    except CipherlearnError:
        return model
    plain = _with_free_axis(model)
    opened = _with_free_shapes(plain, static, size or 1)
    # What computes shapes is not wanted on encrypted values, even where it can be computed.
    preferred = len(opened.graph.node) < len(plain.graph.node)

    # A model that is declared for any batch size is only replaced by one that computes the same
    # at all of them: `x * x.shape[0]` must not become what it is for one row.
    def good(candidate: onnx.ModelProto) -> bool:
        promised = size != 0 or candidate is plain
        return rows.agree_with(candidate) and (promised or rows.same(model, candidate))

    candidates = (opened, plain) if preferred else (plain, opened)
    best = next((_declare_outputs(c, rows) for c in candidates if good(c)), model)
    # What was traced with some rows, and mixes more of them, may mean anything.
    if size and best is model:
        return model
    moved = _with_batch_first(model if best is model else best, plain, rows, clean)
    return _declare_outputs(moved, rows) if moved is not None and good(moved) else best


def _with_batch_first(
    model: onnx.ModelProto, plain: onnx.ModelProto, rows: Rows, clean: Clean
) -> onnx.ModelProto | None:
    """A candidate with the batch on all first axes; ``None`` where it is there, or cannot be."""
    try:
        if misplaced(Graph.from_model(model), rows.few(2)) is None:
            return None
    except CipherlearnError:
        # It takes one row only.
        pass
    single = _specialised(model, 1, clean)
    moved = with_batch_first(_with_free_shapes(plain, single, 1), single, rows.singles())
    if moved is not None:
        clean(moved)
    return moved


def _batch_sizes(graph: onnx.GraphProto) -> set[int] | None:
    """Sizes of the first axes of the inputs (0: symbolic); ``None`` where nothing can be freed."""
    sizes = set()
    for value in graph.input:
        tensor = value.type.tensor_type
        if not tensor.HasField("shape") or not tensor.shape.dim:
            return None
        if any(not d.HasField("dim_value") or d.dim_value < 1 for d in tensor.shape.dim[1:]):
            return None
        sizes.add(int(tensor.shape.dim[0].dim_value))
    fixed = sizes - {0}
    return sizes if sizes and len(fixed) <= 1 else None


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _specialised(model: onnx.ModelProto, size: int, clean: Clean) -> onnx.ModelProto:
    """Copy of a model for one batch size, in which shapes are constants."""
    static = _copy(model)
    for value in static.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = size
    for value in static.graph.output:
        value.type.tensor_type.ClearField("shape")
    clean(static)
    return static


def _with_free_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a model in which no Resize or GatherElements makes one row of any number of them.

    That is what tracing with one row leaves behind; it fails at no batch size, but takes one row.
    """
    free = _copy(model)
    gather_from_every_row(free)
    shapes = tensor_shapes(model)
    opset = get_onnx_opset_version(model)
    for node in free.graph.node:
        source = shapes.get(node.input[0]) if node.op_type == "Resize" else None
        if node.domain or not source or source[0] is not None or None in source[1:]:
            continue
        sizes = _edit.constants(free.graph, node.input[3:]).get(node.input[-1])
        if sizes is not None and sizes.size and sizes[0] == 1:
            _free_resize(free.graph, node, sizes, [1, *source[1:]], opset)
    return free


def _static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors whose axes are all known."""
    return {
        name: tuple(size for size in shape if size is not None)
        for name, shape in tensor_shapes(model).items()
        if None not in shape
    }


def _with_free_axis(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a model whose declared shapes leave the batch size open."""
    free = _copy(model)
    first_axes = [value.type.tensor_type.shape.dim[0] for value in free.graph.input]
    name = next((axis.dim_param for axis in first_axes if axis.dim_param), _AXIS)
    for axis in first_axes:
        if not axis.dim_param:
            axis.dim_param = name
    for value in free.graph.output:
        tensor = value.type.tensor_type
        if tensor.shape.dim and not tensor.shape.dim[0].dim_param:
            tensor.shape.dim[0].Clear()
    del free.graph.value_info[:]
    return free


def _declare_outputs(free: onnx.ModelProto, rows: Rows) -> onnx.ModelProto:
    """Declare the first axes of the outputs as they turned out to be (in place)."""
    name = free.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value, (at_count, at_one) in zip(free.graph.output, rows.first_axes, strict=True):
        tensor = value.type.tensor_type
        if not tensor.shape.dim or tensor.shape.dim[0].dim_param:
            continue
        if at_count == at_one:
            tensor.shape.dim[0].dim_value = at_one
        elif at_count == rows.count and at_one == 1:
            tensor.shape.dim[0].dim_param = name
    return free


def _with_free_shapes(free: onnx.ModelProto, static: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """Copy of ``free`` with the nodes of ``static``, in which no shape fixes the first axis."""
    result = _copy(free)
    graph = result.graph
    del graph.node[:], graph.initializer[:]
    graph.node.extend(static.graph.node)
    graph.initializer.extend(static.graph.initializer)
    shapes = _static_shapes(static)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.domain or not node.input or node.input[-1] not in constants:
            continue
        given = constants[node.input[-1]]
        if node.op_type == "Reshape":
            target = _open_target(given, shapes.get(node.output[0]), size)
            if target is not None and 0 in target:
                _edit.set_attribute(node, "allowzero")
        elif node.op_type == "Expand":
            target = _open_expansion(given, shapes.get(node.input[0]), size)
        elif node.op_type == "Resize":
            opset = get_onnx_opset_version(free)
            _free_resize(graph, node, given, shapes.get(node.input[0]), opset)
            continue
        else:
            continue
        if target is not None and not np.array_equal(target, given):
            node.input[1] = _edit.add_constant(graph, f"{node.input[1]}_any_batch", target)
    _edit.remove_dead(graph)
    return result


def _open_target(target: Array, output: Sequence[int] | None, size: int) -> Array | None:
    """Target of a Reshape whose first entry follows the batch; ``None`` where there is none."""
    if target.size == 0:
        return None
    opened = target.copy()
    if output is not None:
        # All axes are known: spell them out, and leave the first one to be worked out.
        opened[:] = output
        opened[0] = -1
        return None if 0 in opened else opened
    if -1 not in target[1:]:
        opened[0] = -1
        return opened
    # The place of the -1 is taken: copy the first axis, which may be the batch on both sides.
    if target[0] != size or 0 in target[1:]:
        return None
    opened[0] = 0
    return opened


def _open_expansion(target: Array, source: Sequence[int] | None, size: int) -> Array | None:
    """Target of an Expand that keeps the first axis of a value which has the batch there."""
    if source is None or len(source) != target.size or target.size == 0:
        return None
    opened = target.copy()
    if source[0] == target[0] == size:
        opened[0] = 1
    return opened


def _free_resize(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    sizes: Array,
    source: Sequence[int | None] | None,
    opset: int,
) -> None:
    """Let a Resize to given sizes leave the first axis as it is (in place)."""
    chosen = {item.name: item for item in node.attribute}
    policy = chosen.pop("keep_aspect_ratio_policy", None)
    kept = policy is not None and policy.s != b"stretch"
    if len(node.input) != 4 or kept or "axes" in chosen:
        return
    if source is None or len(source) != sizes.size or source[0] != sizes[0]:
        return
    if opset >= _RESIZE_HAS_AXES:
        _edit.set_attribute(node, "axes", list(range(1, sizes.size)))
        node.input[3] = _edit.add_constant(graph, f"{node.input[3]}_but_first", sizes[1:])
        return
    extents = np.asarray(source, dtype=np.float64)
    scales = np.divide(sizes, extents, dtype=np.float32)
    # The sizes are worked out by rounding down.
    scales = np.where(scales * extents < sizes, np.nextafter(scales, np.inf), scales)
    operands = [*node.input[:2], _edit.add_constant(graph, f"{node.input[3]}_scales", scales)]
    del node.input[:]
    node.input.extend(operands)


class Rows:
    """Random rows, and what a model for one batch size makes of them.

    Parameters
    ----------
    static : ModelProto
        Model for batches of ``size`` rows.
    size : int
        Its batch size.

    Attributes
    ----------
    count : int
        Number of rows.
    first_axes : list of tuple of int
        Size of the first axis of each output of the last candidate, on all rows and on one row
        (0 where there is no axis).
    """

    def __init__(self, static: onnx.ModelProto, size: int) -> None:
        self.first_axes: list[tuple[int, int]] = []
        self._draw(static, size, _ROWS)
        if not all(map(_tells_rows_apart, self._expected)):
            # Thresholds give most rows the same result, which mixed up rows would have as well.
            self._draw(static, size, _MANY_ROWS)

    def _draw(self, static: onnx.ModelProto, size: int, least: int) -> None:
        """Draw at least so many rows, and compute what the model makes of them."""
        self.count = size * math.ceil(least / size)
        generator = np.random.default_rng(_SEED)
        known = _float_constants(static) if least > _ROWS else np.zeros(0)
        self._data = [
            _random_rows(value, self.count, generator, known) for value in static.graph.input
        ]
        starts = range(0, self.count, size)
        self._expected = self._run(static, [(start, start + size) for start in starts])

    def few(self, count: int) -> list[Array]:
        """So many rows of each input."""
        return [array[:count] for array in self._data]

    def singles(self) -> list[list[Array]]:
        """The rows one by one."""
        return [[array[row : row + 1] for array in self._data] for row in range(self.count)]

    def _run(self, model: onnx.ModelProto, spans: list[tuple[int, int]]) -> list[list[Array]]:
        """Run a model on spans of the rows: one list per output, with one array per span."""
        graph = Graph.from_model(model)
        parts = [execute(graph, *(array[a:b] for array in self._data)) for a, b in spans]
        return [list(column) for column in zip(*parts, strict=True)]

    def agree_with(self, candidate: onnx.ModelProto) -> bool:
        """Tell whether a model gives the expected results, at several batch sizes alike.

        Parameters
        ----------
        candidate : ModelProto
            Model to try.

        Returns
        -------
        bool
        """
        singles = [(row, row + 1) for row in range(_ROWS)]
        rest = [(_ROWS, self.count)] if self.count > _ROWS else []
        try:
            outputs = self._run(candidate, [(0, self.count), (0, _ROWS), *rest, *singles])
        except CipherlearnError:
            return False
        self.first_axes = [
            (len(column[0]) if column[0].ndim else 0, len(column[-1]) if column[-1].ndim else 0)
            for column in outputs
        ]
        cut = 2 + len(rest)
        return all(
            _joins(expected, column[0])
            and _joins(column[1:cut], column[0])
            and _joins(column[cut:], column[1])
            for expected, column in zip(self._expected, outputs, strict=True)
        )

    def same(self, model: onnx.ModelProto, candidate: onnx.ModelProto) -> bool:
        """Tell whether two models compute the same on all rows at once.

        Parameters
        ----------
        model, candidate : ModelProto
            Models to compare; the operators of the first need not be registered.

        Returns
        -------
        bool
        """
        try:
            run = OnnxRuntimeModel(model)
            declared = [info.dtype for info in run.graph.inputs]
            data = [array.astype(d) for array, d in zip(self._data, declared, strict=True)]
            run(*(array[:1] for array in data))
        except CipherlearnError:
            return False
        try:
            expected = run(*data)
        except CipherlearnError:
            # It promises any batch size and takes one row only: that promise can be kept now.
            return True
        return all(map(_close, expected, execute(candidate, *data)))


def _random_rows(
    value: onnx.ValueInfoProto, count: int, generator: np.random.Generator, known: Array
) -> Array:
    """Draw rows for one input: floats of both signs, then positive ones, then ones below 1.

    Where the model's own constants are given, half of the rows are made of numbers close to them.
    """
    tensor = value.type.tensor_type
    dtype = element_dtype(tensor.elem_type) or np.dtype(np.float64)
    shape = (count, *(dimension.dim_value for dimension in tensor.shape.dim[1:]))
    if dtype.kind != "f":
        return generator.integers(0, 2, size=shape).astype(dtype)
    rows = generator.normal(size=shape)
    # Logarithms, roots and inverse functions need arguments of their own to say anything.
    rows[1::3] = np.abs(rows[1::3])
    rows[2::3] = generator.uniform(0.1, 0.9, size=rows[2::3].shape)
    if known.size:
        near = generator.choice(known, size=rows[::2].shape)
        rows[::2] = near * generator.uniform(0.5, 1.5, size=near.shape)
    return rows


def _float_constants(model: onnx.ModelProto) -> Array:
    """All finite numbers in the constants of a model."""
    arrays = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    numbers = [array.reshape(-1).astype(np.float64) for array in arrays if array.dtype.kind == "f"]
    joined = np.concatenate([np.zeros(0), *numbers])
    return joined[np.isfinite(joined)]


def _tells_rows_apart(column: list[Array]) -> bool:
    """Tell whether different rows gave different results, so that it shows where each came from."""
    flat = [row.tobytes() for part in column for row in (part if part.ndim else part[np.newaxis])]
    return len(set(flat)) == len(flat)


def _joins(parts: list[Array], whole: Array) -> bool:
    """Tell whether parts follow each other in a whole, or are the whole each (a constant)."""
    if all(_close(part, whole) for part in parts):
        return True
    if whole.ndim == 0 or any(part.shape[1:] != whole.shape[1:] for part in parts):
        return False
    return _close(np.concatenate(parts), whole)


def _close(left: Array, right: Array) -> bool:
    """Compare two arrays, up to the rounding of matrix products."""
    if left.shape != right.shape:
        return False
    if left.dtype.kind != "f" or right.dtype.kind != "f":
        return bool(np.array_equal(left, right))
    exact = left.dtype == right.dtype == np.float64
    finite = np.abs(right[np.isfinite(right)])
    scale = float(finite.max(initial=1.0))
    tolerance = 1e-9 if exact else 1e-4
    return bool(np.allclose(left, right, rtol=tolerance, atol=tolerance * scale, equal_nan=True))
