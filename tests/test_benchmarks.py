from __future__ import annotations

import pytest

from benchmarks.report import Figure, Note, print_figures


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (Figure("free", 3.0), True),
        (Figure("low", 1.0, at_least=2.0), False),
        (Figure("high", 3.0, at_most=2.0), False),
        (Figure("exact", 2.0, at_least=2.0, at_most=2.0), True),
    ],
)
def test_a_figure_knows_whether_it_is_reached(figure: Figure, reached: bool) -> None:
    assert figure.is_reached is reached


def test_a_missed_figure_is_said_and_returned(capsys: pytest.CaptureFixture[str]) -> None:
    assert not print_figures([Figure("a", 1.0, at_least=0.5), Figure("b", 1.0, at_most=0.5)])
    text = capsys.readouterr().out
    assert "| a | 1 | >= 0.5 |  | reached |" in text
    assert "| b | 1 | <= 0.5 |  | MISSED |" in text


def test_notes_come_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_figures([Note("said"), Figure("a", 1.0)])
    assert capsys.readouterr().out.endswith("| a | 1 |  |  |  |\n\nsaid\n")
