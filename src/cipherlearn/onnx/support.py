"""Which operators of a model are supported: all offenders at once."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import inliner

from cipherlearn import ops
from cipherlearn.errors import ModelError, UnsupportedAttributeError, UnsupportedOperatorError
from cipherlearn.onnx._alternatives import alternative
from cipherlearn.onnx.graph import Array, node_attributes, unique_node_names
from cipherlearn.onnx.version import get_onnx_opset_version
from cipherlearn.ops import NEWEST_OPSET, qualified_name

_SHOWN_NODES = 5


def check_supported(model: onnx.ModelProto) -> None:
    """Check that every operator of a model is supported, in the way that it is used.

    Simplify the model first: constants are then folded, and functions replaced by their nodes.

    Parameters
    ----------
    model : ModelProto
        Model to check.

    Raises
    ------
    UnsupportedOperatorError
        When operators are not registered. The message lists all of them with their nodes, and the
        operators that are supported.
    UnsupportedAttributeError
        When operators are registered but used in a way that is not supported; all of them are
        listed.
    """
    model = inline_functions(model)
    nodes = list(model.graph.node)
    node_names = unique_node_names(nodes)
    missing: dict[str, list[str]] = {}
    problems: list[str] = []
    for name, node in zip(node_names, nodes, strict=True):
        op = qualified_name(node.domain, node.op_type)
        if op not in ops.ONNX_OPS_TO_NUMPY_IMPL:
            missing.setdefault(op, []).append(name)
        else:
            message = attribute_problem(node, model)
            if message is not None:
                problems.append(f"- node {name!r} ({op}): {message}")
    unsupported = "Used in a way that is not supported:\n" + "\n".join(problems)
    if missing:
        tail = f"\n{unsupported}" if problems else ""
        raise UnsupportedOperatorError(
            f"The model uses operators that are not supported:\n{_listed(missing)}\n"
            f"{ops.supported_sentence()}{tail}"
        )
    if problems:
        raise UnsupportedAttributeError(unsupported)


def attribute_problem(node: onnx.NodeProto, model: onnx.ModelProto) -> str | None:
    """Say what is not supported in the attributes and constant operands of a registered node.

    Parameters
    ----------
    node : NodeProto
        Node of a registered operator.
    model : ModelProto
        Model that it belongs to.

    Returns
    -------
    str or None
        Message; ``None`` when there is nothing to say.
    """
    op = ops.get(qualified_name(node.domain, node.op_type))
    try:
        attributes = node_attributes(node)
    except UnsupportedAttributeError as error:
        return str(error)
    if op.check is None:
        return None
    signature = op.signature(get_onnx_opset_version(model))
    operands = {
        signature.operand(position).name: array
        for position, name in enumerate(node.input)
        if (array := _constant(model, name)) is not None
    }
    return op.check({**operands, **attributes})


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace calls of a model's own functions by the nodes of those functions.

    Parameters
    ----------
    model : ModelProto
        Any model; it is not changed.

    Returns
    -------
    ModelProto
        The same model when it has no functions.

    Raises
    ------
    ModelError
        When a function cannot be inlined.
    """
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model, convert_version=True)
    except Exception as error:
        # The inliner raises whatever its native code meets.
        raise ModelError(f"The functions of the model cannot be inlined: {error}") from error


def refuse_unknown_operators(model: onnx.ModelProto) -> None:
    """Refuse a model with standard operators that the installed ``onnx`` has never heard of.

    Parameters
    ----------
    model : ModelProto
        Any model.

    Raises
    ------
    UnsupportedOperatorError
        When there are such operators; all of them are listed.
    """
    opset = get_onnx_opset_version(model)
    local = {(function.domain, function.name) for function in model.functions}
    missing: dict[str, list[str]] = {}
    nodes = list(model.graph.node)
    for name, node in zip(unique_node_names(nodes), nodes, strict=True):
        standard = node.domain in ("", "ai.onnx") and (node.domain, node.op_type) not in local
        if standard and not onnx.defs.has(node.op_type, min(opset, NEWEST_OPSET), ""):
            missing.setdefault(node.op_type, []).append(name)
    if missing:
        raise UnsupportedOperatorError(
            f"The model uses operators that operator set {opset} does not have:\n"
            f"{_listed(missing)}\n{ops.supported_sentence()}"
        )


def _listed(missing: dict[str, list[str]]) -> str:
    return "\n".join(
        f"- {op}: {_nodes_sentence(names)}{_advice(op)}" for op, names in sorted(missing.items())
    )


def _advice(op: str) -> str:
    known = alternative(op)
    return f" ({known})" if known else ""


def _nodes_sentence(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(map(repr, names[:_SHOWN_NODES]))
    more = len(names) - _SHOWN_NODES
    return f"node {shown}" if more <= 0 else f"nodes {shown} and {more} more"


def _constant(model: onnx.ModelProto, name: str) -> Array | None:
    """Value of an initializer, or of a Constant node that holds a tensor."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return onnx.numpy_helper.to_array(tensor)
    for node in model.graph.node:
        if node.op_type == "Constant" and name in node.output:
            tensors = [item.t for item in node.attribute if item.HasField("t")]
            return onnx.numpy_helper.to_array(tensors[0]) if tensors else None
    return None
