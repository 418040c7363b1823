"""Estimators of networks that train on integers, beside what `tests/sklearn` checks of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping
from torch import nn

from cipherlearn import sklearn as estimators
from cipherlearn.circuit import count_lookups
from cipherlearn.engines import estimate
from cipherlearn.errors import (
    CostWarning,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
    NotCompiledError,
    NotFittedError,
    OverflowWarning,
    UnknownKeyError,
)
from cipherlearn.sklearn import NeuralNetClassifier, NeuralNetRegressor, make_pipeline
from cipherlearn.sklearn.neural_net.nets import (
    DenseClassifier,
    DenseRegressor,
    TrainedClassifier,
    TrainedRegressor,
)
from cipherlearn.torch import SparseQuantNeuralNetwork

X, Y = load_iris(return_X_y=True)
#: Measures come in tenths, which meet the borders of rounding.
X = X + np.random.default_rng(0).uniform(-0.04, 0.04, X.shape)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
VALUES = X[:, 2] + 0.5 * X[:, 0]

QUICK: dict[str, Any] = {"max_epochs": 6, "lr": 0.05, "random_state": 0}


def classifier(**options: Any) -> Any:
    return NeuralNetClassifier(**{**QUICK, **options})


def regressor(**options: Any) -> Any:
    return NeuralNetRegressor(**{**QUICK, **options})


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.base_module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("labels", [NAMES, Y + 10, Y > 0])
def test_classes_come_back_with_their_probabilities(labels: np.ndarray) -> None:
    model = classifier(max_epochs=15).fit(X, labels)
    np.testing.assert_array_equal(model.classes_, np.unique(labels))
    found = model.predict(X)
    assert found.dtype == labels.dtype
    assert (found == labels).mean() > 0.85
    assert model.score(X, labels) == (found == labels).mean()
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (150, len(model.classes_))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], found)


def test_answers_are_those_of_the_trained_network() -> None:
    model = classifier().fit(X, NAMES)
    assert model.agreement_ == 1.0
    np.testing.assert_allclose(
        model.predict_proba(X), model.sklearn_model.predict_proba(X), atol=1e-5
    )
    values = regressor().fit(X, VALUES)
    assert values.agreement_ > 0.9999
    np.testing.assert_allclose(values.predict(X), values.sklearn_model.predict(X), atol=1e-4)


def test_what_training_leaves() -> None:
    model = classifier(module__n_layers=3, module__n_w_bits=3, module__n_a_bits=5).fit(X, Y)
    assert isinstance(model.base_module, SparseQuantNeuralNetwork)
    assert model.base_module is model.sklearn_model.net_.module_
    assert model.base_module.hidden_neurons == (16, 16)
    assert model.quantized_module_ is model.module_
    assert count_lookups(model.circuit).total == 32
    assert model.n_bits_ == {"op_inputs": 5, "op_weights": 3}
    assert len(model.history_) == 6


def test_the_same_seed_gives_the_same_network() -> None:
    torch.manual_seed(1)
    first = state(classifier().fit(X, Y))
    torch.manual_seed(2)
    assert same(first, state(classifier().fit(X, Y)))
    assert not same(first, state(classifier(random_state=1).fit(X, Y)))


@pytest.mark.parametrize("n_targets", [1, 2])
def test_targets_far_from_unit_scale(n_targets: int) -> None:
    values = np.stack([VALUES, X[:, 0] - X[:, 2]], axis=1)[:, :n_targets]
    values = 1e4 + 500 * (values - values.mean(axis=0)) / values.std(axis=0)
    model = regressor(max_epochs=30).fit(X, values)
    assert model.predict(X).shape == (150, n_targets)
    for found in (model.predict(X), model.sklearn_model.predict(X)):
        residuals = np.square(found - values).mean(axis=0)
        assert (residuals < 0.2 * values.var(axis=0)).all()
    flat = regressor(max_epochs=30).fit(X, values[:, 0])
    assert flat.predict(X).shape == (150,)
    assert flat.score(X, values[:, 0]) > 0.8


def test_pruning_gives_another_network() -> None:
    model = classifier(module__n_layers=3, max_epochs=12).fit(X, NAMES)
    before = state(model)
    smaller = model.prune(X, NAMES, 0.5)
    assert model.base_module.hidden_neurons == (16, 16)
    assert same(state(model), before)
    assert model.module__n_prune_neurons_percentage == 0.0
    assert smaller.base_module.hidden_neurons == (8, 8)
    assert count_lookups(smaller.circuit).total == 16
    assert smaller.module__n_prune_neurons_percentage == 0.5
    assert len(smaller.history_) == 12
    assert smaller.score(X, NAMES) > 0.85
    assert not smaller.is_compiled
    smallest = smaller.prune(X, NAMES, 0.75)
    assert smallest.base_module.hidden_neurons == (4, 4)
    assert clone(smallest).fit(X, NAMES).base_module.hidden_neurons == (4, 4)


def test_pruned_networks_begin_with_what_was_found() -> None:
    model = regressor(max_epochs=15).fit(X, VALUES)
    smaller = model.set_params(lr=1e-9, max_epochs=1).prune(X, VALUES, 0.25)
    kept = smaller.base_module.hidden[0].weight
    known = model.base_module.hidden[0].weight
    distances = torch.cdist(kept, known).amin(dim=1)
    assert len(kept) == 12
    assert float(distances.detach().max()) < 1e-5
    assert smaller.score(X, VALUES) > 0.7


def test_wrong_shares_of_neurons() -> None:
    with pytest.raises(NotFittedError, match="is not fitted"):
        classifier().prune(X, Y, 0.5)
    model = classifier(max_epochs=1).fit(X, Y)
    for wrong in (1.0, -0.5, "half"):
        with pytest.raises(InvalidParameterError, match="from 0 to less than 1"):
            model.prune(X, Y, wrong)
    with pytest.raises(InvalidParameterError, match=r"left out already \(0\.0\)"):
        model.prune(X, Y, 0.0)
    with pytest.raises(InvalidParameterError, match=r"left out already \(0\.5\)"):
        model.prune(X, Y, 0.5).prune(X, Y, 0.4)
    with pytest.raises(InvalidShapeError, match=r"the network takes \(rows, 4\)"):
        model.prune(X[:, :3], Y, 0.5)


WRONG = [
    ("n_bits", InvalidParameterError, "n_bits cannot be set: .*module__n_w_bits"),
    ("module", InvalidParameterError, "module cannot be set: .*SparseQuantNeuralNetwork"),
    ("module__input_dim", InvalidParameterError, "it is the number of features"),
    ("module__n_outputs", InvalidParameterError, "it is the number of classes, or of targets"),
    ("module__n_layer", UnknownKeyError, "no parameter 'module__n_layer'; .*module__n_layers"),
    ("max_epoch", UnknownKeyError, "no parameter 'max_epoch'; accepted are .*max_epochs"),
    ("optimiser__weight_decay", UnknownKeyError, "those of parts: .*optimizer__"),
]


@pytest.mark.parametrize(("name", "error", "message"), WRONG)
@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNetRegressor])
def test_wrong_parameters(kind: Any, name: str, error: type[Exception], message: str) -> None:
    model = kind(**QUICK)
    with pytest.raises(error, match=message):
        model.set_params(**{name: 3})
    assert model.get_params() == kind(**QUICK).get_params()
    wrong = kind(**QUICK, **{name: 3})
    with pytest.raises(error, match=message):
        wrong.fit(X, Y)
    assert not wrong.is_fitted
    assert wrong.sklearn_model is None


def test_values_of_parameters_are_checked() -> None:
    with pytest.raises(InvalidParameterError, match="n_w_bits must lie between 2 and 8, not 1"):
        classifier(module__n_w_bits=1).fit(X, Y)
    with pytest.raises(InvalidParameterError, match="bounds must be one of"):
        classifier(module__bounds="sure").fit(X, Y)


def test_copies_have_all_parameters() -> None:
    options = {
        "module__n_w_bits": 3,
        "module__activation_function": nn.Tanh,
        "optimizer__weight_decay": 0.1,
        "iterator_train__drop_last": True,
        "callbacks__print_log": None,
        "train_split": None,
        "max_epochs": 2,
    }
    model = classifier(**options)
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert options.items() <= copied.get_params().items()
    copied.set_params(optimizer__weight_decay=0.2)
    assert model.get_params()["optimizer__weight_decay"] == 0.1
    assert same(state(model.fit(X, Y)), state(clone(model).fit(X, Y)))
    assert "optimizer__weight_decay=0.1" in repr(model)


def test_searches_over_parameters_of_the_network() -> None:
    grid = {"module__n_layers": [1, 2], "module__n_w_bits": [2, 4]}
    search = GridSearchCV(classifier(max_epochs=3), grid, cv=2, error_score="raise").fit(X, NAMES)
    assert len(search.cv_results_["params"]) == 4
    best = search.best_estimator_
    assert best.get_params().items() >= search.best_params_.items()
    assert len(best.base_module.hidden) == search.best_params_["module__n_layers"] - 1
    assert best.n_bits_["op_weights"] == search.best_params_["module__n_w_bits"]


@pytest.mark.parametrize(
    ("made", "targets", "kind"),
    [(classifier, NAMES, DenseClassifier), (regressor, VALUES, DenseRegressor)],
)
def test_the_float_network_to_compare_with(made: Any, targets: np.ndarray, kind: Any) -> None:
    options = {"module__n_hidden_neurons_multiplier": 2.5, "module__n_layers": 3, "max_epochs": 20}
    model = made(**options, module__n_prune_neurons_percentage=0.5)
    fitted, floats = model.fit_benchmark(X, targets)
    assert fitted is model
    assert type(floats) is kind
    layers = [layer for layer in floats.net_.module_.layers if isinstance(layer, nn.Linear)]
    assert tuple(len(layer.bias) for layer in layers[:-1]) == fitted.base_module.hidden_neurons
    assert fitted.base_module.hidden_neurons == (5, 5)
    assert floats.score(X, targets) > 0.7
    assert len(floats.history_) == 20
    for take in (estimators.from_model, type(model).from_model):
        with pytest.raises(InvalidTypeError, match="DenseNetwork, which was not trained on int"):
            take(floats, X)


@pytest.mark.parametrize(("made", "targets"), [(classifier, NAMES), (regressor, VALUES)])
def test_trained_nets_are_imported(made: Any, targets: np.ndarray) -> None:
    model = made().fit(X, targets)
    for take in (type(model).from_model, type(model).from_sklearn_model, estimators.from_model):
        taken = take(model.sklearn_model, X)
        assert type(taken) is type(model)
        np.testing.assert_array_equal(taken.predict(X), model.predict(X))
        assert taken.get_params() == model.get_params()
    with pytest.raises(InvalidParameterError, match="needs rows X"):
        type(model).from_model(model.sklearn_model)
    with pytest.raises(NotFittedError, match="is not fitted"):
        type(model).from_model(type(model.sklearn_model)(), X)


def test_other_models_are_not_imported() -> None:
    with pytest.raises(InvalidTypeError, match="takes a fitted TrainedClassifier, not a Trained"):
        NeuralNetClassifier.from_model(TrainedRegressor(**QUICK).fit(X, VALUES), X)
    net = TrainedClassifier(**QUICK).fit(X, Y)
    with pytest.raises(UnknownKeyError, match=r"does not take \['n_bits'\]"):
        NeuralNetClassifier.from_model(net, X, n_bits=3)


# Rows of one part may lead to sums that no other part does.
@pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")
def test_training_in_parts() -> None:
    model = classifier(max_epochs=8)
    for part in np.array_split(np.random.default_rng(0).permutation(100), 2):
        model.partial_fit(X[part], NAMES[part], classes=np.unique(NAMES))
        assert model.classes_.tolist() == np.unique(NAMES).tolist()
    model.partial_fit(X[100:], NAMES[100:])
    assert len(model.history_) == 24
    assert (model.predict(X[100:]) == "virginica").mean() > 0.8
    before = state(model)
    with pytest.raises(InvalidParameterError, match=r"not known at first: \['rose'\]"):
        model.partial_fit(X[:2], ["rose", "setosa"])
    assert same(state(model), before)
    values = regressor()
    for part in np.array_split(np.random.default_rng(0).permutation(150), 3):
        values.partial_fit(X[part], VALUES[part])
    assert values.score(X, VALUES) > 0.7


def test_ranges_of_all_parts_have_room() -> None:
    model = regressor(max_epochs=1)
    for rows in (-X, X):
        model.partial_fit(rows, VALUES)
    np.testing.assert_allclose(model.base_module.input_low.numpy(), -X.max(axis=0))
    np.testing.assert_allclose(model.base_module.input_high.numpy(), X.max(axis=0))


def test_training_goes_on_where_it_ended() -> None:
    model = classifier(warm_start=True).fit(X, Y)
    first = model.history_[:, "train_loss"]
    model.fit(X, Y)
    losses = model.history_[:, "train_loss"]
    assert len(losses) == 12
    assert losses[:6] == first
    assert losses[6] < 0.8 * losses[0]
    assert len(model.set_params(warm_start=False).fit(X, Y).history_) == 6


def test_training_that_goes_on_leaves_imported_nets_as_they_are() -> None:
    net = TrainedClassifier(**QUICK).fit(X, Y)
    model = NeuralNetClassifier.from_model(net, X)
    before = state(model)
    model.partial_fit(X, Y)
    assert len(net.history_) == 6
    assert len(model.history_) == 12
    assert same(net.net_.module_.state_dict(), before)
    assert not same(state(model), before)


def test_callbacks() -> None:
    stop = EarlyStopping(patience=2, monitor="train_loss", threshold=10.0)  # nothing is as good
    assert len(classifier(max_epochs=30, callbacks=[stop]).fit(X, Y).history_) == 3
    named = classifier(max_epochs=30, callbacks=[("stop", stop)], callbacks__stop__patience=4)
    assert len(named.fit(X, Y).history_) == 5


def test_epochs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    classifier(max_epochs=3).fit(X, Y).predict(X)
    assert not capsys.readouterr().out
    classifier(max_epochs=3, verbose=1).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "-------", "1", "2", "3"]


def test_losses_weigh_classes() -> None:
    weight = torch.tensor([1.0, 1.0, 100.0])
    models = [classifier().fit(X, Y), classifier(criterion__weight=weight).fit(X, Y)]
    counts = [int((model.predict(X) == 2).sum()) for model in models]
    assert counts[1] > counts[0] + 10


def test_scaling_is_a_part_of_the_network() -> None:
    whole = make_pipeline(StandardScaler(), classifier(max_epochs=15)).fit(X, NAMES)
    assert whole.encrypted_steps_ == ["standardscaler", "neuralnetclassifier"]
    assert not whole.client_steps_
    assert whole.agreement_ > 0.99
    rows = StandardScaler().fit_transform(X)
    last = classifier(max_epochs=15).fit(rows, NAMES)
    np.testing.assert_array_equal(whole.quantize_input(X), last.quantize_input(rows))
    np.testing.assert_allclose(whole.predict_proba(X), last.predict_proba(rows), atol=1e-6)
    assert whole.score(X, NAMES) > 0.85
    whole.compile(engine="clear")
    np.testing.assert_array_equal(whole.predict(X[:9], fhe="execute"), whole.predict(X[:9]))


def test_scaling_by_negative_factors_is_a_part_of_the_network() -> None:
    scaler = StandardScaler(with_mean=False).fit(X)
    scaler.scale_ = scaler.scale_ * np.array([-1.0, 2.0, 1.0, -3.0])
    last = regressor(max_epochs=15).fit(scaler.transform(X), VALUES)
    known = last.predict(scaler.transform(X))
    whole = clone(last)._adopt(last.sklearn_model, X, None, folded=[scaler])
    np.testing.assert_allclose(whole.predict(X), known, rtol=1e-6)


def test_steps_that_mix_features_are_refused_with_advice() -> None:
    whole = make_pipeline(PCA(3), classifier())
    with pytest.raises(InvalidParameterError, match=r"scale each feature by itself.*public=\['pca"):
        whole.fit(X, NAMES)
    public = make_pipeline(PCA(3), classifier(max_epochs=15), public=["pca"]).fit(X, NAMES)
    assert public.client_steps_ == ["pca"]
    rows = PCA(3).fit_transform(X)
    last = classifier(max_epochs=15).fit(rows, NAMES)
    np.testing.assert_allclose(public.predict_proba(X), last.predict_proba(rows), atol=1e-5)


def test_parameters_of_a_step() -> None:
    whole = make_pipeline(StandardScaler(), classifier())
    whole.set_params(neuralnetclassifier__module__n_w_bits=3, neuralnetclassifier__max_epochs=2)
    whole.fit(X, NAMES)
    assert whole.n_bits_["op_weights"] == 3
    assert len(whole.steps[-1][1].history_) == 2


def test_training_that_diverges() -> None:
    options = {"optimizer": torch.optim.SGD, "lr": 1e6, "module__n_layers": 1}
    model = regressor(**options)
    with pytest.raises(ModelError, match=r"Lower lr \(1000000\.0\), scale features and targ"):
        model.fit(X, VALUES)
    assert not model.is_fitted


def test_modes_of_running() -> None:
    model = classifier(max_epochs=15).fit(X, NAMES)
    for mode in ("simulate", "execute"):
        with pytest.raises(NotCompiledError, match=r"call compile\(\) before"):
            model.predict(X, fhe=mode)
    model.compile(engine="clear")
    assert model.is_compiled
    np.testing.assert_array_equal(model.predict(X, fhe="execute"), model.predict(X))
    simulated = model.predict(X, fhe="simulate")
    assert (simulated == model.predict(X)).mean() > 0.95
    probabilities = model.predict_proba(X, fhe="execute")
    np.testing.assert_allclose(probabilities, model.predict_proba(X))


def test_exact_rounding_is_simulated_as_it_is() -> None:
    model = classifier(max_epochs=15, module__exact_rounding=True).fit(X, NAMES)
    model.compile(engine="clear")
    np.testing.assert_allclose(model.predict_proba(X, fhe="simulate"), model.predict_proba(X))


def test_rows_unlike_those_of_training_are_told() -> None:
    narrow = X[:, 2:3] * np.ones(4) + 0.01 * X
    model = classifier(module__n_a_bits=5).fit(narrow, Y)
    corners = np.where(np.arange(4) % 2, narrow.max(axis=0), narrow.min(axis=0))[None]
    with pytest.warns(OverflowWarning, match="accumulators of 1 rows"):
        model.predict(corners)
    assert model.module_.overflow_count > 0
    proved = classifier(module__bounds="proved", module__n_accum_bits=9).fit(narrow, Y)
    proved.predict(corners)
    assert proved.module_.overflow_count == 0
    assert proved.circuit.is_proved


def test_what_the_client_learns() -> None:
    model = classifier(max_epochs=1)
    with pytest.raises(NotFittedError):
        _ = model.client_learns
    each = "ranges of the features; scale and constant of each score"
    assert (
        model.fit(X, Y).client_learns == f"{each}, and the score itself instead of an answer alone"
    )
    assert regressor(max_epochs=1).fit(X, VALUES).client_learns == each
    assert model.n_sent == 4


def test_many_neurons_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(max_epochs=1).fit(X, Y)
    monkeypatch.setattr(estimate, "MANY_LOOKUPS", 16)
    model.compile(engine="clear")
    monkeypatch.setattr(estimate, "MANY_LOOKUPS", 15)
    message = r"hidden neurons need 16 table look-ups .*n_hidden_neurons_multiplier.*prune\(\)"
    with pytest.warns(CostWarning, match=message):
        model.compile(engine="clear")
