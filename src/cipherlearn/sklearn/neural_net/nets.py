"""What is trained: a network of PyTorch, by skorch, on the data that scikit-learn's models take."""

from __future__ import annotations

import contextlib
import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import skorch  # type: ignore[import-untyped]
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch.callbacks import LRScheduler  # type: ignore[import-untyped]
from torch import nn

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.sklearn.neural_net.parameters import (
    NestedParameters,
    check_names,
    check_parts,
    initialized,
)
from cipherlearn.torch._sparse_parameters import as_module, check_count, hidden_width
from cipherlearn.torch.distillation import one_thread
from cipherlearn.torch.sparse_network import SparseQuantNeuralNetwork

if TYPE_CHECKING:
    from typing_extensions import Self


#: Rows of a batch, fewest and most; batches of an epoch, epochs and batches at least: few steps
#: train nothing.
BATCH_RANGE, LEAST_BATCHES, LEAST_EPOCHS, LEAST_STEPS = (8, 64), 8, 20, 1000


def usual_batch_size(rows: int) -> int:
    """Rows of a batch where nobody says how many."""
    return int(np.clip(rows // LEAST_BATCHES, *BATCH_RANGE))


def usual_epochs(rows: int, batch_size: int) -> int:
    """How often all rows are seen where nobody says how often."""
    return max(LEAST_EPOCHS, -(-LEAST_STEPS // -(-rows // batch_size)))


class DenseNetwork(nn.Module):
    """The float network of the same layers, to compare with.

    Parameters
    ----------
    input_dim, n_layers, n_outputs, n_hidden_neurons_multiplier, n_prune_neurons_percentage, \
    activation_function
        As for `SparseQuantNeuralNetwork`.
    """

    input_low: torch.Tensor
    input_high: torch.Tensor

    def __init__(
        self,
        input_dim: int,
        n_layers: int,
        n_outputs: int,
        n_hidden_neurons_multiplier: float = 4,
        n_prune_neurons_percentage: float = 0.0,
        activation_function: Any = nn.ReLU,
    ) -> None:
        super().__init__()
        hidden = hidden_width(input_dim, n_hidden_neurons_multiplier, n_prune_neurons_percentage)
        layers: list[nn.Module] = []
        before = input_dim
        for _ in range(n_layers - 1):
            layers += [nn.Linear(before, hidden), as_module(activation_function)]
            before = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(before, n_outputs))
        self.register_buffer("input_low", torch.full((input_dim,), torch.inf, dtype=torch.float64))
        self.register_buffer("input_high", -self.input_low)

    def observe(self, x: torch.Tensor) -> None:
        """Widen the ranges of features to some rows: it computes with units of these."""
        self.input_low = torch.minimum(self.input_low, x.double().amin(dim=0))
        self.input_high = torch.maximum(self.input_high, x.double().amax(dim=0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of rows."""
        span = self.input_high - self.input_low
        units = (x - self.input_low) / torch.where(span > 0, span, 1.0)
        result: torch.Tensor = self.layers(units.float())
        return result


class TrainedNet(NestedParameters, BaseEstimator, ABC):  # type: ignore[misc]
    """A network that skorch trains.

    Parameters
    ----------
    **parameters
        Those of `cipherlearn.sklearn.neural_net.parameters`.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net.
    """

    #: What is trained, by what of skorch, and how far off answers are measured.
    network: ClassVar[type[nn.Module]] = SparseQuantNeuralNetwork
    trainer: ClassVar[type[skorch.NeuralNet]]
    usual_criterion: ClassVar[type[nn.Module]]

    net_: skorch.NeuralNet

    def fit(self, X: Any, y: Any, network: nn.Module | None = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        y : array-like of shape (rows,) or (rows, targets)
        network : torch.nn.Module, optional
            Begin with its weights; by default, with random ones.
        """
        goes_on = self.warm_start and hasattr(self, "net_") and network is None
        return self._fitted(X, y, network, goes_on=goes_on)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Train further: another `max_epochs` on these rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        y : array-like of shape (rows,) or (rows, targets)
        classes : array-like, optional
            Of the first call: all classes there are. Default: those of its rows.
        """
        return self._fitted(X, y, None, goes_on=hasattr(self, "net_"), classes=classes)

    def _fitted(self, X: Any, y: Any, network: Any, *, goes_on: bool, classes: Any = None) -> Self:
        self._check_parameters()
        rows, targets = self._checked(X, y, known=goes_on, classes=classes)
        with self._seeded(), one_thread():
            before = []
            if goes_on:  # rates begin anew, and parameters of training may be others
                self._check_same_network()
                network, before = self.net_.module_, self.net_.history
            net = self._made(rows, targets, network)
            self._train(net, rows, targets)
            net.history_ = skorch.history.History([*before, *net.history])
            self.net_ = net
        return self

    def _check_parameters(self) -> None:
        """Raise an error for parameters of training that are out of range."""
        check_names(vars(self).get("_library_params", {}))
        for name in ("max_epochs", "batch_size"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        is_number = isinstance(self.lr, (int, float, np.number)) and not isinstance(self.lr, bool)
        if not is_number or not 0 < self.lr < np.inf:
            raise InvalidParameterError(f"lr must be a number above 0, not {self.lr!r}")
        parts = {name: getattr(self, name) for name in ("optimizer", "train_split", "callbacks")}
        check_parts({**parts, "criterion": self.criterion or self.usual_criterion})
        try:
            torch.empty(0, device=self.device)
        except (AssertionError, RuntimeError) as error:
            raise InvalidParameterError(f"device={self.device!r} is not there: {error}") from error

    def _module_parameters(self) -> dict[str, Any]:
        """Those of the network that it takes, by their names there."""
        taken = set(inspect.signature(self.network).parameters)
        chosen = {k.removeprefix("module__"): v for k, v in self.get_params().items()}
        return {k: v for k, v in chosen.items() if k in taken}

    def _check_same_network(self) -> None:
        """Raise `InvalidParameterError` if the network would be another one by now."""
        known, given = self._made_with, self._module_parameters()
        if changed := sorted(name for name in given if given[name] != known[name]):
            raise InvalidParameterError(
                f"module__{', module__'.join(changed)} were changed after fit, and training that "
                "goes on keeps its network: set them back, or fit with warm_start=False"
            )

    def _train(self, net: skorch.NeuralNet, rows: np.ndarray, targets: np.ndarray) -> None:
        network = net.module_
        network.observe(torch.tensor(rows, device=self.device))
        try:
            net.partial_fit(rows, targets)
        except KeyError as error:
            if "not found in history" in str(error):
                noted = sorted(key for key in net.history[-1] if key != "batches")
                raise InvalidParameterError(
                    f"a callback reads what is not noted ({error}). Noted are {', '.join(noted)}, "
                    "and more with rows held out: train_split=skorch.dataset.ValidSplit(5)"
                ) from error
            raise
        batches = net.history[-1]["batches"] if net.history else []
        loss = next((b["train_loss"] for b in reversed(batches) if "train_loss" in b), 0.0)
        finite = all(bool(torch.isfinite(each).all()) for each in network.state_dict().values())
        if not np.isfinite(loss) or not finite:
            raise ModelError(
                f"training diverged: the loss is {loss}, and weights may be infinite or not "
                f"numbers. Lower lr ({self.lr}), scale features and targets, or see to it that the "
                "criterion takes scores (torch.nn.CrossEntropyLoss, not NLLLoss)"
            )
        if isinstance(network, SparseQuantNeuralNetwork):
            network.calibrate(torch.tensor(rows, device=self.device))

    def _made(self, rows: np.ndarray, targets: np.ndarray, network: Any) -> skorch.NeuralNet:
        """The net before training."""
        self._made_with = self._module_parameters()
        given = {k: v for k, v in self.get_params().items() if not k.startswith("module__")}
        for name in ("random_state", "warm_start"):
            del given[name]
        if given["criterion"] is None:
            given["criterion"] = self.usual_criterion
        if given["batch_size"] is None:
            given["batch_size"] = usual_batch_size(len(rows))
        if given["max_epochs"] is None:
            given["max_epochs"] = usual_epochs(len(rows), given["batch_size"])
        given.setdefault("iterator_train__shuffle", True)
        given["callbacks"] = self._callbacks(given["max_epochs"])
        if isinstance(network, SparseQuantNeuralNetwork):
            _check_outputs(self._outputs(targets), len(network.last.bias))
        if network is None:
            sizes = {"input_dim": rows.shape[1], "n_outputs": self._outputs(targets)}
            network = self.network(**self._made_with, **sizes)
        net = self.trainer(module=copy.deepcopy(network), **given)
        return initialized(net, given)

    def _callbacks(self, epochs: int) -> Any:
        """Those of the user; and steps that fall to zero, where nothing else says how they go."""
        given = self.callbacks
        if isinstance(given, str):
            return given
        listed = list(given or [])
        parts = [each[1] if isinstance(each, tuple) else each for each in listed]
        kinds = [part if inspect.isclass(part) else type(part) for part in parts]
        if any(issubclass(kind, LRScheduler) for kind in kinds):
            return listed
        decay = LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs)
        return [("decay", decay), *listed]

    @contextlib.contextmanager
    def _seeded(self) -> Iterator[None]:
        """What torch draws at random follows from the seed, and nothing else is touched."""
        if self.random_state is None:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(check_random_state(self.random_state).randint(2**31 - 1)))
            yield

    @abstractmethod
    def _checked(
        self, X: Any, y: Any, *, known: bool, classes: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and targets as the net takes them.

        Parameters
        ----------
        X, y : array-like
        known : bool
            Whether training goes on.
        classes : array-like, optional
            All classes, if they are told.
        """

    @abstractmethod
    def _outputs(self, targets: np.ndarray) -> int:
        """How many scores there are."""

    @abstractmethod
    def units(self) -> tuple[Any, Any]:
        """What scores are multiplied by, and what is added, for answers."""

    def scores(self, X: Any) -> np.ndarray:
        """What the network gives for rows: (rows, outputs)."""
        check_is_fitted(self, "net_")
        rows = validate_data(self, X, reset=False, dtype=np.float64, copy=True)
        with torch.random.fork_rng(devices=[]):  # loaders draw a seed, whatever they are for
            found = self.net_.forward(rows, training=False)
        return np.asarray(found.cpu().numpy().astype(np.float64))

    @property
    def history_(self) -> Any:
        """What skorch noted of each epoch."""
        check_is_fitted(self, "net_")
        return self.net_.history


def _check_outputs(given: int, known: int) -> None:
    """Raise `InvalidParameterError` unless a network has an output for each class or target."""
    if given != known:
        raise InvalidParameterError(
            f"y has {given} classes or targets; the network, which is trained further, has {known} "
            "outputs"
        )


class TrainedClassifier(ClassifierMixin, TrainedNet):  # type: ignore[misc]
    """A net for classes, which may be of any type.

    Attributes
    ----------
    classes_ : numpy.ndarray
    """

    trainer = skorch.NeuralNetClassifier
    usual_criterion = nn.CrossEntropyLoss

    classes_: np.ndarray

    def _checked(
        self, X: Any, y: Any, *, known: bool, classes: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        rows, labels = validate_data(self, X, y, reset=not known, dtype=np.float64, copy=True)
        check_classification_targets(labels)
        if not known:
            self.classes_ = np.unique(labels if classes is None else classes)
        if len(self.classes_) < 2:
            raise InvalidParameterError(
                f"y holds one class only ({self.classes_[0]}): there is nothing to tell apart. "
                "Give rows of two classes at least"
            )
        places = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
        if (unknown := self.classes_[places] != labels).any():
            raise InvalidParameterError(
                f"y holds classes that were not known at first: {np.unique(labels[unknown])}; "
                f"known are {self.classes_}. Tell all of them in the first call, partial_fit(X, y, "
                "classes=...)"
            )
        return rows, places.astype(np.int64)

    def _outputs(self, targets: np.ndarray) -> int:
        del targets
        return len(self.classes_)

    def units(self) -> tuple[Any, Any]:
        """Scores are as they are."""
        return 1.0, 0.0

    def predict(self, X: Any) -> np.ndarray:
        """Classes of rows."""
        best = self.scores(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes: (rows, classes)."""
        return np.asarray(softmax(self.scores(X), axis=1))


class TrainedRegressor(RegressorMixin, TrainedNet):  # type: ignore[misc]
    """A net for values, which are trained in units of their deviations.

    Attributes
    ----------
    center_, unit_ : numpy.ndarray of float64, shape (targets,)
        Means and deviations of the targets.
    """

    trainer = skorch.NeuralNetRegressor
    usual_criterion = nn.MSELoss

    center_: np.ndarray
    unit_: np.ndarray

    def _checked(
        self, X: Any, y: Any, *, known: bool, classes: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        del classes
        rows, values = validate_data(
            self,
            X,
            y,
            reset=not known,
            dtype=np.float64,
            multi_output=True,
            y_numeric=True,
            copy=True,
        )
        columns = np.asarray(values, dtype=np.float64).reshape(len(rows), -1)
        if not known:
            self._is_flat = values.ndim == 1
            self.center_, spread = columns.mean(axis=0), columns.std(axis=0)
            self.unit_ = np.where(spread > 0, spread, 1.0)
        _check_outputs(columns.shape[1], len(self.center_))
        return rows, ((columns - self.center_) / self.unit_).astype(np.float32)

    def _outputs(self, targets: np.ndarray) -> int:
        return int(targets.shape[1])

    def units(self) -> tuple[Any, Any]:
        """Deviations and means of the targets."""
        return self.unit_, self.center_

    def predict(self, X: Any) -> np.ndarray:
        """Values of rows: (rows,), or (rows, targets) where training had columns."""
        scores = self.scores(X)
        values = scores * self.unit_ + self.center_
        return values[:, 0] if self._is_flat else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class DenseClassifier(TrainedClassifier):
    """The float network for classes."""

    network = DenseNetwork


class DenseRegressor(TrainedRegressor):
    """The float network for values."""

    network = DenseNetwork
