"""Networks that skorch trains, before anything is encrypted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from torch.optim.lr_scheduler import StepLR

from cipherlearn.errors import InvalidParameterError, ModelError, UnknownKeyError
from cipherlearn.sklearn.neural_net.nets import (
    DenseClassifier,
    DenseNetwork,
    DenseRegressor,
    TrainedClassifier,
    TrainedRegressor,
    usual_batch_size,
    usual_epochs,
)
from cipherlearn.torch import SparseQuantNeuralNetwork

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]

QUICK: dict[str, Any] = {"max_epochs": 6, "lr": 0.05, "random_state": 0}
KINDS = [TrainedClassifier, DenseClassifier, TrainedRegressor, DenseRegressor]


def classifier(**options: Any) -> TrainedClassifier:
    return TrainedClassifier(**{**QUICK, **options})


def regressor(**options: Any) -> TrainedRegressor:
    return TrainedRegressor(**{**QUICK, **options})


def targets_of(kind: type) -> np.ndarray:
    return Y if issubclass(kind, TrainedClassifier) else X[:, 0] + X[:, 3]


def state(model: Any) -> list[torch.Tensor]:
    return [value.detach().clone() for value in model.net_.module_.parameters()]


def same(one: Any, other: Any) -> bool:
    return all(map(torch.equal, state(one), state(other)))


class Seen(Callback):  # type: ignore[misc]
    """Keeps the targets of all batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def on_batch_begin(self, *_: Any, batch: Any, training: bool, **__: Any) -> None:
        if training:
            self.batches.append(batch[1].tolist())


class Ranges(Callback):  # type: ignore[misc]
    """Keeps the ranges of features that training begins with."""

    def on_train_begin(self, net: Any, **_: Any) -> None:
        self.first = net.module_.input_low, net.module_.input_high


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 8), (64, 8), (100, 12), (150, 18), (512, 64), (100_000, 64)]
)
def test_rows_of_a_batch(rows: int, size: int) -> None:
    assert usual_batch_size(rows) == size


@pytest.mark.parametrize(
    ("rows", "size", "epochs"),
    [(8, 8, 1000), (9, 8, 500), (150, 18, 112), (3200, 64, 20), (3136, 64, 21), (60_000, 64, 20)],
)
def test_epochs(rows: int, size: int, epochs: int) -> None:
    assert usual_epochs(rows, size) == epochs


def test_what_is_trained_with_where_nobody_says() -> None:
    model = TrainedClassifier(random_state=0, module__n_layers=1).fit(X[40:64], Y[40:64])
    assert model.net_.batch_size == 8
    assert len(model.history_) == model.net_.max_epochs == 334
    assert isinstance(model.net_.criterion_, nn.CrossEntropyLoss)
    assert isinstance(model.net_.optimizer_, torch.optim.Adam)
    assert model.net_.lr == 0.01
    assert len(classifier().fit(X, Y).net_.module_.hidden) == 1
    assert isinstance(regressor().fit(X, Y).net_.criterion_, nn.MSELoss)


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_dense_networks_have_the_same_layers(n_layers: int) -> None:
    options = {"n_hidden_neurons_multiplier": 2.5, "n_prune_neurons_percentage": 0.4}
    dense = DenseNetwork(4, n_layers, 3, activation_function=nn.PReLU, **options)
    sparse = SparseQuantNeuralNetwork(4, n_layers, 3, activation_function=nn.PReLU, **options)
    shapes = [sorted(tuple(p.shape) for p in net.parameters()) for net in (dense, sparse)]
    clips = 2 * (n_layers - 1)  # what activations are clipped to is a parameter as well
    assert shapes[0] == shapes[1][clips:]
    assert [type(layer) for layer in dense.layers[1::2]] == [nn.PReLU] * (n_layers - 1)


def test_dense_networks_compute_in_units_of_ranges() -> None:
    net = DenseNetwork(4, 2, 3)
    rows = torch.tensor(np.concatenate([X[:, :3], np.ones((150, 1))], axis=1))
    net.observe(rows)
    units = (rows[:, :3] - rows[:, :3].amin(dim=0)) / (
        rows[:, :3].amax(dim=0) - rows[:, :3].amin(dim=0)
    )
    wanted = net.layers(torch.cat([units, torch.zeros(150, 1)], dim=1).float())
    assert torch.allclose(net(rows), wanted, atol=1e-5)
    known = net.input_low.clone(), net.input_high.clone()
    net.observe(rows[:20] * 0.5 + rows.mean(dim=0) * 0.5)  # within: nothing changes
    assert torch.equal(net.input_low, known[0])
    assert torch.equal(net.input_high, known[1])
    net.observe(rows * 3.0)
    assert torch.equal(net.input_low, known[0])
    assert torch.equal(net.input_high, known[1] * 3.0)


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_are_those_of_all_rows(kind: Any) -> None:
    seen = Ranges()
    split = ValidSplit(5)
    model = kind(**QUICK, train_split=split, callbacks=[seen]).fit(X, targets_of(kind))
    for low, high in (seen.first, (model.net_.module_.input_low, model.net_.module_.input_high)):
        np.testing.assert_allclose(low.numpy(), X.min(axis=0))
        np.testing.assert_allclose(high.numpy(), X.max(axis=0))


@pytest.mark.parametrize("labels", [NAMES, Y + 10, Y == 1, -Y])
def test_classes_of_any_type_come_back(labels: np.ndarray) -> None:
    model = classifier(max_epochs=15).fit(X, labels)
    np.testing.assert_array_equal(model.classes_, np.unique(labels))
    found = model.predict(X)
    assert found.dtype == labels.dtype
    assert (found == labels).mean() > 0.8


def test_probabilities_are_those_of_the_scores() -> None:
    model = classifier().fit(X, NAMES)
    scores = model.scores(X)
    assert scores.shape == (150, 3)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(model.predict_proba(X), softmax(scores, axis=1))
    np.testing.assert_array_equal(model.predict(X), model.classes_[scores.argmax(axis=1)])


def test_targets_far_from_unit_scale() -> None:
    values = 1e4 + 500 * (X[:, 2] - X[:, 2].mean()) / X[:, 2].std()
    model = regressor(max_epochs=30).fit(X, values)
    assert model.center_ == pytest.approx(1e4)
    assert model.unit_ == pytest.approx(500)
    assert model.predict(X).shape == (150,)
    assert model.score(X, values) > 0.9
    np.testing.assert_allclose(model.predict(X), model.scores(X)[:, 0] * 500 + 1e4)


def test_several_targets() -> None:
    values = np.stack([X[:, 2], -1000 * X[:, 3], np.full(150, 7.0)], axis=1)
    model = regressor(max_epochs=30).fit(X, values)
    found = model.predict(X)
    assert found.shape == (150, 3)
    assert model.unit_[2] == 1.0  # a target that never changes has no deviation
    for number in range(2):
        assert np.corrcoef(found[:, number], values[:, number])[0, 1] > 0.9
    assert np.abs(found[:, 2] - 7.0).max() < 0.5
    assert regressor().fit(X, values[:, :1]).predict(X).shape == (150, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_everything(kind: Any) -> None:
    models = []
    for torch_seed, seed in ((1, 0), (2, 0), (2, 5)):
        torch.manual_seed(torch_seed)
        known = torch.random.get_rng_state()
        models.append(kind(**{**QUICK, "random_state": seed}).fit(X, targets_of(kind)))
        assert torch.equal(torch.random.get_rng_state(), known)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_without_a_seed_torch_has_its_own() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(classifier(random_state=None, max_epochs=2).fit(X, Y))
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_a_random_state_may_be_an_object() -> None:
    models = [classifier(random_state=np.random.RandomState(3)).fit(X, Y) for _ in range(2)]
    assert same(*models)
    assert not same(models[0], classifier(random_state=np.random.RandomState(4)).fit(X, Y))


def test_rows_come_in_another_order_each_epoch() -> None:
    seen = Seen()
    classifier(max_epochs=2, batch_size=150, callbacks=[seen]).fit(X, Y)
    first, second = seen.batches
    assert sorted(first) == sorted(second) == Y.tolist()
    assert Y.tolist() != first != second
    seen = Seen()
    options = {"batch_size": 50, "iterator_train__shuffle": False}
    classifier(max_epochs=1, callbacks=[seen], **options).fit(X, Y)
    assert seen.batches == [[0] * 50, [1] * 50, [2] * 50]


def rates(model: Any) -> list[float]:
    return [float(rate) for rate in model.history_[:, "event_lr"]]


def test_the_learning_rate_falls_to_zero() -> None:
    found = rates(classifier(max_epochs=20).fit(X, Y))
    assert found[0] == pytest.approx(0.05)
    assert found[10] == pytest.approx(0.025)
    assert found[-1] < 0.001
    assert (np.diff(found) < 0).all()


@pytest.mark.parametrize(
    "as_given",
    [
        lambda scheduler: scheduler,
        lambda scheduler: ("steps", scheduler),
        lambda scheduler: ("decay", scheduler),
    ],
)
def test_another_schedule_takes_its_place(as_given: Callable[[Any], Any]) -> None:
    scheduler = LRScheduler(StepLR, step_size=1, gamma=0.5)
    model = classifier(max_epochs=4, callbacks=[as_given(scheduler)]).fit(X, Y)
    assert rates(model) == pytest.approx([0.05, 0.025, 0.0125, 0.00625])


def test_a_schedule_may_be_a_class() -> None:
    model = classifier(callbacks=[LRScheduler], callbacks__LRScheduler__policy=StepLR)
    model.set_params(callbacks__LRScheduler__step_size=100)
    assert rates(model.fit(X, Y)) == pytest.approx([0.05] * 6)


def test_training_without_callbacks() -> None:
    model = classifier(callbacks="disable").fit(X, Y)
    assert len(model.history_) == 6
    assert not {"event_lr", "dur"} & model.history_[0].keys()
    assert "dur" in classifier(callbacks=[]).fit(X, Y).history_[0]


def test_training_stops_early() -> None:
    stop = EarlyStopping(patience=2, monitor="valid_loss", threshold=10.0)  # nothing is as good
    split = ValidSplit(5, stratified=True)
    model = classifier(max_epochs=50, train_split=split, callbacks=[stop]).fit(X, Y)
    assert len(model.history_) == 3
    assert all(np.isfinite(each["valid_loss"]) for each in model.history_)
    assert "valid_loss" not in classifier().fit(X, Y).history_[0]


def test_history_has_an_entry_for_each_epoch() -> None:
    model = classifier(max_epochs=9).fit(X, Y)
    assert [each["epoch"] for each in model.history_] == list(range(1, 10))
    losses = model.history_[:, "train_loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_epochs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    classifier(max_epochs=3).fit(X, Y)
    assert not capsys.readouterr().out
    classifier(max_epochs=3, verbose=1).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert "train_loss" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3"]


def test_weights_of_classes() -> None:
    weight = torch.tensor([1.0, 1.0, 100.0])
    models = [classifier().fit(X, Y), classifier(criterion__weight=weight).fit(X, Y)]
    counts = [int((model.predict(X) == 2).sum()) for model in models]
    assert counts[1] > counts[0] + 10


def test_parameters_of_the_optimizer() -> None:
    sizes = []
    for decay in (0.0, 1.0):
        model = classifier(optimizer__weight_decay=decay).fit(X, Y)
        (group,) = model.net_.optimizer_.param_groups
        assert group["weight_decay"] == decay
        sizes.append(float(state(model)[0].abs().sum()))
    assert sizes[1] < 0.8 * sizes[0]
    model = classifier(optimizer=torch.optim.SGD, optimizer__momentum=0.9).fit(X, Y)
    assert isinstance(model.net_.optimizer_, torch.optim.SGD)


def test_another_loss() -> None:
    model = regressor(criterion=nn.L1Loss).fit(X, X[:, 2])
    assert isinstance(model.net_.criterion_, nn.L1Loss)


def test_parameters_of_the_network() -> None:
    options = {"n_layers": 3, "n_hidden_neurons_multiplier": 2, "n_w_bits": 3, "n_a_bits": 2}
    given = {f"module__{name}": value for name, value in options.items()}
    model = classifier(**given, module__activation_function=nn.Tanh).fit(X, Y)
    network = model.net_.module_
    assert network.hidden_neurons == (8, 8)
    assert network.precision.weights.n_bits == 3
    assert network.precision.activations.n_bits == 2
    assert isinstance(network.hidden[1].function, nn.Tanh)
    assert len(network.last.bias) == 3
    dense = DenseClassifier(**QUICK, **given).fit(X, Y)  # bits mean nothing to it
    assert [len(layer.bias) for layer in dense.net_.module_.layers[::2]] == [8, 8, 3]


def test_all_rows_have_room() -> None:
    model = classifier().fit(X, Y)
    module = model.net_.module_.quantized_module()
    np.testing.assert_allclose(module.forward(X), model.scores(X), atol=1e-5)
    assert (module.overflow_count, module.clipped_count) == (0, 0)


def test_the_network_that_training_begins_with() -> None:
    first = classifier().fit(X, Y)
    known = state(first)
    again = classifier(max_epochs=1, lr=1e-9).fit(X, Y, network=first.net_.module_)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(state(again), known, strict=True))
    classifier(lr=0.5).fit(X, Y, network=first.net_.module_)
    assert all(map(torch.equal, state(first), known))  # a copy is trained


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_where_it_ended(kind: Any) -> None:
    targets = targets_of(kind)
    model = kind(**QUICK, warm_start=True).fit(X, targets)
    first = [each["train_loss"] for each in model.history_]
    model.fit(X, targets)
    losses = model.history_[:, "train_loss"]
    assert len(losses) == 12
    assert losses[:6] == first
    assert losses[6] < 0.8 * losses[0]
    model.set_params(warm_start=False).fit(X, targets)
    assert model.history_[:, "train_loss"] == first


@pytest.mark.parametrize("kind", KINDS)
def test_training_in_parts(kind: Any) -> None:
    targets = targets_of(kind)
    model = kind(**QUICK)
    for number in range(3):
        part = np.random.default_rng(number).permutation(150)[:75]
        model.partial_fit(X[part], targets[part])
    losses = model.history_[:, "train_loss"]
    assert len(losses) == 18
    assert losses[-1] < 0.7 * losses[0]
    assert len(model.fit(X, targets).history_) == 6


def test_classes_that_are_told_first() -> None:
    model = classifier().partial_fit(X[:100], NAMES[:100], classes=["virginica", *NAMES[:100]])
    assert model.classes_.tolist() == np.unique(NAMES).tolist()
    assert model.predict_proba(X).shape == (150, 3)
    model.partial_fit(X[100:], NAMES[100:])
    with pytest.raises(InvalidParameterError, match=r"\['rose'\]; known are .*classes=\.\.\."):
        model.partial_fit(X[:2], ["rose", "setosa"])
    fewer = classifier().partial_fit(X[:100], NAMES[:100])
    with pytest.raises(InvalidParameterError, match=r"not known at first: \['virginica'\]"):
        fewer.partial_fit(X, NAMES)
    warm = classifier(warm_start=True).fit(X[:100], NAMES[:100])
    with pytest.raises(InvalidParameterError, match=r"not known at first: \['virginica'\]"):
        warm.fit(X, NAMES)
    warm.set_params(warm_start=False).fit(X, NAMES)


def test_targets_keep_their_units_when_training_goes_on() -> None:
    model = regressor().partial_fit(X, X[:, 2])
    known = model.center_.copy(), model.unit_.copy()
    model.partial_fit(X, 3 * X[:, 2] + 100)
    assert (model.center_, model.unit_) == known
    model.fit(X, 3 * X[:, 2] + 100)
    assert model.center_ == pytest.approx(3 * known[0] + 100)


@pytest.mark.parametrize("kind", [TrainedRegressor, DenseRegressor])
def test_training_that_diverges(kind: Any) -> None:
    options = {**QUICK, "optimizer": torch.optim.SGD, "lr": 1e6, "module__n_layers": 1}
    with pytest.raises(ModelError, match=r"training diverged: .*Lower lr \(1000000\.0\)"):
        kind(**options).fit(X, X[:, 2])


def test_parameters_that_there_are() -> None:
    model = classifier(optimizer__weight_decay=0.1, module__n_w_bits=3)
    params = model.get_params()
    assert params["optimizer__weight_decay"] == 0.1
    assert params["module__n_w_bits"] == 3
    assert params["module__n_layers"] == 2
    assert "module__input_dim" not in params
    assert clone(model).get_params() == params
    model.set_params(optimizer__weight_decay=0.2, iterator_train__drop_last=True, lr=0.5)
    assert model.get_params()["optimizer__weight_decay"] == 0.2
    assert model.get_params()["lr"] == model.lr == 0.5
    assert model.get_params()["iterator_train__drop_last"] is True
    with pytest.raises(UnknownKeyError, match="no parameter 'module__n_bits'"):
        model.set_params(module__n_bits=3)
    with pytest.raises(UnknownKeyError, match="no parameter 'n_layers'"):
        classifier(n_layers=3).fit(X, Y)


def test_a_net_that_was_not_trained() -> None:
    asked = (
        classifier().predict,
        classifier().predict_proba,
        classifier().scores,
        regressor().predict,
        lambda _: regressor().history_,
    )
    for ask in asked:
        with pytest.raises(NotFittedError):
            ask(X)
    with pytest.raises(ValueError, match="features"):
        classifier().fit(X, Y).predict(X[:, :3])


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("optimizer", "adam", r"optimizer must be a class, such as torch\.optim\.SGD, not 'adam'"),
        ("criterion", "mse", r"criterion must be a class, such as .*, not 'mse'"),
        ("train_split", 5, r"train_split must be None or a callable, .*ValidSplit\(5\), not 5"),
        ("callbacks", [3], r"must be a list of callbacks of skorch, .*not \[3\]"),
        ("callbacks", [()], r"must be a list of callbacks of skorch, .*not \[\(\)\]"),
        ("callbacks", [("a", "b", EarlyStopping())], r"must be a list of callbacks of skorch"),
        ("callbacks", [(3, EarlyStopping())], r"must be a list of callbacks of skorch"),
        ("optimizer", int, "a part of training cannot be made"),
        ("optimizer__weight_decay", -5.0, "a part of training cannot be made: .*weight_decay"),
        ("dataset__length", 3, "dataset__length cannot be set: it is the number of rows"),
        ("callbacks", 3, r"must be a list of callbacks of skorch, .*not 3"),
        ("callbacks", "all", r"must be a list of callbacks of skorch, .*not 'all'"),
        (
            "callbacks",
            [EarlyStopping()],
            r"valid_loss.*Noted are dur, .*train_loss.*train_split=.*ValidSplit\(5\)",
        ),
    ],
)
def test_parts_that_cannot_be_trained_with(parameter: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        classifier(max_epochs=1, **{parameter: value}).fit(X, Y)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("optimizer__speed", "optimizer takes .*weight_decay, .*param_groups"),
        ("criterion__weights", "criterion takes weight, "),
        ("iterator_train__rows", "iterator_train takes .*shuffle"),
        ("callbacks__stop__patience", "callbacks takes .*decay"),
    ],
)
def test_parameters_that_a_part_does_not_take(name: str, taken: str) -> None:
    with pytest.raises(UnknownKeyError, match=f"there is no '{name}': {taken}"):
        classifier(max_epochs=1, **{name: 1}).fit(X, Y)


def test_parameters_that_parts_take() -> None:
    stop = EarlyStopping(monitor="train_loss")
    named = {
        "EarlyStopping": [stop],
        "stop": [("stop", stop)],
        "EarlyStopping_2": [EarlyStopping(monitor="train_loss"), EarlyStopping],
    }
    for name, given in named.items():
        model = classifier(
            max_epochs=2,
            callbacks=given,
            **{f"callbacks__{name}__monitor": "train_loss", "optimizer__weight_decay": 1e-3},
        )
        assert len(model.fit(X, Y).history_) == 2
