from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cipherlearn.engines import _environment, get_engine
from cipherlearn.engines._environment import (
    loaded_too_early,
    missing_companion,
    missing_instructions,
)
from cipherlearn.errors import EngineUnavailableError
from tests.engines.cases import build

CPU = "processor : 0\nmodel name : one\nflags\t\t: fpu sse2 {flags}\nbugs : none\n"


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(_environment, "PROCESSOR_INFORMATION", file)
    monkeypatch.setattr(_environment.platform, "machine", lambda: "x86_64")
    return file


def test_nothing_is_missing_here() -> None:
    assert missing_companion() is None
    assert missing_instructions() is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("aes avx2", None),
        ("aes", "no avx2 instructions"),
        ("avx2", "no aes instructions"),
        ("avx2x aesy", "no aes and no avx2 instructions"),
    ],
)
def test_processors_are_asked(cpu: Path, flags: str, message: str | None) -> None:
    cpu.write_text(CPU.format(flags=flags))
    found = missing_instructions()
    assert found is None if message is None else message in str(found)


def test_what_cannot_be_asked_is_taken_to_be_fine(
    cpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing_instructions() is None
    cpu.write_text("nothing known\n")
    assert missing_instructions() is None
    cpu.write_text(CPU.format(flags=""))
    monkeypatch.setattr(_environment.platform, "machine", lambda: "arm64")
    assert missing_instructions() is None


def test_new_numpy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "2.1.3")
    assert 'pip install "numpy<2"' in str(missing_companion())


def test_new_setuptools_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert 'pip install "setuptools<81"' in str(missing_companion())


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert 'pip install "concrete-python' in str(missing_companion())


def test_the_engine_refuses_before_its_native_code_can_abort(cpu: Path) -> None:
    cpu.write_text(CPU.format(flags="aes"))
    engine = get_engine("concrete")
    assert not engine.is_available()
    with pytest.raises(EngineUnavailableError, match="avx2"):
        engine.compile(build("lookups"))


def test_a_library_that_must_come_later_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))
    monkeypatch.setitem(sys.modules, "concrete.fhe", ModuleType("concrete.fhe"))
    assert loaded_too_early("concrete.fhe") is None
    monkeypatch.delitem(sys.modules, "concrete.fhe")
    assert "import concrete.fhe before tensorflow" in str(loaded_too_early("concrete.fhe"))
    with pytest.raises(EngineUnavailableError, match="tensorflow was imported before"):
        get_engine("concrete").check_available()
