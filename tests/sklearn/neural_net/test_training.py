"""Training that goes on, and what is refused before and after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.sklearn import NeuralNetClassifier, NeuralNetRegressor

X, Y = load_iris(return_X_y=True)

# So few epochs show less of the rows than there is.
pytestmark = pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")


def classifier(**options: Any) -> Any:
    return NeuralNetClassifier(**{"random_state": 0, "max_epochs": 3, **options})


def weights(model: Any) -> torch.Tensor:
    return model.base_module.hidden[0].weight.detach().clone()


def test_every_part_of_training_changes_the_weights() -> None:
    model = classifier(max_epochs=1)
    before = weights(model.partial_fit(X, Y, classes=[0, 1, 2]))
    for _ in range(3):
        model.partial_fit(X, Y)
        assert not torch.equal(weights(model), before)
        before = weights(model)
    assert len(model.history_) == 4


def test_a_warm_start_takes_other_parameters_of_training() -> None:
    model = classifier(warm_start=True).fit(X, Y)
    model.set_params(lr=0.002, max_epochs=2, batch_size=30).fit(X, Y)
    net = model.sklearn_model.net_
    assert (net.lr, net.max_epochs, net.batch_size) == (0.002, 2, 30)
    assert len(model.history_) == 5
    with pytest.raises(InvalidParameterError, match=r"module__n_w_bits were changed after fit"):
        model.set_params(module__n_w_bits=2).fit(X, Y)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_epochs": 0}, "max_epochs"),
        ({"max_epochs": 1.5}, "max_epochs"),
        ({"batch_size": -3}, "batch_size"),
        ({"lr": -1.0}, "lr must be"),
        ({"lr": "fast"}, "lr must be"),
        ({"callbacks": "no"}, "callbacks"),
        ({"device": "nowhere"}, "device='nowhere'"),
    ],
)
def test_parameters_of_training_that_are_out_of_range(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidParameterError, match=told):
        classifier(**options).fit(X, Y)


def test_a_criterion_that_takes_no_scores() -> None:
    with pytest.raises(ModelError, match="CrossEntropyLoss, not NLLLoss"):
        classifier(criterion=nn.NLLLoss).fit(X, Y)


def test_a_single_class() -> None:
    with pytest.raises(InvalidParameterError, match="one class only"):
        classifier().fit(X[:40], Y[:40])


def test_pruning_needs_the_same_classes() -> None:
    model = classifier().fit(X, Y)
    with pytest.raises(InvalidParameterError, match="knows"):
        model.prune(X, np.where(Y == 2, 1, Y), 0.5)
    flat = classifier(module__n_layers=1).fit(X, Y)
    with pytest.raises(InvalidParameterError, match="no hidden neurons"):
        flat.prune(X, Y, 0.5)


def test_neurons_keep_parameters_of_their_own() -> None:
    model = classifier(module__activation_function=nn.PReLU(16)).fit(X, Y)
    smaller = model.prune(X, Y, 0.5)
    assert smaller.base_module.hidden[0].function.weight.shape == (8,)
    assert smaller.predict(X).shape == Y.shape


def test_nothing_else_is_drawn() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    model = classifier().fit(X, Y)
    model.predict(X)
    model.sklearn_model.predict(X)
    assert torch.equal(torch.rand(3), wanted)


def test_training_that_goes_on_has_the_same_targets() -> None:
    model = NeuralNetRegressor(max_epochs=2, random_state=0).partial_fit(X, X[:, :2])
    with pytest.raises(InvalidParameterError, match=r"1 classes or targets.*2 outputs"):
        model.partial_fit(X, X[:, 0])
    with pytest.raises(InvalidParameterError, match=r"1 classes or targets.*2 outputs"):
        model.prune(X, X[:, 0], 0.5)


def test_divergence_in_the_middle() -> None:
    with pytest.raises(ModelError, match="diverged"):
        classifier(max_epochs=10, lr=1e30).fit(X, Y)
