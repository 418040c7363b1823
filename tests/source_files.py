"""The package read as source text, for the tests of its layout and its rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "cipherlearn"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE

# Functions that import a module by its name.
IMPORTERS = frozenset({"import_module", "__import__"})

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class SourceFile:
    """A module of the package: dotted name, text, syntax tree."""

    module: str
    is_package: bool
    text: str
    tree: ast.Module

    @classmethod
    def from_text(cls, module: str, text: str, is_package: bool = False) -> SourceFile:
        return cls(module, is_package, text, ast.parse(text))

    @property
    def layer(self) -> str:
        """The part of the layout that the module belongs to ("" for the package itself)."""
        return layer_of(self.module)

    def imported(self) -> Iterator[tuple[int, str]]:
        """Every import with its line: at the top, in functions, for type checkers, by name."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                # `from package import name` may import a module as well as a name of one.
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Call) and _called_name(node) in IMPORTERS:
                name = _constant_argument(node)
                if name is not None:
                    yield node.lineno, name

    def functions(self) -> Iterator[FunctionNode]:
        return (node for node in ast.walk(self.tree) if isinstance(node, FunctionNode))

    def code_lines(self, function: FunctionNode) -> int:
        """Lines of a function without its docstring, comments and blank lines."""
        numbers = set(range(function.lineno, (function.end_lineno or 0) + 1))
        if ast.get_docstring(function, clean=False) is not None:
            docstring = function.body[0]
            numbers -= set(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
        lines = [line.strip() for line in self.text.splitlines()]
        return sum(bool(lines[n - 1]) and not lines[n - 1].startswith("#") for n in numbers)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.split(".")
        kept = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*kept, *([node.module] if node.module else [])])


def layer_of(module: str) -> str:
    """The first name below the package in a dotted name, "" for the package itself."""
    return module.removeprefix(PACKAGE).removeprefix(".").split(".")[0]


def is_within(module: str, package: str) -> bool:
    """Whether a dotted name is a package or something inside it."""
    return module == package or module.startswith(f"{package}.")


@cache
def source_files() -> tuple[SourceFile, ...]:
    """All modules of the package, in the order of their names."""
    return tuple(_read(path) for path in sorted(SOURCE.rglob("*.py")))


def _read(path: Path) -> SourceFile:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    return SourceFile.from_text(module, path.read_text(encoding="utf-8"), is_package)


def _called_name(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _constant_argument(node: ast.Call) -> str | None:
    if node.args and isinstance(node.args[0], ast.Constant):
        value = node.args[0].value
        return value if isinstance(value, str) else None
    return None
