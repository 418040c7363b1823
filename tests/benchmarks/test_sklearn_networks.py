from __future__ import annotations

from benchmarks import sklearn_networks
from cipherlearn import sklearn as encrypted


def test_figures_of_a_small_model() -> None:
    model = encrypted.SVC(n_bits=4, max_points=5)
    x, y = sklearn_networks.datasets.load_iris(return_X_y=True)
    split = x[::2], x[1::2], y[::2], y[1::2]
    found = {f.name: f.value for f in sklearn_networks._figures("iris", model, split)}
    assert found["iris: look-ups"] == 5
    assert found["iris: complexity"] > 1e7
    assert found["iris: accuracy"] > 0.7
    assert found["iris: accuracy of scikit-learn"] > 0.9
    names = [*sklearn_networks.CLASSIFIERS.values(), *sklearn_networks.REGRESSORS.values()]
    assert all(hasattr(encrypted, name) for name, _ in names)
