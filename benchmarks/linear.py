"""Linear models: labels as scikit-learn's, look-ups, and the time of rows in batches."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn import datasets, decomposition, preprocessing
from sklearn.utils import get_tags

import cipherlearn.sklearn as encrypted
from benchmarks.data import table_data
from benchmarks.report import Figure, Note
from cipherlearn.circuit import count_lookups
from cipherlearn.sklearn._catalog import libraries

#: Rows that are encrypted together, and features of the rows that are timed.
BATCH, FEATURES = 64, 30

#: Milliseconds that a row may take, and how often a batch is timed.
MOST_MILLISECONDS, REPEATS = 2.0, 5

Data = tuple[np.ndarray, np.ndarray]

#: What labels are compared on: all rows, features of mean 0 and deviation 1.
DATA: dict[str, Callable[..., Any]] = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}


def run() -> Iterator[Figure | Note]:
    """All figures."""
    tables = {name: _standardized(*load(return_X_y=True)) for name, load in DATA.items()}
    x_train, x_test, y_train, y_test = table_data("phoneme")
    tables["phoneme"] = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    yield from _labels(tables)
    yield from _pipelines(tables["breast cancer"])
    yield from _lookups(tables["iris"])
    yield from _seconds(tables["breast cancer"])


def _standardized(x: np.ndarray, y: np.ndarray) -> Data:
    return preprocessing.StandardScaler().fit_transform(x), y


def _alike(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Share of rows with the label that scikit-learn's model gives."""
    fitted, floats = model.fit_benchmark(x, y)
    return float((fitted.predict(x) == floats.predict(x)).mean())


def _labels(tables: dict[str, Data]) -> Iterator[Figure]:
    for name, (x, y) in tables.items():
        model = encrypted.LogisticRegression(max_iter=5000, n_bits=8)
        label = f"LogisticRegression, 8 bits, {name}: rows with scikit-learn's label"
        yield Figure(label, _alike(model, x, y), at_least=0.99)
    for name in ("iris", "wine", "phoneme"):
        for estimator in ("GaussianNB", "QuadraticDiscriminantAnalysis"):
            share = _alike(getattr(encrypted, estimator)(), *tables[name])
            yield Figure(f"{estimator}, {name}: rows with scikit-learn's label", share)


def _pipelines(table: Data) -> Iterator[Figure]:
    classifier = encrypted.LogisticRegression(max_iter=5000, n_bits=8)
    for steps in (
        [preprocessing.StandardScaler(), decomposition.PCA(10)],
        [preprocessing.QuantileTransformer(n_quantiles=100)],
    ):
        model = encrypted.make_pipeline(*steps, classifier)
        share = _alike(model, *table)
        what = ", ".join(type(step).__name__ for step in steps)
        (inputs,) = model.circuit.inputs
        name = f"{what} and LogisticRegression in one circuit of {inputs.shape[-1]} inputs"
        yield Figure(f"{name}: rows with scikit-learn's label", share, at_least=0.99)


def _lookups(table: Data) -> Iterator[Figure]:
    x, y = table
    x = x - x.min(axis=0)  # some take no negative values
    found = []
    names = [name for of in libraries() if ".linear." in of.module for name in of.estimators]
    for name in names:
        model = getattr(encrypted, name)()
        if "n_components" in model.get_params():
            model.set_params(n_components=1)
        tags = get_tags(model)
        rows = x if tags.input_tags.two_d_array else x[:, 0]
        # Several targets for those that take nothing else.
        targets = 1.0 + (y if tags.target_tags.single_output else np.stack([y, x[:, 0]], axis=1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are not meant for this data
            model.fit(rows, targets)
        found.append(count_lookups(model.circuit).total)
    yield Figure(f"look-ups in {len(found)} linear models", sum(found), at_most=0)


def _seconds(table: Data) -> Iterator[Figure | Note]:
    x, y = table
    model = encrypted.LogisticRegression(max_iter=5000, n_bits=8).fit(x, y)
    rows = x[:BATCH, :FEATURES]
    for sent, compressed in (("plain", False), ("compressed", True)):
        model.compile(compress_inputs=compressed)
        wanted = model.predict(rows)
        found = model.predict(rows, fhe="execute")  # makes keys
        if (found != wanted).any():
            raise SystemExit("encrypted labels differ from those in the clear")
        yield from _parts(model, rows, sent)


def _parts(model: Any, rows: np.ndarray, sent: str) -> Iterator[Figure]:
    """Milliseconds a row of what the client and the server do, the fastest of a few runs."""
    program = model.module_.batch_program(len(rows))
    integers = np.asarray(model.quantize_input(rows)).reshape(program.circuit.inputs[0].shape)
    times = []
    for _ in range(REPEATS):
        ticks = [time.perf_counter()]
        ciphertexts = program.encrypt(integers)
        ticks.append(time.perf_counter())
        results = program.run(ciphertexts)
        ticks.append(time.perf_counter())
        program.decrypt(results)
        ticks.append(time.perf_counter())
        times.append(np.diff(ticks))
    encryption, server, decryption = 1000 * np.min(times, axis=0) / len(rows)
    what = f"{FEATURES} features in batches of {BATCH}, {sent} inputs, ms a row"
    yield Figure(f"{what}: the server's run", server, at_most=MOST_MILLISECONDS)
    yield Figure(f"{what}: encryption", encryption)
    whole = encryption + server + decryption
    yield Figure(f"{what}: all of it", whole, at_most=MOST_MILLISECONDS)
