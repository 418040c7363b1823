"""Whether Concrete can run here at all: asked before its native code ends the process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

import numpy as np

#: Processor instructions that the engine uses without asking whether they exist.
NEEDED_INSTRUCTIONS = ("aes", "avx2")

#: Libraries whose native code ends the process when the engine is loaded after it (never before).
LOADED_TOO_EARLY = ("tensorflow",)

#: Where Linux describes the processor.
PROCESSOR_INFORMATION = Path("/proc/cpuinfo")


def missing_companion() -> str | None:
    """What is not installed, or too new, and what to type; None if all is well."""
    try:
        importlib.metadata.version("concrete-python")
    except importlib.metadata.PackageNotFoundError:
        return 'the engine is not installed: pip install "concrete-python>=2.11"'
    if int(np.__version__.split(".")[0]) >= 2:
        return f'the engine does not work with numpy {np.__version__}: pip install "numpy<2"'
    if importlib.util.find_spec("pkg_resources") is None:
        return (
            "the engine needs pkg_resources, which setuptools 82 removed: pip install "
            '"setuptools<81"'
        )
    return None


def missing_instructions() -> str | None:
    """Which processor instructions are missing: without them the engine ends the whole process."""
    if platform.machine() not in {"x86_64", "AMD64"} or not PROCESSOR_INFORMATION.exists():
        return None
    for line in PROCESSOR_INFORMATION.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            missing = [flag for flag in NEEDED_INSTRUCTIONS if flag not in value.split()]
            if missing:
                return (
                    f"the processor (or the virtual machine) has no {' and no '.join(missing)} "
                    "instructions, which the engine needs: use another machine, or the engine "
                    "'clear' to try things without encryption"
                )
            return None
    return None


def loaded_too_early(engine: str) -> str | None:
    """Which library is loaded that the engine's module can only be loaded before; what to do."""
    if engine in sys.modules:
        return None
    for name in LOADED_TOO_EARLY:
        if name in sys.modules:
            return (
                f"{name} was imported before the engine, whose native code would then end this "
                f"process: import {engine} before {name}, or export the model in a process "
                "of its own and read the ONNX file"
            )
    return None
