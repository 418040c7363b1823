"""Showing that something is going on, for steps that take more than a second."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Steps that take less than this many seconds show no progress.
DELAY = 1.0

#: Runs beside a step that keeps Python busy; ends with its parent.
_CLOCK = """
import os, sys, time
what, delay, parent, start = sys.argv[1], float(sys.argv[2]), os.getppid(), time.time()
time.sleep(delay)
while os.getppid() == parent:
    sys.stderr.write(f"\\r{what}: {time.time() - start:.0f} s ")
    sys.stderr.flush()
    time.sleep(0.5)
"""


def bar(iterable: Any, what: str, total: int | None = None) -> Any:
    """The iterable, behind a progress bar if it takes long."""
    from tqdm.auto import tqdm

    return tqdm(iterable, desc=what, total=total, leave=False, delay=DELAY)


@contextmanager
def clock(what: str) -> Iterator[None]:
    """Show the seconds that a step without countable parts has taken, on a terminal.

    A process of its own shows them, because the engine lets no other thread of this one run while
    it makes keys.
    """
    if not sys.stderr.isatty():
        yield
        return
    arguments = [sys.executable, "-I", "-c", _CLOCK, what, str(DELAY)]
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL) as shown:  # noqa: S603 - our own text
        try:
            yield
        finally:
            shown.kill()
            sys.stderr.write("\r" + " " * (len(what) + 16) + "\r")
            sys.stderr.flush()
