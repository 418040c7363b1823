"""Data sets from files that the reader has: where they are looked for, and how they are read."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

#: Names the folder of the data sets that are not shipped with a package.
DATA_VARIABLE = "CIPHERLEARN_DATA"

#: Where Keras keeps its data sets.
KERAS_DATA = Path.home() / ".keras" / "datasets"

#: Rows to train, rows to test, and the labels of both.
Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Table:
    """A file of comma-separated values without a header; its last column is to be predicted.

    Parameters
    ----------
    file : str
    is_classification : bool
        Whether the last column is a class number.
    """

    file: str
    is_classification: bool


#: From the UCI and KEEL repositories.
TABLES = {
    "phoneme": Table("phoneme.csv", is_classification=True),
    "pima": Table("pima-indians-diabetes.csv", is_classification=True),
    "winequality-white": Table("winequality-white.csv", is_classification=False),
    "abalone": Table("abalone.csv", is_classification=False),
}


def data_file(name: str, folder: Path | None = None) -> Path:
    """The file of a data set: in ``folder``, in the folder CIPHERLEARN_DATA names, or in Keras's.

    Parameters
    ----------
    name : str
        Of the file, with its suffix.
    folder : pathlib.Path, optional
        Is the only one looked at if it is given.

    Raises
    ------
    FileNotFoundError
        If no such folder has the file.
    """
    named = os.environ.get(DATA_VARIABLE)
    folders = [folder] if folder else [*([Path(named)] if named else []), KERAS_DATA]
    for candidate in folders:
        if (candidate / name).is_file():
            return candidate / name
    looked = ", ".join(map(str, folders))
    raise FileNotFoundError(
        f"there is no {name} in {looked}: set {DATA_VARIABLE} to the folder that has it"
    )


def mnist_data(folder: Path | None = None) -> Split:
    """Rows of 784 pixels from 0 to 1 and their labels: 60,000 to train and 10,000 to test."""
    with np.load(data_file("mnist.npz", folder), allow_pickle=False) as arrays:
        x_train, x_test = (
            arrays[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("x_train", "x_test")
        )
        y_train, y_test = (arrays[name].astype(np.int64) for name in ("y_train", "y_test"))
    return x_train, x_test, y_train, y_test


def table_data(name: str, folder: Path | None = None) -> Split:
    """A table of `TABLES`: three quarters to train, features of mean 0 and deviation 1.

    Columns of text become a column of 0 and 1 for each word. What is predicted is a class number,
    or a value, which then has mean 0 and deviation 1 too.
    """
    table = TABLES[name]
    with data_file(table.file, folder).open(newline="") as lines:
        columns = list(zip(*csv.reader(lines), strict=True))
    x = np.column_stack([values for column in columns[:-1] for values in _features(column)])
    y = np.array(columns[-1], dtype=np.float64)
    y = y.astype(np.int64) if table.is_classification else y
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0)
    return standardized((x_train, x_test, y_train, y_test))


def standardized(split: Split) -> Split:
    """Features, and values that are to be predicted, with mean 0 and deviation 1 in training."""
    x_train, x_test, y_train, y_test = split
    inputs = _standardized(x_train, x_test)
    if y_train.dtype.kind == "i":
        return *inputs, y_train, y_test
    return *inputs, *_standardized(y_train, y_test)


def _features(column: tuple[str, ...]) -> list[np.ndarray]:
    values = np.array(column)
    try:
        return [values.astype(np.float64)]
    except ValueError:  # words
        return [(values == word).astype(np.float64) for word in np.unique(values)]


def _standardized(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in units of the first one's deviation from its mean."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scaled_train, scaled_test = ((x - mean) / deviation for x in (train, test))
    return scaled_train.astype(np.float32), scaled_test.astype(np.float32)
