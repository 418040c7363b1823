"""``python -m benchmarks.peer``: print the peer's accuracy against complexity on our networks."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.data import DATA_VARIABLE
from benchmarks.mnist import mnist_mlp
from benchmarks.networks import Case, digits_mlp
from benchmarks.peer.environment import PEER, default_torch, peer_python
from benchmarks.peer.measure import Point, figures, measure
from benchmarks.report import Figure, print_figures

#: (n_bits, kept bits) for each network.
SETTINGS = {"mnist": ((6, 6), (6, 5), (6, 4), (4, 4)), "digits": ((6, 6), (6, 5), (6, 4), (4, 4))}

#: The environment is big: it is kept, in a folder that git ignores.
ENVIRONMENT = Path(__file__).parents[2] / "build" / "peer"


def main() -> int:
    """Measure the chosen networks; 0 if all could be."""
    options = _options()
    # Third parties warn while they are imported; figures are what this is about.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    loaders: dict[str, Callable[[], Case]] = {
        "mnist": lambda: mnist_mlp(options.data),
        "digits": digits_mlp,
    }
    try:
        cases = {name: loaders[name]() for name in options.networks}
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    python = peer_python(options.environment.resolve(), options.torch)
    points = [
        Point(name, n_bits, kept, options.simulate, options.encrypt)
        for name in cases
        for n_bits, kept in SETTINGS[name]
    ]
    print_figures(_all_figures(python, cases, points))
    return 0


def _all_figures(python: Path, cases: dict[str, Case], points: list[Point]) -> Iterator[Figure]:
    for name, case in cases.items():
        yield Figure(f"{name}: float accuracy", case.float_accuracy)
    yield from figures(measure(python, cases, points))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer", description=__doc__)
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="network",
        help=f"of {', '.join(SETTINGS)}; all by default",
    )
    parser.add_argument(
        "--data", type=Path, help=f"folder with mnist.npz (default: {DATA_VARIABLE}, then Keras's)"
    )
    parser.add_argument(
        "--environment",
        type=Path,
        default=ENVIRONMENT,
        help=f"folder of the virtual environment with {PEER}, made if it is missing",
    )
    parser.add_argument(
        "--torch", default=default_torch(), help="requirement of torch for it (%(default)s)"
    )
    parser.add_argument(
        "--simulate", type=int, default=0, metavar="ROWS", help="test rows to simulate as well"
    )
    parser.add_argument(
        "--encrypt", type=int, default=0, metavar="ROWS", help="test rows to encrypt as well"
    )
    options = parser.parse_args()
    options.networks = options.networks or list(SETTINGS)
    unknown = sorted(set(options.networks) - set(SETTINGS))
    if unknown:
        parser.error(f"there are no networks {unknown}; known are {', '.join(SETTINGS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
