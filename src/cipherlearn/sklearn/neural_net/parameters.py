"""Parameters of parts, which have the name of the part, two underscores, and a name there."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from torch.optim import Adam

from cipherlearn.errors import InvalidParameterError, UnknownKeyError
from cipherlearn.sklearn._base import storing_constructor
from cipherlearn.torch.sparse_network import SparseQuantNeuralNetwork

if TYPE_CHECKING:
    from typing_extensions import Self

#: Parts of skorch that take parameters which are not listed, since others define them.
PARTS = ("callbacks", "criterion", "dataset", "iterator_train", "iterator_valid", "optimizer")

#: What training and data decide, and why.
_DECIDED = {
    "module": "the network is a SparseQuantNeuralNetwork, and module__... its parameters",
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
