"""What users are told of models that take very long under encryption."""

from __future__ import annotations

from cipherlearn.engines.estimate import machine_speed
from cipherlearn.errors import CostWarning, warn

#: Look-ups from which on users are warned of the cost.
MANY_LOOKUPS = 5_000

#: The engine's complexity of one look-up by its width, where nothing else asks for precision
#: (Concrete 2.11, p_error 2^-40): no circuit is cheaper than the sum of these.
LEAST_COMPLEXITY = {
    2: 4.1e7,
    3: 6.7e7,
    4: 9.7e7,
    5: 2.2e8,
    6: 5.2e8,
    7: 1.2e9,
    8: 2.6e9,
    9: 6.1e9,
    10: 1.3e10,
}


def warn_of_cost(what: str, n_lookups: int, complexity: float, ways: str) -> None:
    """Give a `CostWarning` for so many look-ups that a prediction takes very long.

    Parameters
    ----------
    what : str
        What needs them: "the trees need".
    n_lookups : int
        Look-ups for each row.
    complexity : float
        That they have at least.
    ways : str
        What makes them fewer, as a sentence.
    """
    if n_lookups > MANY_LOOKUPS:
        warn(
            f"{what} {n_lookups} table look-ups for each row, at least "
            f"{complexity / machine_speed():.2g} s on this machine. {ways}",
            CostWarning,
        )
