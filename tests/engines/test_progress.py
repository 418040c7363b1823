from __future__ import annotations

import io
import sys

import pytest

from cipherlearn.engines import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_gives_what_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.bar(range(4), "rows")) == [0, 1, 2, 3]
    assert not capsys.readouterr().err  # short steps show nothing


def test_no_clock_runs_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.clock("making keys"):
        pass
    assert not capsys.readouterr().err


def test_the_clock_ends_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    original = progress.subprocess.Popen

    def popen(*args: object, **kwargs: object) -> object:
        started.append(original(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(progress.subprocess, "Popen", popen)
    monkeypatch.setattr(sys, "stderr", Terminal())

    def step() -> None:
        with progress.clock("making keys"):
            assert started[0].poll() is None
            raise KeyError

    with pytest.raises(KeyError):
        step()
    assert started[0].poll() is not None
    assert sys.stderr.getvalue().endswith("\r")  # the line is wiped
