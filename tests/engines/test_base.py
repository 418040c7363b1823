from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cipherlearn import engines
from cipherlearn.engines import (
    DEFAULT_P_ERROR,
    CompileOptions,
    Engine,
    Program,
    engine_names,
    get_engine,
)
from cipherlearn.engines.clear import ClearEngine
from cipherlearn.errors import (
    EngineUnavailableError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
)
from tests.engines.cases import build

ANOTHER_ENGINE = """
from cipherlearn.engines.clear import ClearEngine


class AnotherEngine(ClearEngine):
    name = "another"


ENGINE = AnotherEngine
"""


def test_the_default_is_an_error_probability_of_one_lookup() -> None:
    for options in (CompileOptions(), CompileOptions.of()):
        assert options.p_error == DEFAULT_P_ERROR == 2.0**-40
        assert options.global_p_error is None


def test_one_probability_replaces_the_other() -> None:
    whole = CompileOptions.of(global_p_error=0.01)
    assert (whole.p_error, whole.global_p_error) == (None, 0.01)
    single = CompileOptions.of(p_error=0.01, verbose=True)
    assert (single.p_error, single.global_p_error, single.verbose) == (0.01, None, True)


@pytest.mark.parametrize("make", [CompileOptions, CompileOptions.of])
def test_both_probabilities_are_refused(make: type[CompileOptions]) -> None:
    with pytest.raises(InvalidParameterError, match="not both"):
        make(p_error=0.01, global_p_error=0.01)


def test_no_probability_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="not neither"):
        CompileOptions(p_error=None)


@pytest.mark.parametrize("name", ["p_error", "global_p_error"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 2, float("nan")])
def test_impossible_probabilities_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidParameterError, match=f"{name} must lie between"):
        CompileOptions.of(**{name: value})


@pytest.mark.parametrize("value", ["0.1", True, [0.1]])
def test_probabilities_are_numbers(value: object) -> None:
    with pytest.raises(InvalidTypeError, match="must be a number"):
        CompileOptions(p_error=value)  # type: ignore[arg-type]


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"'tpu'.*cpu, cuda"):
        CompileOptions.of(device="tpu")


def test_unknown_options_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"n_bits.*compress_inputs"):
        CompileOptions.of(n_bits=3)


def test_engines_are_listed() -> None:
    assert engine_names() == ("clear", "concrete")


def test_concrete_is_the_default() -> None:
    assert get_engine().name == "concrete"


@pytest.mark.parametrize("name", ["base", "check", "_legalize", "nothing", "", "../clear"])
def test_unknown_engines_are_refused(name: str) -> None:
    with pytest.raises(InvalidParameterError, match="known are clear, concrete"):
        get_engine(name)


def test_an_engine_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "another.py").write_text(ANOTHER_ENGINE)
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(tmp_path)])
    try:
        assert engine_names() == ("another", "clear", "concrete")
        engine = get_engine("another")
        assert isinstance(engine, ClearEngine)
        assert engine.name == "another"
    finally:
        sys.modules.pop("cipherlearn.engines.another", None)


class Missing(ClearEngine):
    def check_available(self) -> None:
        raise EngineUnavailableError("pip install missing")


def test_an_engine_that_cannot_run_says_so() -> None:
    assert not Missing().is_available()
    assert ClearEngine().is_available()


def test_engines_and_programs_are_abstract() -> None:
    for kind in (Engine, Program):
        with pytest.raises(TypeError, match="abstract"):
            kind()


def test_nested_tuples_of_values_are_flattened() -> None:
    program = ClearEngine().compile(build("sums_and_differences"))
    program.keygen()
    zeros = np.zeros((2, 3), dtype=np.int64), np.zeros((1, 3), dtype=np.int64)
    x, y = program.encrypt(*zeros)
    results = program.run((x, (y,)))
    assert np.array_equal(program.decrypt(((results,),)), program.encrypt_run_decrypt(*zeros))
    with pytest.raises(InvalidShapeError, match="output_0"):
        program.decrypt(x, y)
