"""Figures and the table that they are printed in."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured number, with what it must reach.

    Parameters
    ----------
    name : str
    value : float
    at_least, at_most : float or None
        The target.
    peer : float or None
        The same figure of the peer, Concrete ML 1.9.
    """

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    peer: float | None = None

    @property
    def is_reached(self) -> bool:
        """Whether the target is met; True without one."""
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    @property
    def target(self) -> str:
        """The target in words."""
        if self.at_least is not None:
            return f">= {_number(self.at_least)}"
        return "" if self.at_most is None else f"<= {_number(self.at_most)}"


@dataclass(frozen=True)
class Note:
    """Something that is no number: printed below the table.

    Parameters
    ----------
    text : str
    """

    text: str


def print_figures(figures: Iterable[Figure | Note]) -> bool:
    """Print figures as a Markdown table, line by line, then notes; whether targets are reached."""
    print(f"{machine()}\n\n| figure | measured | target | peer | |\n|---|---|---|---|---|")
    reached = True
    notes = []
    for figure in figures:
        if isinstance(figure, Note):
            notes.append(figure.text)
            continue
        reached &= figure.is_reached
        peer = "" if figure.peer is None else _number(figure.peer)
        verdict = "" if not figure.target else "reached" if figure.is_reached else "MISSED"
        cells = (figure.name, _number(figure.value), figure.target, peer, verdict)
        print(f"| {' | '.join(cells)} |", flush=True)
    for text in notes:
        print(f"\n{text}")
    return reached


def machine() -> str:
    """Processor, cores and Python that figures come from."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _number(value: float) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.2e}"
    return f"{value:.4g}"
