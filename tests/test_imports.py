"""Imports go one way, and importing the package loads and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

import cipherlearn
from tests.source_files import PACKAGE, SourceFile, is_within, layer_of, source_files

# From the bottom to the top: a layer imports itself and the lines above it, not its own neighbours.
LAYERS = (
    {"errors"},
    {"circuit"},
    {"engines"},
    {"ops"},
    {"onnx"},
    {"quantization"},
    {"torch"},
    {"sklearn"},
    {"deployment", "report"},
    {"cli", "compat"},
)
RANKS = {layer: rank for rank, layers in enumerate(LAYERS) for layer in layers}

ENGINE_PACKAGE = "concrete"
ENGINE_MODULE = f"{PACKAGE}.engines.concrete"
HEAVY = ("concrete", "onnx", "onnxruntime", "scipy", "sklearn", "torch")


def wrong_directions(source: SourceFile) -> Iterator[str]:
    for line, name in source.imported():
        if not is_within(name, PACKAGE) or layer_of(name) in {source.layer, "__version__", ""}:
            continue
        where = f"{source.module}, line {line}, imports {name}"
        target = layer_of(name)
        if target not in RANKS:
            yield f"{where}: {target!r} is not in the layout"
        elif RANKS[target] >= RANKS[source.layer]:
            yield f"{where}: {target} does not stand before {source.layer}"
        elif source.layer == "engines" and target not in {"circuit", "errors"}:
            yield f"{where}: engines may import circuit and errors only"


def imports_of_the_engine(source: SourceFile) -> list[int]:
    return [line for line, name in source.imported() if is_within(name, ENGINE_PACKAGE)]


def snippet(module: str, text: str, is_package: bool = False) -> SourceFile:
    return SourceFile.from_text(f"{PACKAGE}.{module}", text, is_package)


def test_every_module_has_a_place_in_the_layout() -> None:
    unknown = {s.module for s in source_files() if s.layer and s.layer not in RANKS}
    assert not unknown, f"not in the layout: {sorted(unknown)}; give them a place in LAYERS"


def test_imports_go_one_way() -> None:
    wrong = [text for source in source_files() if source.layer for text in wrong_directions(source)]
    assert not wrong, "\n".join(wrong)


def test_only_one_module_imports_the_engine() -> None:
    importing = {s.module for s in source_files() if imports_of_the_engine(s)}
    assert importing <= {ENGINE_MODULE}


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("circuit.ir", "from cipherlearn.engines import base"),
        ("circuit.ir", "import cipherlearn.ops"),
        ("circuit.ir", "from cipherlearn import quantization"),
        ("circuit.ir", "from ..engines.base import Engine"),
        ("circuit.ir", "def f():\n    from cipherlearn.ops import get\n"),
        ("circuit.ir", "if TYPE_CHECKING:\n    from cipherlearn.ops import Op\n"),
        ("circuit.ir", "importlib.import_module('cipherlearn.torch')"),
        ("engines.base", "from cipherlearn.ops import get"),
        ("report.html", "from cipherlearn.deployment import bundle"),
        ("ops.unary", "from cipherlearn.somewhere import thing"),
    ],
)
def test_a_wrong_direction_is_seen(module: str, text: str) -> None:
    assert list(wrong_directions(snippet(module, text)))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("ops.unary", "from cipherlearn.circuit import ir\nfrom cipherlearn import errors"),
        ("ops.unary", "import onnx, torch\nfrom onnx import defs"),
        ("ops.unary", "from ._registry import register\nfrom cipherlearn.ops import names"),
        ("circuit.ir", "from cipherlearn import __version__"),
        ("engines.base", "from cipherlearn.circuit.ir import Circuit"),
        ("cli", "from cipherlearn.deployment import bundle"),
    ],
)
def test_a_right_direction_is_left_alone(module: str, text: str) -> None:
    assert not list(wrong_directions(snippet(module, text)))


def test_relative_imports_are_resolved_from_packages_and_modules() -> None:
    text = "from ..engines import base"
    modules = [snippet("circuit.ir", text), snippet("circuit.passes", text, is_package=True)]
    assert [[name for _, name in source.imported()] for source in modules] == [
        ["cipherlearn.engines.base"],
        ["cipherlearn.circuit.engines.base"],
    ]


@pytest.mark.parametrize(
    "text",
    ["import concrete", "from concrete import fhe", "def f():\n    import concrete.fhe as fhe\n"],
)
def test_an_import_of_the_engine_is_seen(text: str) -> None:
    assert imports_of_the_engine(snippet("engines.base", text))


def test_a_module_of_ours_called_concrete_is_not_the_engine() -> None:
    assert not imports_of_the_engine(snippet("engines", "from cipherlearn.engines import concrete"))
    assert not imports_of_the_engine(snippet("engines", "from . import concrete", is_package=True))


def run_python(code: str) -> object:
    """What a fresh interpreter prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json, os, sys, warnings\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_importing_loads_nothing_heavy() -> None:
    loaded = run_python("import cipherlearn; print(json.dumps(sorted(sys.modules)))")
    assert isinstance(loaded, list)
    assert "cipherlearn" in loaded
    assert not [name for name in loaded if name in HEAVY]


def test_importing_changes_no_global_state() -> None:
    code = """
def state():
    return [sorted(os.environ.items()), [repr(f) for f in warnings.filters], sys.path]
before = json.dumps(state())
import cipherlearn
print(json.dumps(before == json.dumps(state())))
"""
    assert run_python(code) is True


def test_submodules_are_attributes_that_load_on_use() -> None:
    code = """
import cipherlearn
before = "cipherlearn.errors" in sys.modules
cipherlearn.errors
print(json.dumps([before, "cipherlearn.errors" in sys.modules]))
"""
    assert run_python(code) == [False, True]


def test_public_names_are_listed_and_exist() -> None:
    assert set(cipherlearn.__all__) <= set(dir(cipherlearn))
    for name in cipherlearn.__all__:
        assert getattr(cipherlearn, name) is not None
    assert cipherlearn.errors.CipherlearnError is not None


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cipherlearn.nonsense  # noqa: B018
