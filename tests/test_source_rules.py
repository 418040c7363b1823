"""What the source may not contain, and how long its pieces may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.source_files import SourceFile, is_within, source_files

FILE_LINES = 500
FUNCTION_LINES = 60

# Modules whose loaders run code that the loaded file chooses.
UNSAFE_MODULES = ("cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve")
UNSAFE_CALLS = ("compile", "eval", "exec")
# Functions of others that unpickle.
UNSAFE_LOADERS = ("joblib.load", "torch.load", "pd.read_pickle", "pandas.read_pickle")


def breaches(source: SourceFile) -> Iterator[str]:
    for line, name in source.imported():
        if any(is_within(name, module) for module in UNSAFE_MODULES):
            yield f"{source.module}, line {line}: imports {name}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assert):
            yield f"{source.module}, line {node.lineno}: assert (raise an error of errors.py)"
        elif isinstance(node, ast.Call):
            yield from (f"{source.module}, line {node.lineno}: {text}" for text in unsafe(node))


def unsafe(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
        yield f"calls {node.func.id}"
    if ast.unparse(node.func) in UNSAFE_LOADERS:
        yield f"calls {ast.unparse(node.func)}"
    for keyword in node.keywords:
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
            yield "allows pickle"


def long_functions(source: SourceFile) -> Iterator[str]:
    for function in source.functions():
        lines = source.code_lines(function)
        if lines > FUNCTION_LINES:
            yield f"{source.module}.{function.name}: {lines} lines"


def snippet(text: str) -> SourceFile:
    return SourceFile.from_text("cipherlearn.circuit.snippet", text)


def test_source_files_are_found() -> None:
    assert {"cipherlearn", "cipherlearn.errors"} <= {source.module for source in source_files()}


def test_no_assert_and_nothing_that_runs_code_from_files() -> None:
    found = [text for source in source_files() for text in breaches(source)]
    assert not found, "\n".join(found)


def test_files_are_short() -> None:
    lengths = {source.module: len(source.text.splitlines()) for source in source_files()}
    assert not {name: length for name, length in lengths.items() if length > FILE_LINES}


def test_functions_are_short() -> None:
    found = [text for source in source_files() for text in long_functions(source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "assert x",
        "def f():\n    assert x, 'message'\n",
        "import pickle",
        "from pickle import loads",
        "def f():\n    import cloudpickle as cp\n",
        "eval('1')",
        "exec(code)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
    ],
)
def test_a_breach_is_seen(text: str) -> None:
    assert list(breaches(snippet(text)))


@pytest.mark.parametrize(
    "text",
    [
        "# assert",
        "model.eval()",
        "compiler.compile(circuit)",
        "re.compile(pattern)",
        "np.load(path, allow_pickle=False)",
        "raise ValueError('pickle')",
    ],
)
def test_what_only_looks_like_a_breach_is_left_alone(text: str) -> None:
    assert not list(breaches(snippet(text)))


def test_the_length_of_a_function_is_its_code() -> None:
    source = snippet(
        '''
def f(
    x,
):
    """Two lines
    of documentation."""

    # a comment
    y = x  # beside code

    return y
'''
    )
    (function,) = source.functions()
    assert source.code_lines(function) == 5


def test_a_long_function_is_seen() -> None:
    source = snippet("def f():\n" + "    pass\n" * FUNCTION_LINES)
    assert list(long_functions(source)) == ["cipherlearn.circuit.snippet.f: 61 lines"]
