"""What a search for bits saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cipherlearn.errors import MissingDependencyError
from cipherlearn.quantization.search.space import Candidate

#: What scores differ by although they are the same.
ROUNDING_ERROR = 1e-9


@dataclass(frozen=True)
class Point:
    """A candidate that was measured.

    Parameters
    ----------
    candidate : Candidate
    complexity : float
        The engine's figure for one prediction; infinite if it cannot be compiled.
    seconds : float
        Estimated time of one prediction on this machine.
    score : float
        Accuracy or R2 on rows that were not calibrated on, against labels, or else against the
        float model.
    loss : float
        Mean squared error of the outputs, as a share of their variance.
    uncertainty : float
        Standard error of what the score loses against the float model's.
    layers : mapping of str to (bool, bool)
        For each layer with constant weights: whether it comes after a look-up, and before one.
    operands : frozenset of str
        The layers whose operand bits say how many bits a look-up writes.
    """

    candidate: Candidate
    complexity: float
    seconds: float
    score: float
    loss: float
    uncertainty: float = 0.0
    layers: Mapping[str, tuple[bool, bool]] = field(default_factory=dict, repr=False)
    operands: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def merit(self) -> tuple[float, float]:
        """What points are ordered by where their price does not decide."""
        return self.score, -self.loss


@dataclass(frozen=True)
class SearchResult:
    """What `search_bits` saw; prints as a table of its Pareto front.

    Parameters
    ----------
    chosen : Point
    points : tuple of Point
        Everything that was scored, in order.
    reference : float
        Score of the float model.
    max_drop : float
    max_seconds : float or None
    """

    chosen: Point
    points: tuple[Point, ...]
    reference: float
    max_drop: float
    max_seconds: float | None = None

    @property
    def front(self) -> tuple[Point, ...]:
        """The candidates that no other one beats, from cheap to dear."""
        best, front = -np.inf, []
        for point in sorted(self.points, key=lambda p: (p.complexity, -p.score, p.loss)):
            if np.isfinite(point.complexity) and point.score > best:
                front.append(point)
                best = point.score
        return tuple(front)

    @property
    def missed_by(self) -> float:
        """How much more than `max_drop` the chosen candidate loses; 0 if it does not."""
        missed = self.reference - self.chosen.score - self.max_drop
        return missed if missed > ROUNDING_ERROR else 0.0

    def plot(self, axes: Any = None) -> Any:
        """Draw score against complexity: all candidates, the Pareto front, and what was taken.

        Parameters
        ----------
        axes : matplotlib.axes.Axes, optional
            Where to draw. Default: a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        axes = _new_axes() if axes is None else axes
        points = [p for p in self.points if np.isfinite(p.complexity)]
        front = self.front
        axes.scatter(
            [p.complexity for p in points],
            [p.score for p in points],
            s=18,
            c="0.65",
            label="measured",
        )
        axes.plot(
            [p.complexity for p in front],
            [p.score for p in front],
            marker="o",
            markersize=5,
            drawstyle="steps-post",
            label="best for its price",
        )
        axes.plot(
            self.chosen.complexity,
            self.chosen.score,
            "*",
            markersize=15,
            color="tab:orange",
            label=f"taken: {self.chosen.candidate.common}",
        )
        axes.axhline(self.reference, linestyle="--", color="0.3", linewidth=1, label="float model")
        axes.set_xscale("log")
        axes.set_xlabel("complexity of one prediction (the engine's figure)")
        axes.set_ylabel("score on rows kept apart")
        axes.legend(loc="lower right", fontsize="small")
        return axes

    def __str__(self) -> str:
        lines = [f"float model: {self.reference:.4f}", "complexity  seconds   score  bits"]
        for point in self.front:
            mark = "*" if point is self.chosen else " "
            numbers = f"{point.complexity:10.3g} {point.seconds:8.3g}  {point.score:6.4f}"
            lines.append(f"{numbers} {mark} {point.candidate}")
        return "\n".join(lines)


def _new_axes() -> Any:
    try:
        # A figure of its own: pyplot would keep it, and choose a window system for everybody.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            'drawing needs matplotlib: pip install "cipherlearn[report]", or print the result'
        ) from error
    return Figure(figsize=(7, 4.5), layout="constrained").add_subplot()
