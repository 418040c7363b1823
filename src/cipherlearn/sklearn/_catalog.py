"""All estimators, found by what files declare: nothing else names them.

A file of one of the `FOLDERS` says which ``PACKAGE`` it reads and which ``EXTRA`` of cipherlearn
installs it (None where it is installed always), and defines estimators: classes with ``wraps=``.
Files are read, not imported, until one of their estimators is asked for.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cipherlearn.errors import InvalidTypeError, MissingDependencyError
from cipherlearn.sklearn._reading import refuse_composed

#: Packages beside this file whose files define estimators.
FOLDERS = (
    "linear.models",
    "neighbors.models",
    "networks.models",
    "neural_net.models",
    "trees.libraries",
)


@dataclass(frozen=True)
class Library:
    """A file of estimators.

    Parameters
    ----------
    module : str
        Its name, as it is imported.
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
        return importlib.import_module(self.module)


@functools.cache
def libraries() -> tuple[Library, ...]:
    """All libraries, by folder and name of their file."""
    found = []
    for folder, path in _files():
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
        module = f"{__package__}.{folder}.{path.stem}"
        found.append(Library(module, str(constants["PACKAGE"]), constants["EXTRA"], wrapping))
    return tuple(found)


def _files() -> Iterator[tuple[str, Path]]:
    here = Path(__file__).parent
    for folder in FOLDERS:
        for path in sorted(here.joinpath(*folder.split(".")).glob("[!_]*.py")):
            yield folder, path


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
    raise AttributeError(f"there is no estimator {name!r}")


def estimator_for(model: Any) -> Any:
    """The estimator class that a fitted model becomes: see `EncryptedEstimator.takes`.

    Raises
    ------
    InvalidTypeError
        If there is none.
    """
    refuse_composed(model)
    modules = [ancestor.__module__ for ancestor in type(model).__mro__]
    packages = {module.partition(".")[0] for module in modules}
    for library in libraries():
        beside = library.module.rpartition(".models.")[0]  # a float model of our own
        if library.package not in packages and not (beside and modules[0].startswith(beside)):
            continue
        module = library.load()
        for name in library.estimators:
            if getattr(module, name).takes(model):
                return getattr(module, name)
    raise InvalidTypeError(
        f"a {type(model).__name__} cannot be imported; the models of "
        f"{', '.join(sorted(estimator_names()))} can"
    )
