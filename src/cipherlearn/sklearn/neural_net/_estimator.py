"""What networks for classes and for values share: training, pruning, and the integer program."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import clone

from cipherlearn.errors import InvalidParameterError, InvalidTypeError, ModelError
from cipherlearn.quantization import QuantizedModule
from cipherlearn.quantization.circuit_model import CircuitModel
from cipherlearn.sklearn._lookups import WithLookups
from cipherlearn.sklearn.linear.maps import Plain
from cipherlearn.sklearn.neural_net.parameters import NestedParameters, check_names
from cipherlearn.torch._sparse_parameters import check_pruned_share
from cipherlearn.torch.sparse_network import SparseQuantNeuralNetwork, units_of

if TYPE_CHECKING:
    from typing_extensions import Self


class NeuralNet(NestedParameters, WithLookups):
    """A network that is trained on the integers that it is encrypted with.

    Parameters
    ----------
    module__... : object
        Those of `cipherlearn.torch.SparseQuantNeuralNetwork` but ``input_dim`` and ``n_outputs``,
        which the data tells; ``module__n_layers`` is 2 by default.
    criterion : type, optional
        Loss, of scores and class numbers or targets. Default: cross-entropy, or squared error.
    optimizer : type, default=torch.optim.Adam
    lr : float, default=0.01
        Learning rate of the first epoch; it falls to zero (cosine), unless ``callbacks`` holds an
        ``LRScheduler`` of skorch.
    max_epochs : int, optional
        Default: 20, and more for few rows, so that there are at least 1,000 batches.
    batch_size : int, optional
        Default: 64, and less for few rows, so that an epoch has at least 8 batches.
    train_split : callable, optional
        As in skorch: ``ValidSplit(5)`` holds a fifth of the rows out, to validate each epoch.
        Default: all rows are trained on.
    callbacks : list or "disable", optional
        As in skorch.
    warm_start : bool, default=False
        Whether `fit` goes on from where it ended.
    verbose : int, default=0
        Whether a line for each epoch is printed.
    device : str, default="cpu"
        Of training.
    random_state : int or RandomState, optional
        Of first weights, the order of rows, and noise.
    optimizer__..., criterion__..., callbacks__..., iterator_train__..., iterator_valid__..., \
    dataset__... : object
        Those of these parts, as in skorch; ``iterator_train__shuffle`` is True by default.

    Attributes
    ----------
    base_module : SparseQuantNeuralNetwork
        The trained network.
    quantized_module_ : QuantizedModule
        Its integer program.
    history_ : skorch.History
        Loss of each epoch, and what callbacks noted.
    """

    takes_steps: ClassVar[bool] = True

    ways_to_agree: ClassVar[tuple[str, ...]] = ("more rows",)

    _looked_up = "the hidden neurons"
    _fewer_lookups = (
        "A smaller module__n_hidden_neurons_multiplier, fewer module__n_layers, or prune() need "
        "fewer"
    )

    #: The float network, to compare with.
    dense_class: ClassVar[Any]

    @classmethod
    def takes(cls, model: Any) -> bool:
        """Whether a model becomes this estimator: float nets are told apart when they come."""
        return isinstance(model, cls.float_class)

    @classmethod
    def _check_import(cls, model: Any, own: Mapping[str, Any]) -> None:
        super()._check_import(model, own)
        network = model.net_.module_
        if not isinstance(network, SparseQuantNeuralNetwork):
            raise InvalidTypeError(
                f"the net is a {type(network).__name__}, which was not trained on integers: "
                "cipherlearn.torch.compile_torch_model quantizes it after training"
            )

    @property
    def base_module(self) -> SparseQuantNeuralNetwork:
        """The trained network."""
        self.check_model_is_fitted()
        network: SparseQuantNeuralNetwork = self.sklearn_model.net_.module_
        return network

    @property
    def quantized_module_(self) -> CircuitModel:
        """The integer program of the trained network."""
        self.check_model_is_fitted()
        return self.module_

    def _options(self) -> None:
        check_names(vars(self).get("_library_params", {}))

    def _quantized(
        self, model: Any, rows: np.ndarray, options: None, before: CircuitModel | None
    ) -> CircuitModel:
        del options, before
        network = model.net_.module_
        module: QuantizedModule = network.quantized_module(*model.units())
        if self._folded:
            self._fold(module, rows)
        bits = network.precision
        self.n_bits_ = {"op_inputs": bits.activations.n_bits, "op_weights": bits.weights.n_bits}
        return module

    def _fold(self, module: QuantizedModule, rows: np.ndarray) -> None:
        """Let the client bring features to the units of steps before the network."""
        taken = self._taken(rows)
        steps = Plain.around(rows).read(self._taken)
        factors = np.diagonal(steps.weights)
        is_scaling = steps.weights.shape[0] == steps.weights.shape[1]
        if not is_scaling or (steps.weights != np.diag(factors)).any() or not factors.all():
            raise ModelError(
                "only steps that scale each feature by itself can be part of a network that was "
                "trained on integers"
            )
        steps.check(taken, rows)
        known = module.head.constants if module.head is not None else {}
        module.head = units_of((known["low"] - steps.constant) / factors, known["span"] / factors)

    def _float_model_before(self, *, goes_on: bool) -> Any:
        params = self.get_sklearn_params(deep=False)
        if self.sklearn_model is None or not (goes_on or self.warm_start):
            return self.float_class(**params)
        return copy.deepcopy(self.sklearn_model).set_params(**params)

    def _float_estimator(self, params: Mapping[str, Any], fit_params: Mapping[str, Any]) -> Any:
        del fit_params
        return self.dense_class(**params)

    def prune(self, X: Any, y: Any, n_prune_neurons_percentage: float, **fit_params: Any) -> Self:
        """A smaller network of the hidden neurons that matter most, trained further.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        y : array-like of shape (rows,) or (rows, targets)
        n_prune_neurons_percentage : float
            Share of the hidden neurons that are left out, from 0 to less than 1.
        **fit_params
            As for `fit`.

        Returns
        -------
        NeuralNet
            Another one; this one stays as it is. Compile it anew.

        Raises
        ------
        NotFittedError
            If `fit` was not called.
        InvalidParameterError
            If the share is out of range, or no larger than what is left out already.
        """
        self.check_model_is_fitted()
        check_pruned_share(n_prune_neurons_percentage)
        smaller = self.base_module.pruned(n_prune_neurons_percentage)
        if len(known := getattr(self, "classes_", ())) and not np.array_equal(known, np.unique(y)):
            raise InvalidParameterError(
                f"y holds the classes {np.unique(y)}; the network, which is trained further, knows "
                f"{known}"
            )
        found: Self = clone(self).set_params(
            module__n_prune_neurons_percentage=n_prune_neurons_percentage
        )
        return found.fit(X, y, network=smaller, **fit_params)
