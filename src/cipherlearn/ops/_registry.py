"""The one place where operators are known: name, kind, NumPy meaning, restrictions.

A family of operators is one file of this package; files are found by name, so adding an operator
touches one file. Users add operators of their own with :func:`register_numpy`.
"""

from __future__ import annotations

import enum
import functools
import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cipherlearn.errors import (
    InvalidParameterError,
    InvalidTypeError,
    UnsupportedOperatorError,
)
from cipherlearn.ops import _reference, _signature
from cipherlearn.ops._expand import Expand
from cipherlearn.ops._integer import IntegerForm
from cipherlearn.ops._operands import Array, prepare
from cipherlearn.ops._reference import Check, NumpyFunction
from cipherlearn.ops._signature import NEWEST_OPSET, Signature


class Kind(enum.Enum):
    """What an operator does with encrypted values."""

    ELEMENTWISE = "elementwise"
    """Each output element depends on one element of each input: one table look-up."""

    MOVEMENT = "movement"
    """Elements are only put elsewhere: free on encrypted values."""

    MIXING = "mixing"
    """Output elements combine several elements: has an integer form of its own."""

    CONSTANT = "constant"
    """The output never depends on encrypted values."""


@dataclass(frozen=True)
class Op:
    """One operator.

    Attributes
    ----------
    name : str
        ``"Relu"``, or ``"my.domain.Op"`` outside the standard domain.
    kind : Kind
        What it does with encrypted values.
    numpy : callable
        ``(*inputs, opset=NEWEST_OPSET, **attributes) -> tuple of ndarray``. Inputs are arrays or
        ``None``. Computes in float64 when given float64, in float32 when given float32, and never
        warns: infinities and NaN are legal results.
    raw_inputs : frozenset of int
        Positions of inputs that are always clear (shapes, axes, types to imitate).
    check : callable or None
        Given the attributes, and the operands that are constants under their schema names, returns
        a message when that combination is not supported, ``None`` otherwise.
    integer : IntegerForm or None
        Integer form on quantized values; only operators that mix encrypted values have one.
    expand : callable or None
        Writes the operator with simpler ones, where it has no integer form and is not a function of
        one encrypted value, element by element: see `cipherlearn.ops._expand`.
    client : bool
        Whether the client computes it, after decryption, where nothing but cheap operators follow
        (a softmax at the end of a network).
    encoding : bool
        Whether the client computes it before encryption, where it is a public function of an input.
    function : callable or None
        The plain function of an operator that ONNX does not describe.
    is_own : bool
        Whether a user added the operator.
    """

    name: str
    kind: Kind
    numpy: NumpyFunction
    raw_inputs: frozenset[int] = frozenset()
    check: Check | None = None
    integer: IntegerForm | None = None
    expand: Expand | None = None
    client: bool = False
    encoding: bool = False
    function: Callable[..., Any] | None = None
    is_own: bool = False

    def signature(self, opset: int = NEWEST_OPSET) -> Signature:
        """Inputs and attributes of the operator.

        Parameters
        ----------
        opset : int, default NEWEST_OPSET
            Operator set of the model (irrelevant for operators that ONNX does not describe).

        Returns
        -------
        Signature
        """
        if self.function is not None:
            return _signature.of_function(self.name, self.function)
        return _signature.of_schema(self.name, opset)


_OPS: Final[dict[str, Op]] = {}
_UNAVAILABLE: Final[set[str]] = set()
_LOCK: Final = threading.RLock()


@functools.cache
def _load_families() -> None:
    package = importlib.import_module("cipherlearn.ops")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"cipherlearn.ops.{module.name}")


def _known() -> dict[str, Op]:
    with _LOCK:
        _load_families()
    return _OPS


def register(
    *op_names: str,
    kind: Kind = Kind.ELEMENTWISE,
    raw_inputs: Iterable[int] = (),
    check: Check | None = None,
    integer: IntegerForm | None = None,
    expand: Expand | None = None,
    client: bool = False,
    encoding: bool = False,
) -> None:
    """Register standard operators; their NumPy meaning comes from ``onnx.reference``.

    Parameters
    ----------
    *op_names : str
        Names of operators of the standard domain. Those that the installed ``onnx`` is too old to
        know are skipped (see :func:`unavailable`).
    kind : Kind, default Kind.ELEMENTWISE
        What they do with encrypted values.
    raw_inputs : iterable of int, default ()
        Positions of inputs that are always clear.
    check : callable or None, default None
        Says which attributes or constant operands are not supported.
    integer : IntegerForm or None, default None
        Integer form on quantized values.
    expand : callable or None, default None
        Writes the operator with simpler ones.
    client : bool, default False
        Whether the client computes it at the end of a model.
    encoding : bool, default False
        Whether the client computes it at the beginning of a model.

    Raises
    ------
    InvalidParameterError
        When an operator is registered already.
    """
    for name in op_names:
        if not _signature.schema_exists(name):
            _UNAVAILABLE.add(name)
            continue
        function = _reference.numpy_function(name, check, elementwise=kind is Kind.ELEMENTWISE)
        raw = frozenset(raw_inputs)
        _add(Op(name, kind, function, raw, check, integer, expand, client, encoding))


def register_function(
    name: str,
    function: Callable[..., Any],
    *,
    raw_inputs: Iterable[int] = (),
    check: Check | None = None,
) -> None:
    """Register an element-wise operator of another domain that comes with the package.

    Parameters
    ----------
    name : str
        Qualified name.
    function : callable
        Its NumPy meaning: see :func:`register_numpy`.
    raw_inputs, check
        As for :func:`register`.

    Raises
    ------
    InvalidParameterError
        When the operator is registered already.
    """
    numpy = _plain_function(_signature.of_function(name, function), function)
    _add(Op(name, Kind.ELEMENTWISE, numpy, frozenset(raw_inputs), check, function=function))


def _add(op: Op) -> None:
    with _LOCK:
        if op.name in _OPS:
            raise InvalidParameterError(f"The operator {op.name!r} is registered already.")
        _OPS[op.name] = op


def unavailable() -> frozenset[str]:
    """Names of operators that only a newer ``onnx`` knows."""
    _known()
    return frozenset(_UNAVAILABLE)


def register_numpy(
    name: str,
    function: Callable[..., Any],
    *,
    kind: Kind = Kind.ELEMENTWISE,
    raw_inputs: Iterable[int] = (),
) -> Op:
    """Register an operator of your own from a plain NumPy function.

    Registering a name again replaces the earlier function, so that a notebook cell can be run
    twice; the operators that come with the package cannot be replaced.

    Parameters
    ----------
    name : str
        Qualified name, ``"my.domain.Op"``: the domain and the type of the ONNX nodes that mean it.
    function : callable
        Takes arrays, returns an array or a tuple of arrays. Parameters before ``/`` are required
        inputs, parameters between ``/`` and ``*`` are optional inputs (``None`` by default),
        keyword-only parameters are attributes.
    kind : Kind, default Kind.ELEMENTWISE
        What it does with encrypted values. The default promises that every output element depends
        on the element of each input at the same place only.
    raw_inputs : iterable of int, default ()
        Positions of inputs that are always clear.

    Returns
    -------
    Op

    Raises
    ------
    InvalidParameterError
        When the name has no domain, belongs to a shipped operator, or the function does not follow
        the convention.
    InvalidTypeError
        When ``function`` is not callable.

    Examples
    --------
    >>> import numpy as np
    >>> op = register_numpy("my.domain.Cube", lambda x, /, *, scale=1.0: scale * x**3)
    >>> op.numpy(np.array([2.0]), scale=0.5)
    (array([4.]),)
    """
    domain, op_type = _signature.split_name(name)
    if not domain or not op_type or domain == "ai.onnx":
        raise InvalidParameterError(
            f"{name!r} is not the name of an operator of your own: give a domain and a type, as in"
            " 'my.domain.Op'."
        )
    if not callable(function):
        raise InvalidTypeError(f"The meaning of {name!r} must be a function, not {function!r}.")
    existing = _known().get(name)
    if existing is not None and not existing.is_own:
        raise InvalidParameterError(f"{name!r} comes with the package and cannot be replaced.")
    signature = _signature.of_function(name, function)
    numpy = _plain_function(signature, function)
    op = Op(name, kind, numpy, frozenset(raw_inputs), function=function, is_own=True)
    with _LOCK:
        _OPS[name] = op
    return op


def unregister(name: str) -> None:
    """Forget an operator that was added with :func:`register_numpy`.

    Parameters
    ----------
    name : str
        Qualified name of the operator.

    Raises
    ------
    InvalidParameterError
        When there is no such operator of your own.
    """
    with _LOCK:
        if name not in _OPS or not _OPS[name].is_own:
            raise InvalidParameterError(f"{name!r} is not an operator of your own.")
        del _OPS[name]


def _plain_function(signature: Signature, function: Callable[..., Any]) -> NumpyFunction:
    """Wrap a plain function into the shape that all operators have."""

    def numpy(*inputs: Any, opset: int = NEWEST_OPSET, **attributes: Any) -> tuple[Array, ...]:
        del opset  # An operator that ONNX does not describe has one meaning only.
        values = _reference.convert_attributes(signature, attributes)
        with np.errstate(all="ignore"):
            result = function(*prepare(signature, inputs), **values)
        outputs = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(output) for output in outputs)

    numpy.__name__ = numpy.__qualname__ = getattr(function, "__name__", signature.name)
    numpy.__doc__ = function.__doc__
    return numpy


def get(name: str) -> Op:
    """Return a registered operator.

    Parameters
    ----------
    name : str
        ``"Relu"``, or ``"my.domain.Op"`` outside the standard domain.

    Returns
    -------
    Op

    Raises
    ------
    UnsupportedOperatorError
        When it is not registered; the message lists those that are.
    """
    known = _known()
    if name not in known:
        raise UnsupportedOperatorError(
            f"The operator {name!r} is not supported. {supported_sentence()}"
        )
    return known[name]


def names() -> tuple[str, ...]:
    """Return the names of all registered operators, sorted."""
    return tuple(sorted(_known()))


def supported_sentence() -> str:
    """Say which operators exist and how to add one (the end of error messages)."""
    return (
        f"Supported operators: {', '.join(names())}."
        " An operator of your own can be added with cipherlearn.ops.register_numpy."
    )


class _NumpyImplementations(Mapping[str, NumpyFunction]):
    """Live, read-only view: operator name -> NumPy function."""

    def __getitem__(self, name: str) -> NumpyFunction:
        return _known()[name].numpy

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(_known())

    def __repr__(self) -> str:
        return f"<{len(self)} operators: {', '.join(self)}>"


ONNX_OPS_TO_NUMPY_IMPL: Final[Mapping[str, NumpyFunction]] = _NumpyImplementations()
"""NumPy function of every registered operator; it follows the registry and cannot be written to."""
