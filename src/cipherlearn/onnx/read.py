"""Reading model files, and refusing what is not a complete model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import checker, version_converter
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from cipherlearn.errors import InvalidTypeError, ModelError, ModelFormatError
from cipherlearn.onnx._edit import inner_graphs
from cipherlearn.onnx._hardmax import with_flat_hardmax
from cipherlearn.onnx.support import refuse_unknown_operators
from cipherlearn.onnx.version import get_onnx_opset_version
from cipherlearn.ops import NEWEST_OPSET, OLDEST_OPSET

ModelSource = onnx.ModelProto | bytes | str | os.PathLike[str]

MAX_MESSAGE_BYTES = 2**31 - 1
"""Size beyond which a model does not fit into one protobuf message."""

_OLDEST_CONVERTIBLE = 7
# Every serialized model starts with this byte: the tag of its first field, the format version.
_FIRST_BYTE = b"\x08"


def load_model(source: ModelSource) -> onnx.ModelProto:
    """Read a model, check it and bring it to an operator set that is understood.

    Parameters
    ----------
    source : ModelProto, bytes, str or path
        A model in memory, the content of a file, or the path of a file. External data is looked
        for beside the file.

    Returns
    -------
    ModelProto
        Complete and valid, at operator set 13 or newer, without external data. A ``ModelProto``
        that is all of this already comes back as it is; it is never changed.

    Raises
    ------
    InvalidTypeError
        When ``source`` is none of these.
    ModelFormatError
        When it is not an ONNX model, is truncated or empty, does not exist, refers to external data
        that is missing, or has no outputs.
    UnsupportedOperatorError
        When it uses standard operators that the installed ``onnx`` does not know.
    ModelError
        When its operator set is too old or too new, or the model breaks the rules of ONNX.
    """
    if isinstance(source, onnx.ModelProto):
        model, where, folder = source, "The model", None
    elif isinstance(source, bytes):
        model, where, folder = _parse(source, "The given bytes"), "The model", None
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        where = f"The file {str(path)!r}"
        model, folder = _parse(_read_bytes(path), where), path.parent
    else:
        raise InvalidTypeError(
            "A model is an onnx.ModelProto, the bytes of an ONNX file or the path of one, not"
            f" {type(source).__name__}."
        )
    _check_structure(model, where)
    model = _with_short_domain(model)
    _load_external_data(model, folder)
    refuse_unknown_operators(model)
    _check_valid(model, where)
    return _convert_old(model, where)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelFormatError(f"There is no file {str(path)!r}.") from error
    except OSError as error:
        raise ModelFormatError(f"{str(path)!r} cannot be read: {error.strerror}.") from error


def _parse(content: bytes, where: str) -> onnx.ModelProto:
    if not content:
        raise ModelFormatError(f"{where} is empty, not an ONNX model.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        if content.startswith(_FIRST_BYTE):
            raise ModelFormatError(
                f"{where} starts like an ONNX model but is truncated or damaged."
                " Save or download it again."
            ) from error
        raise ModelFormatError(_not_onnx(where)) from error
    return model


def _not_onnx(where: str) -> str:
    return f"{where} is not an ONNX model (a binary file, usually named `*.onnx`)."


def _check_structure(model: onnx.ModelProto, where: str) -> None:
    """Refuse what parses without being a model."""
    if not model.HasField("graph"):
        if model.ir_version and model.opset_import:
            raise ModelFormatError(f"{where} holds no graph: it is truncated or incomplete.")
        raise ModelFormatError(_not_onnx(where))
    if not model.opset_import:
        raise ModelFormatError(
            f"{where} does not name its operator set: it is truncated or was not written whole."
        )
    if not model.graph.output:
        raise ModelFormatError(f"{where} has no outputs: it is incomplete.")
    if model.graph.sparse_initializer:
        names = ", ".join(repr(item.values.name) for item in model.graph.sparse_initializer)
        raise ModelError(f"{where} has sparse constants ({names}): export them as dense tensors.")
    opset = get_onnx_opset_version(model)
    if not _OLDEST_CONVERTIBLE <= opset <= NEWEST_OPSET:
        change = (
            "Install a newer `onnx`, or export the model with an older operator set."
            if opset > NEWEST_OPSET
            else "Export the model again with a newer operator set."
        )
        raise ModelError(f"{where} uses {_opset_message(opset)} {change}")


def _opset_message(opset: int) -> str:
    return (
        f"operator set {opset}. Accepted: {OLDEST_OPSET} to {NEWEST_OPSET} (and"
        f" {_OLDEST_CONVERTIBLE} to {OLDEST_OPSET - 1} where they can be converted)."
    )


def _with_short_domain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write the standard domain as ``""``: few tools know its other name, ``"ai.onnx"``."""
    if all(entry.domain != "ai.onnx" for entry in model.opset_import):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for holder in (copy, *copy.functions):
        for entry in holder.opset_import:
            entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    for node in (*_nodes(copy.graph), *(n for f in copy.functions for n in f.node)):
        node.domain = "" if node.domain == "ai.onnx" else node.domain
    return copy


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of a graph, in inner graphs too."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every constant tensor of a graph, in nodes and inner graphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in inner_graphs(node):
            yield from _tensors(inner)


def _load_external_data(model: onnx.ModelProto, folder: Path | None) -> None:
    """Read tensors that live in files beside the model (in place)."""
    external = [tensor for tensor in _tensors(model.graph) if uses_external_data(tensor)]
    if not external:
        return
    if folder is None:
        listed = ", ".join(sorted({_external_entries(tensor)["location"] for tensor in external}))
        raise ModelFormatError(
            f"The tensor {external[0].name!r} is stored outside the model, in {listed}, and there"
            " is no folder to look in. Give the path of the model file instead."
        )
    for tensor in external:
        _check_external(tensor, folder)
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, checker.ValidationError) as error:
            raise ModelFormatError(
                f"The external data of the tensor {tensor.name!r} cannot be read: {error}"
            ) from error
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _external_entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {"location": "", **{entry.key: entry.value for entry in tensor.external_data}}


def _check_external(tensor: onnx.TensorProto, folder: Path) -> None:
    entries = _external_entries(tensor)
    path = folder / entries["location"]
    what = f"The external data file {entries['location']!r} of the tensor {tensor.name!r}"
    # A model may come from anywhere: it must not make us read files outside its own folder.
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelFormatError(f"{what} lies outside the folder of the model.")
    if not path.is_file():
        raise ModelFormatError(f"{what} is missing in {str(folder)!r}.")
    try:
        needed = int(entries.get("offset", 0)) + int(entries.get("length", 0))
    except ValueError as error:
        raise ModelFormatError(f"{what} is said to start or end nowhere: {error}.") from error
    size = path.stat().st_size
    if size < needed:
        raise ModelFormatError(f"{what} is truncated: {size} of at least {needed} bytes are there.")


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose inputs and outputs all have a shape, for the checker only.

    It insists on one, even where it says nothing; runtimes do not, and nor do we.
    """
    tensor_types = [
        value.type.tensor_type
        for value in (*model.graph.input, *model.graph.output)
        if value.type.HasField("tensor_type")
    ]
    if all(tensor_type.HasField("shape") for tensor_type in tensor_types):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    return copy


def _check_valid(model: onnx.ModelProto, where: str) -> None:
    model = _with_shapes(model)
    try:
        if model.ByteSize() <= MAX_MESSAGE_BYTES:
            checker.check_model(model)
            return
        # The checker takes larger models by path only, with their tensors beside them.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            onnx.save_model(copy, path, save_as_external_data=True, location="weights.bin")
            checker.check_model(str(path))
    except checker.ValidationError as error:
        raise ModelError(f"{where} is not a valid ONNX model: {error}") from error


def _convert_old(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    opset = get_onnx_opset_version(model)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(with_flat_hardmax(model), OLDEST_OPSET)
    except Exception as error:
        # The converter raises whatever its native code meets.
        raise ModelError(
            f"{where} uses {_opset_message(opset)} This one could not be converted: {error}."
            f" Export it again with an operator set from {OLDEST_OPSET} on."
        ) from error
