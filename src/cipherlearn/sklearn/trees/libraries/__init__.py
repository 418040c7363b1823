"""One file a tree library, found by what it declares: nothing else names a library.

A file says which ``PACKAGE`` it reads and which ``EXTRA`` of cipherlearn installs it (None where it
is installed always), and defines estimators: subclasses of `TreeClassifier` or `TreeRegressor` with
``wraps=``. Files are read, not imported, until one of their estimators is asked for.
"""

from __future__ import annotations

import ast
import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cipherlearn.errors import InvalidTypeError, MissingDependencyError
from cipherlearn.sklearn.trees.reading import refuse_composed


@dataclass(frozen=True)
class Library:
    """A file of this package.

    Parameters
    ----------
    module : str
        Its name.
    package : str
        What it reads the models of.
    extra : str or None
        What installs that.
    estimators : tuple of str
        The names of its classes.
    """

    module: str
    package: str
    extra: str | None
    estimators: tuple[str, ...]

    def load(self) -> Any:
        """Import the file.

        Raises
        ------
        MissingDependencyError
            If the package is not installed.
        """
        try:
            importlib.import_module(self.package)
        except ImportError as error:
            raise MissingDependencyError(
                f"{', '.join(self.estimators)} need the package {self.package}, which cannot be "
                f"imported ({error}): pip install 'cipherlearn[{self.extra}]'"
            ) from error
        return importlib.import_module(f"{__name__}.{self.module}")


@functools.cache
def libraries() -> tuple[Library, ...]:
    """All libraries, by the name of their file."""
    found = []
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        constants: dict[str, Any] = {
            target.id: node.value.value
            for node in body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        classes = [node for node in body if isinstance(node, ast.ClassDef)]
        wrapping = tuple(c.name for c in classes if any(k.arg == "wraps" for k in c.keywords))
        found.append(Library(path.stem, str(constants["PACKAGE"]), constants["EXTRA"], wrapping))
    return tuple(found)


def estimator_names() -> list[str]:
    """Names of all estimators, of libraries that are not installed as well."""
    return [name for library in libraries() for name in library.estimators]


def estimator(name: str) -> Any:
    """The estimator of that name.

    Raises
    ------
    AttributeError
        If there is none.
    MissingDependencyError
        If its library is not installed.
    """
    for library in libraries():
        if name in library.estimators:
            return getattr(library.load(), name)
    raise AttributeError(f"there is no tree estimator {name!r}")


def estimator_for(model: Any) -> Any:
    """The estimator class that a fitted model becomes: see `TreeEstimator.takes`.

    Raises
    ------
    InvalidTypeError
        If there is none.
    """
    refuse_composed(model)
    packages = {ancestor.__module__.partition(".")[0] for ancestor in type(model).__mro__}
    for library in libraries():
        if library.package not in packages:
            continue
        module = library.load()
        for name in library.estimators:
            if getattr(module, name).takes(model):
                return getattr(module, name)
    raise InvalidTypeError(
        f"a {type(model).__name__} cannot be imported; the models of "
        f"{', '.join(sorted(estimator_names()))} can"
    )
