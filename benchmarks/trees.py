"""Tree ensembles and additive models: figures, and score against cost of families of models."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import train_test_split

import cipherlearn.sklearn as encrypted
from benchmarks.data import TABLES, Split, standardized, table_data
from benchmarks.networks import small_mlp
from benchmarks.report import Figure, Note
from cipherlearn.circuit import count_lookups
from cipherlearn.engines.estimate import CostReport
from cipherlearn.sklearn.trees._estimator import TreeEstimator, on_grid
from cipherlearn.torch import build_quantized_module

#: Seed of all estimators and of all splits.
SEED = 42

#: Encrypted rows of the models of `MODELS`, and of small ones of every estimator: they are compared
#: with the exact evaluator.
ENCRYPTED_ROWS, SMALL_ROWS = 10, 3

#: Least of them over all estimators, and those that may differ.
LEAST_ROWS, MOST_DIFFERENT = 100, 0

#: Bits of leaves with which rounding them does not matter, and the error of values that is left, in
#: units of how much values vary.
EXACT_LEAF_BITS, EXACT = 16, 1e-3

#: Rows that are predicted in the clear and simulated, and the seconds that they may take.
MANY_ROWS, MOST_SECONDS, MOST_SIMULATED_SECONDS = 100_000, 3.0, 10.0


@dataclass(frozen=True)
class Model:
    """An estimator on a data set, and what it must reach.

    Parameters
    ----------
    estimator : str
        Of `cipherlearn.sklearn`.
    data : str
        ``"breast cancer"``, ``"breast cancer, 14 features"`` (or another number of them), or
        ``"diabetes"``.
    params : dict
    most_complexity : float, optional
    most_lookups : int, optional
    most_seconds : float, optional
        Of one encrypted row, run by the server on inputs that were sent plain.
    peer : float, optional
        Complexity of the peer's estimator with the same parameters.
    """

    estimator: str
    data: str
    params: dict[str, Any]
    most_complexity: float | None = None
    most_lookups: int | None = None
    most_seconds: float | None = None
    peer: float | None = None
    name: str = field(default="", kw_only=True)

    def __str__(self) -> str:
        """How tables name the model."""
        given = ", ".join(f"{name} {value}" for name, value in self.params.items())
        return f"{self.name or self.estimator} ({given}) on {self.data}"

    def fitted(self, split: Split) -> Any:
        """The estimator, trained on a split."""
        made = getattr(encrypted, self.estimator)(**quiet(self.estimator), **self.params)
        return made.fit(split[0], split[2])


def quiet(estimator: str) -> dict[str, Any]:
    """Parameters that fix the seed, and keep libraries from using more than one thread."""
    if estimator.startswith("CatBoost"):
        return {"random_seed": SEED, "thread_count": 1, "verbose": False}
    if estimator.startswith("LGBM"):
        return {"random_state": SEED, "n_jobs": 1, "verbose": -1}
    if estimator.startswith(("GradientBoosting", "HistGradientBoosting", "DecisionTree")):
        return {"random_state": SEED}
    return {"random_state": SEED, "n_jobs": 1}


#: The figures that issues name.
MODELS = (
    Model(
        "XGBClassifier",
        "breast cancer",
        {"n_estimators": 50, "max_depth": 4, "n_bits": 6},
        4.5e10,
        peer=2.8e11,
    ),
    Model(
        "XGBClassifier",
        "breast cancer",
        {"n_estimators": 50, "max_depth": 4, "n_bits": 3},
        peer=9.7e10,
    ),
    Model(
        "CatBoostClassifier",
        "breast cancer",
        {"n_estimators": 50, "depth": 4, "n_bits": 4},
        7.5e9,
    ),
    Model(
        "RandomForestClassifier",
        "breast cancer",
        {"n_estimators": 20, "max_depth": 4, "n_bits": 4},
        peer=8.3e10,
    ),
    Model(
        "XGBRegressor",
        "diabetes",
        {"n_estimators": 50, "max_depth": 3, "n_bits": 5},
        peer=1.2e11,
    ),
    Model(
        "XGBClassifier",
        "breast cancer, 14 features",
        {"n_estimators": 100, "max_depth": 1, "n_bits": 6},
        most_lookups=0,
        most_seconds=0.06,
        name="boosted stumps",
    ),
    Model(
        "ExplainableBoostingClassifier",
        "breast cancer, 14 features",
        {"interactions": 0, "n_bits": 6},
        most_lookups=0,
        most_seconds=0.06,
    ),
    Model(
        "ExplainableBoostingClassifier",
        "breast cancer, 14 features",
        {"interactions": 10, "n_bits": 6},
        most_seconds=0.4,
    ),
    Model("LGBMClassifier", "breast cancer", {"n_estimators": 50, "max_depth": 4, "n_bits": 4}),
    Model("HistGradientBoostingClassifier", "breast cancer", {"max_iter": 50, "max_depth": 4}),
    Model("DecisionTreeClassifier", "breast cancer", {"max_depth": 6}),
)


def data_of(name: str) -> Split:
    """Rows to train and to test, and their labels."""
    if name == "diabetes":
        x, y = load_diabetes(return_X_y=True)
    else:
        x, y = load_breast_cancer(return_X_y=True)
        features = name.partition(", ")[2].partition(" ")[0]
        x = x[:, : int(features)] if features else x
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=SEED)
    return x_train, x_test, y_train, y_test


def run() -> Iterator[Figure | Note]:
    """All figures; data sets whose file is missing are skipped with a note."""
    rows = different = 0
    for model in MODELS:
        split = data_of(model.data)
        fitted = model.fitted(split)
        yield from _cost(model, fitted, split)
        yield from _agreement(model, split)
        seconds, wrong = encrypted_rows(fitted, split[1][:ENCRYPTED_ROWS])
        yield Figure(f"{model}: seconds a row", seconds)
        if model.most_seconds is not None:
            plain, most = run_seconds(fitted, split[1]), model.most_seconds
            yield Figure(f"{model}: seconds of a run on plain inputs", plain, at_most=most)
        rows, different = rows + ENCRYPTED_ROWS, different + wrong
    for model in small_models():
        split = data_of(model.data)
        fitted = model.fitted(split)
        fitted.compile()
        _, wrong = encrypted_rows(fitted, split[1][:SMALL_ROWS])
        rows, different = rows + SMALL_ROWS, different + wrong
    yield Figure("encrypted rows compared with the exact evaluator", rows, at_least=LEAST_ROWS)
    yield Figure("rows that differ", different, at_most=MOST_DIFFERENT)
    yield from _many_rows()
    for name in ("breast cancer", "diabetes", *TABLES):
        try:
            split = data_of(name) if name not in TABLES else table_data(name)
        except FileNotFoundError as error:
            yield Note(f"{name} is skipped: {error}")
            continue
        yield from families(name, split)


def small_models() -> Iterator[Model]:
    """A model of every estimator, with few bits and few trees."""
    sizes = {
        "CatBoost": {"iterations": 5, "depth": 3},
        "DecisionTree": {"max_depth": 3},
        "Explainable": {"interactions": 1, "max_rounds": 50},
        "HistGradient": {"max_iter": 5, "max_depth": 3},
        "Isolation": {"n_estimators": 5},
    }
    for name in dir(encrypted):
        if not name[0].isupper() or not issubclass(getattr(encrypted, name), TreeEstimator):
            continue
        data = "diabetes" if name.endswith("Regressor") else "breast cancer, 6 features"
        known = (size for start, size in sizes.items() if name.startswith(start))
        size = next(known, {"n_estimators": 5, "max_depth": 3})
        yield Model(name, data, {**size, "n_bits": 3})


def _cost(model: Model, fitted: Any, split: Split) -> Iterator[Figure]:
    """Score on test rows, look-ups, complexity, size of an encrypted row; compiles."""
    yield Figure(f"{model}: {measure_of(split)}", score_of(fitted, split))
    float_score = score_of(
        fitted.float_class(**fitted.get_sklearn_params()).fit(split[0], split[2]), split
    )
    yield Figure(f"{model}: {measure_of(split)} of the float model", float_score)
    fitted.compile()
    cost = fitted.cost()
    lookups = count_lookups(fitted.circuit).total
    yield Figure(f"{model}: look-ups", lookups, at_most=model.most_lookups)
    complexity = model.most_complexity
    yield Figure(f"{model}: complexity", cost.complexity, at_most=complexity, peer=model.peer)
    yield Figure(f"{model}: encrypted row (kB)", cost.size_of_inputs / 1e3)


def _agreement(model: Model, split: Split) -> Iterator[Figure]:
    """How many rows are predicted as the library itself predicts their points of the grid."""
    inputs = model.params.get("n_bits", 6)
    params = {**model.params, "n_bits": {"op_inputs": inputs, "op_leaves": EXACT_LEAF_BITS}}
    fitted = replace(model, params=params).fitted(split)
    x = split[1]
    found, expected = fitted.predict(x), fitted.sklearn_model.predict(on_grid(x, fitted.codes_))
    if measure_of(split) == "R2":
        same = np.abs(found - expected) <= EXACT * np.std(split[3])
    else:
        same = found == expected
    # Pairs are approximated.
    at_least = None if params.get("interactions") else 1.0
    name = f"{model}: rows predicted as by the library on the grid"
    yield Figure(name, float(same.mean()), at_least=at_least)


def run_seconds(fitted: Any, x: np.ndarray) -> float:
    """The median of the seconds that the server takes for a row whose bits were sent plain."""
    fitted.compile(compress_inputs=False)
    program = fitted.fhe_circuit
    program.keygen()
    bits = fitted.quantize_input(x[:1])
    encrypted = program.encrypt(*(bits if isinstance(bits, tuple) else (bits,)))
    values = encrypted if isinstance(encrypted, tuple) else (encrypted,)
    times = []
    for _ in range(ENCRYPTED_ROWS + 1):  # the first run unpacks the keys
        start = time.perf_counter()
        program.run(*values)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def encrypted_rows(fitted: Any, x: np.ndarray) -> tuple[float, int]:
    """The median of the seconds that a row takes, and rows that differ from the clear ones."""
    fitted.fhe_circuit.keygen()
    fitted.predict(x[:1], fhe="execute")  # the first run unpacks the keys
    expected, times, wrong = fitted.module_.forward(x), [], 0
    for row, exact in zip(x, expected, strict=True):
        start = time.perf_counter()
        found = fitted.module_.forward(row[None], fhe="execute")
        times.append(time.perf_counter() - start)
        wrong += int(not np.array_equal(found[0], exact))
    return statistics.median(times), wrong


def _many_rows() -> Iterator[Figure]:
    x, _, y, _ = data_of("breast cancer")
    fitted = encrypted.XGBClassifier(n_estimators=100, n_jobs=1, random_state=SEED).fit(x, y)
    fitted.compile()
    many = np.resize(x, (MANY_ROWS, x.shape[1]))
    for mode, most in (("disable", MOST_SECONDS), ("simulate", MOST_SIMULATED_SECONDS)):
        start = time.perf_counter()
        fitted.predict(many, fhe=mode)
        seconds = time.perf_counter() - start
        yield Figure(f"100 trees, {MANY_ROWS} rows, fhe={mode!r} (s)", seconds, at_most=most)


def measure_of(split: Split) -> str:
    """What models are scored with."""
    return "area under the curve" if set(np.unique(split[3])) <= {0, 1} else "R2"


def score_of(fitted: Any, split: Split) -> float:
    """That score on the test rows."""
    _, x_test, _, y_test = split
    if measure_of(split) == "R2":
        return float(r2_score(y_test, fitted.predict(x_test)))
    return float(roc_auc_score(y_test, fitted.predict_proba(x_test)[:, 1]))


def families(name: str, split: Split) -> Iterator[Figure]:
    """Score and cost of every family on one data set, with 6 bits a feature."""
    kind = "Regressor" if measure_of(split) == "R2" else "Classifier"
    members: dict[str, tuple[str, dict[str, Any]]] = {
        "stumps": (f"XGB{kind}", {"n_estimators": 200, "max_depth": 1}),
        "EBM": (f"ExplainableBoosting{kind}", {"interactions": 0}),
        "EBM, 10 pairs": (f"ExplainableBoosting{kind}", {"interactions": 10}),
        "CatBoost, depth 4": (f"CatBoost{kind}", {"n_estimators": 50, "depth": 4}),
        "XGBoost, depth 4": (f"XGB{kind}", {"n_estimators": 50, "max_depth": 4}),
        "forest, depth 6": (f"RandomForest{kind}", {"n_estimators": 20, "max_depth": 6}),
    }
    for family, (estimator, params) in members.items():
        fitted = Model(estimator, name, {**params, "n_bits": 6}).fitted(split)
        yield Figure(f"{name}, {family}: {measure_of(split)}", score_of(fitted, split))
        fitted.compile()
        yield from _price(f"{name}, {family}", fitted.cost())
    yield from _network(name, split)


def _price(name: str, cost: CostReport) -> Iterator[Figure]:
    yield Figure(f"{name}: complexity", cost.complexity)
    yield Figure(f"{name}: estimated seconds a row", cost.estimated_seconds)


def _network(name: str, split: Split) -> Iterator[Figure]:
    """A small network with the bits that ``n_bits="auto"`` takes."""
    case = small_mlp(standardized(split))
    module = build_quantized_module(case.net, case.calibration, labels=case.calibration_labels)
    outputs = module.forward(case.x_test)
    if case.y_test.dtype.kind == "f":
        yield Figure(f"{name}, network: R2", float(r2_score(case.y_test, outputs[:, 0])))
    else:
        margin = outputs[:, -1] - (outputs[:, 0] if outputs.shape[1] > 1 else 0.0)
        area = float(roc_auc_score(case.y_test, margin))
        yield Figure(f"{name}, network: area under the curve", area)
    module.compile()
    yield from _price(f"{name}, network", module.cost())
