"""The Python blocks of README and docs run, in order, each page in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "docs/extending.md",
    "docs/debugging.md",
    "docs/trees.md",
    "docs/linear.md",
    "docs/neighbors.md",
    "docs/pipelines.md",
    "docs/networks.md",
    "docs/qat.md",
    "docs/qnn.md",
]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    # Networks of the pages stand for trained ones; which of them come out must not be up to chance.
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    found = blocks(page)
    assert found
    for text in found:
        exec(compile(text, page, "exec"), namespace)  # noqa: S102 - our own pages
    assert "[" in capsys.readouterr().out  # every page prints results


def test_the_readme_example_is_ten_lines() -> None:
    lines = [line for line in blocks("README.md")[0].splitlines() if line.strip()]
    assert len(lines) <= 10


@pytest.mark.parametrize("part", ["integer_compute", "q_impl", "register_numpy"])
def test_an_operator_of_ones_own_takes_under_20_lines(part: str) -> None:
    found = [text for text in blocks("docs/extending.md") if part in text]
    assert found
    lines = [line for line in found[-1].splitlines() if line.strip()]
    assert len(lines) < 20


def test_links_point_to_files() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
