"""``python -m benchmarks [name ...]``: print the figures of these benchmarks, of all by default."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings

from benchmarks.report import print_figures
from cipherlearn.errors import OverflowWarning

#: Modules of this package with a function ``run`` that gives figures.
BENCHMARKS = (
    "foundation",
    "operators",
    "accuracy",
    "mnist_cnn",
    "trees",
    "linear",
    "neighbors",
    "sklearn_networks",
    "qat",
    "to_qat",
    "qnn",
)


def main() -> int:
    """Run the chosen benchmarks; 0 if every target is reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names or BENCHMARKS
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there are no benchmarks {unknown}; known are {', '.join(BENCHMARKS)}")
    # Third parties warn while they are imported; figures are what this is about.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Overflows are a figure of their own.
    warnings.filterwarnings("ignore", category=OverflowWarning)
    reached = [print_figures(importlib.import_module(f"benchmarks.{name}").run()) for name in names]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
