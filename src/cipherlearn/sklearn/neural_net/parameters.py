"""Parameters of parts, which have the name of the part, two underscores, and a name there."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from skorch.callbacks import Callback  # type: ignore[import-untyped]
from torch.optim import Adam

from cipherlearn.errors import InvalidParameterError, UnknownKeyError
from cipherlearn.sklearn._base import storing_constructor
from cipherlearn.torch.sparse_network import SparseQuantNeuralNetwork

if TYPE_CHECKING:
    from skorch import NeuralNet  # type: ignore[import-untyped]
    from typing_extensions import Self

#: Parts of skorch that take parameters which are not listed, since others define them.
PARTS = ("callbacks", "criterion", "dataset", "iterator_train", "iterator_valid", "optimizer")

#: What training and data decide, and why.
_DECIDED = {
    "module": "the network is a SparseQuantNeuralNetwork, and module__... its parameters",
    "dataset__length": "it is the number of rows",
    "module__input_dim": "it is the number of features",
    "module__n_outputs": "it is the number of classes, or of targets",
    "n_bits": "weights and activations have theirs: module__n_w_bits and module__n_a_bits",
}

_MODULE = "module__"


def module_parameters() -> dict[str, Any]:
    """Parameters of the network that users set, with their defaults."""
    known = inspect.signature(SparseQuantNeuralNetwork).parameters.values()
    listed = {f"{_MODULE}{p.name}": p.default for p in known}
    listed["module__n_layers"] = 2
    return {name: value for name, value in listed.items() if name not in _DECIDED}


#: Parameters of training, with their defaults.
TRAINING: dict[str, Any] = {
    "criterion": None,
    "optimizer": Adam,
    "lr": 0.01,
    "max_epochs": None,
    "batch_size": None,
    "train_split": None,
    "callbacks": None,
    "warm_start": False,
    "verbose": 0,
    "device": "cpu",
    "random_state": None,
}


def _signature() -> inspect.Signature:
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    keyword = inspect.Parameter.KEYWORD_ONLY
    listed = [
        inspect.Parameter(name, keyword, default=default)
        for name, default in {**module_parameters(), **TRAINING}.items()
    ]
    more = inspect.Parameter("parameters", inspect.Parameter.VAR_KEYWORD)
    return inspect.Signature([itself, *listed, more])


class NestedParameters:
    """Parameters by name, those of parts included, as scikit-learn gets, sets and copies them."""

    _library_params: dict[str, Any]

    _get_param_names: ClassVar[Any]

    __init__ = storing_constructor(_signature())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All parameters; there are none deeper."""
        del deep
        listed = {name: getattr(self, name) for name in self._get_param_names()}
        return {**listed, **vars(self).get("_library_params", {})}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by their names.

        Raises
        ------
        InvalidParameterError
            If one is decided by the data.
        UnknownKeyError
            If there is none of that name.
        """
        listed = set(self._get_param_names())
        more = {name: value for name, value in params.items() if name not in listed}
        check_names(more)
        for name in params.keys() - more.keys():
            setattr(self, name, params[name])
        if more:
            self._library_params = {**vars(self).get("_library_params", {}), **more}
        return self


def check_names(names: Iterable[str]) -> None:
    """Raise an error for parameters that are neither listed nor of a part of skorch."""
    for name in names:
        if name in _DECIDED:
            raise InvalidParameterError(f"{name} cannot be set: {_DECIDED[name]}")
        part, found, _ = name.partition("__")
        if not found or part not in PARTS:
            listed = [*TRAINING, *module_parameters()]
            raise UnknownKeyError(
                f"there is no parameter {name!r}; accepted are {', '.join(listed)}, and those of "
                f"parts: {', '.join(f'{part}__...' for part in PARTS)}"
            )


def check_parts(parts: Mapping[str, Any]) -> None:
    """Raise `InvalidParameterError` for parts that nothing can be made of.

    Parameters
    ----------
    parts : mapping of str to object
        ``optimizer``, ``criterion``, ``train_split`` and ``callbacks``, as they are given.
    """
    for name, example in (("optimizer", "torch.optim.SGD"), ("criterion", "torch.nn.L1Loss")):
        if not callable(parts[name]):
            raise InvalidParameterError(
                f"{name} must be a class, such as {example}, not {parts[name]!r}"
            )
    if parts["train_split"] is not None and not callable(parts["train_split"]):
        raise InvalidParameterError(
            "train_split must be None or a callable, such as skorch.dataset.ValidSplit(5), not "
            f"{parts['train_split']!r}"
        )
    callbacks = parts["callbacks"]
    if isinstance(callbacks, str) and callbacks == "disable":
        return
    listed = list(callbacks or []) if isinstance(callbacks, (list, tuple, type(None))) else [None]
    pairs = [each if isinstance(each, tuple) else ("", each) for each in listed]
    named = all(len(pair) == 2 and isinstance(pair[0], str) for pair in pairs)
    kinds = (pair[-1] if inspect.isclass(pair[-1]) else type(pair[-1]) for pair in pairs if named)
    if not named or not all(issubclass(kind, Callback) for kind in kinds):
        raise InvalidParameterError(
            "callbacks must be a list of callbacks of skorch, each with a name of yours or without "
            f"one, or 'disable', not {callbacks!r}"
        )


def initialized(net: NeuralNet, params: Iterable[str]) -> NeuralNet:
    """A net whose parts are made.

    Parameters
    ----------
    net : skorch.NeuralNet
    params : iterable of str
        Names of the parameters of its parts: ``optimizer__weight_decay``,
        ``callbacks__decay__T_max``, ...

    Raises
    ------
    UnknownKeyError
        If a part does not take a parameter.
    InvalidParameterError
        If a part does not take a value.
    """
    given = [name for name in params if "__" in name]
    parts = {part for part, _, _ in (name.partition("__") for name in given)} - {"callbacks"}
    taken = {part: _taken(getattr(net, part)) for part in parts}
    if "optimizer" in taken:
        taken["optimizer"].append("param_groups")  # which is skorch's
    _check_taken(given, taken)
    try:
        net.initialize()
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"a part of training cannot be made: {error}") from error
    # Those that None took away are known as well.
    callbacks = dict([*net.get_default_callbacks(), *net.callbacks_])
    _check_taken(given, {"callbacks": list(callbacks)})
    return net


def _taken(part: Any) -> list[str]:
    """Names of the parameters of a part; ``*`` among them if it takes any."""
    parameters = inspect.signature(part).parameters.values()
    return ["*" if p.kind is p.VAR_KEYWORD else p.name for p in parameters]


def _check_taken(names: Iterable[str], taken: Mapping[str, list[str]]) -> None:
    for name in names:
        part, _, rest = name.partition("__")
        known = taken.get(part, ["*"])
        if "*" not in known and rest.partition("__")[0] not in known:
            raise UnknownKeyError(f"there is no {name!r}: {part} takes {', '.join(known)}")
