"""What an operator takes and gives: its operands and attributes, from a single source.

Standard operators are described by ONNX's own schemas; a user's operator by the signature of its
Python function: parameters before ``/`` are required inputs, parameters between ``/`` and ``*`` are
optional inputs, keyword-only parameters are attributes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import onnx
import onnx.defs

from cipherlearn.errors import InvalidParameterError, UnsupportedOperatorError

NEWEST_OPSET: Final[int] = onnx.defs.onnx_opset_version()
"""The newest operator set that the installed ``onnx`` knows."""

OLDEST_OPSET: Final[int] = 13
"""The oldest operator set that is evaluated as it is; older ones are converted up."""

ML_DOMAIN: Final = "ai.onnx.ml"
"""Domain of the operators of classical machine learning."""

_NEWEST_ML_VERSION: Final = max(
    schema.since_version for schema in onnx.defs.get_all_schemas() if schema.domain == ML_DOMAIN
)
_AttrType = onnx.AttributeProto


class _Required:
    """Marks an attribute that has no default."""

    def __repr__(self) -> str:
        return "REQUIRED"

    def __reduce__(self) -> str:
        return "REQUIRED"  # copies are this one


REQUIRED: Final = _Required()
"""Default of an attribute that must be given."""


@dataclass(frozen=True)
class Operand:
    """One input of an operator.

    Attributes
    ----------
    name : str
        Name in the schema, or of the Python parameter.
    required : bool
        Whether it must be given.
    variadic : bool
        Whether any number of further inputs may follow it (only the last operand).
    group : str or None
        Operands of one group share one dtype. ``None``: any dtype of its own.
    types : frozenset of str
        ONNX names of the accepted types, such as ``"tensor(float)"``. Empty: anything.
    """

    name: str
    required: bool
    variadic: bool = False
    group: str | None = None
    types: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Attribute:
    """One attribute of an operator.

    Attributes
    ----------
    name : str
        Name of the attribute.
    default : Any
        Value used when it is not given: ``REQUIRED`` when there is none, ``None`` when the
        operator has a behaviour of its own for a missing attribute.
    kind : int or None
        Member of ``onnx.AttributeProto.AttributeType``; ``None`` for a user's own operator.
    """

    name: str
    default: Any
    kind: int | None = None


@dataclass(frozen=True)
class Signature:
    """Operands and attributes of an operator at one operator set.

    Attributes
    ----------
    name : str
        Qualified name of the operator.
    inputs : tuple of Operand
        Inputs, in order.
    attributes : mapping of str to Attribute
        Attributes by name.
    n_outputs : int
        Number of outputs that the operator declares.
    since_version : int
        Operator set that this signature comes from (0 for a user's own operator).
    added : frozenset of str
        Names of the attributes that only this package knows.
    """

    name: str
    inputs: tuple[Operand, ...]
    attributes: Mapping[str, Attribute]
    n_outputs: int = 1
    since_version: int = 0
    added: frozenset[str] = frozenset()

    def __getstate__(self) -> dict[str, Any]:
        # A read-only view of a dictionary cannot be stored.
        return {**vars(self), "attributes": dict(self.attributes)}

    @property
    def declared(self) -> frozenset[str]:
        """Names of the attributes that the schema itself has."""
        return frozenset(self.attributes) - self.added

    @property
    def defaults(self) -> dict[str, Any]:
        """Values of the attributes that need not be given and have one."""
        return {
            name: attribute.default
            for name, attribute in self.attributes.items()
            if attribute.default is not None and attribute.default is not REQUIRED
        }

    @property
    def variadic(self) -> bool:
        """Whether the last input may be repeated."""
        return bool(self.inputs) and self.inputs[-1].variadic

    @property
    def min_inputs(self) -> int:
        """Smallest number of inputs."""
        return sum(operand.required for operand in self.inputs)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(operand.name for operand in self.inputs)

    def operand(self, position: int) -> Operand:
        """Return the operand at an input position, seeing through variadic inputs.

        Parameters
        ----------
        position : int
            Position of the input, from 0.

        Returns
        -------
        Operand

        Raises
        ------
        InvalidParameterError
            When the operator has no input there.
        """
        if 0 <= position < len(self.inputs):
            return self.inputs[position]
        if self.variadic and position >= 0:
            return self.inputs[-1]
        raise InvalidParameterError(
            f"{self.name} has no input number {position}: it takes {len(self.inputs)}"
            f" ({', '.join(self.input_names)})."
        )


def split_name(name: str) -> tuple[str, str]:
    """Split a qualified operator name into its domain and its type.

    Parameters
    ----------
    name : str
        ``"Relu"`` for a standard operator, ``"my.domain.Op"`` for any other.

    Returns
    -------
    tuple of str
        Domain (``""`` for the standard one) and type.
    """
    domain, _, op_type = name.rpartition(".")
    return domain, op_type


def qualified_name(domain: str, op_type: str) -> str:
    """Return the name under which an operator is registered.

    Parameters
    ----------
    domain : str
        Domain of the node; ``"ai.onnx"`` is another spelling of the standard domain.
    op_type : str
        Type of the node.

    Returns
    -------
    str
        ``op_type`` in the standard domain, ``"domain.op_type"`` elsewhere.
    """
    return op_type if domain in ("", "ai.onnx") else f"{domain}.{op_type}"


def schema_exists(name: str, opset: int = NEWEST_OPSET) -> bool:
    """Tell whether ONNX itself defines an operator at an operator set."""
    domain, op_type = split_name(name)
    if domain not in ("", ML_DOMAIN):
        return False
    return bool(onnx.defs.has(op_type, domain_version(domain, opset), domain))


def domain_version(domain: str, opset: int = NEWEST_OPSET) -> int:
    """Version of a domain's operators that goes with a version of the standard domain.

    Parameters
    ----------
    domain : str
        ``""``, or the domain of operators of classical machine learning, of which the newest
        version is always taken: its later versions only add to the earlier ones.
    opset : int, default NEWEST_OPSET
        Operator set of the standard domain.

    Returns
    -------
    int
    """
    return _NEWEST_ML_VERSION if domain == ML_DOMAIN else opset


@functools.lru_cache(maxsize=1024)
def of_schema(name: str, opset: int = NEWEST_OPSET) -> Signature:
    """Signature of a standard operator.

    Parameters
    ----------
    name : str
        Name of the operator, such as ``"Clip"``.
    opset : int, default NEWEST_OPSET
        Operator set of the model that uses it.

    Returns
    -------
    Signature

    Raises
    ------
    UnsupportedOperatorError
        When ONNX has no such operator at that operator set.
    """
    if not schema_exists(name, opset):
        since = f" (it came later: {_first_version(name)})" if schema_exists(name) else ""
        raise UnsupportedOperatorError(f"Operator set {opset} has no operator {name!r}{since}.")
    domain, op_type = split_name(name)
    schema = onnx.defs.get_schema(op_type, domain_version(domain, opset), domain)
    types = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    option = onnx.defs.OpSchema.FormalParameterOption
    inputs = tuple(
        Operand(
            name=formal.name,
            required=formal.option == option.Single,
            variadic=formal.option == option.Variadic,
            group=formal.type_str if formal.is_homogeneous else None,
            types=types.get(formal.type_str, frozenset({formal.type_str})),
        )
        for formal in schema.inputs
    )
    attributes = {key: _schema_attribute(key, value) for key, value in schema.attributes.items()}
    added = _added_attributes(schema)
    return Signature(
        name=name,
        inputs=inputs,
        attributes=MappingProxyType({**attributes, **added}),
        n_outputs=len(schema.outputs),
        since_version=schema.since_version,
        added=frozenset(added),
    )


def _first_version(name: str) -> int:
    known = onnx.defs.get_all_schemas_with_history()
    return min(s.since_version for s in known if (s.domain, s.name) == split_name(name))


def _added_attributes(schema: Any) -> dict[str, Attribute]:
    """Let all versions of Split say how many parts there are, as its newest one does.

    The older ones leave it to the number of outputs of the node, which a call does not know.
    """
    if schema.name != "Split" or "num_outputs" in schema.attributes:
        return {}
    return {"num_outputs": Attribute("num_outputs", None, int(_AttrType.INT))}


def _schema_attribute(name: str, attribute: Any) -> Attribute:
    kind = int(attribute.type.value)
    if attribute.required:
        return Attribute(name, REQUIRED, kind)
    value = attribute.default_value
    # Type 0 is "undefined": the schema leaves the meaning of a missing attribute to the operator.
    if value.type == _AttrType.UNDEFINED or (
        value.type == _AttrType.TENSOR and value.t.data_type == onnx.TensorProto.UNDEFINED
    ):
        return Attribute(name, None, kind)
    default = onnx.helper.get_attribute_value(value)
    return Attribute(name, default.decode() if isinstance(default, bytes) else default, kind)


def of_function(name: str, function: Callable[..., Any]) -> Signature:
    """Signature of a user's own operator, read off its Python function.

    Parameters
    ----------
    name : str
        Qualified name of the operator.
    function : callable
        Required inputs before ``/``, optional inputs between ``/`` and ``*`` (with ``None`` as
        their default), attributes after ``*``.

    Returns
    -------
    Signature

    Raises
    ------
    InvalidParameterError
        When the function does not follow that convention.
    """
    inputs: list[Operand] = []
    attributes: dict[str, Attribute] = {}
    empty = inspect.Parameter.empty
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidParameterError(
                f"The function of {name!r} has a parameter {str(parameter)!r}: name every input"
                " and every attribute, as in `def f(x, /, optional=None, *, attribute=1.0)`."
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            default = REQUIRED if parameter.default is empty else parameter.default
            attributes[parameter.name] = Attribute(parameter.name, default)
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            inputs.append(Operand(parameter.name, required=parameter.default is empty))
        elif parameter.default is empty:
            raise InvalidParameterError(
                f"The function of {name!r} has the input {parameter.name!r} after the `/` and"
                " without a default. Required inputs stand before a `/`, optional inputs after it"
                " have the default None, as in `def f(x, /, optional=None, *, attribute=1.0)`."
            )
        else:
            inputs.append(Operand(parameter.name, required=False))
    return Signature(name, tuple(inputs), MappingProxyType(attributes))
