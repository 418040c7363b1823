"""Networks quantized with given bits, and what is measured of them."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks.networks import Case
from cipherlearn.circuit import count_lookups
from cipherlearn.quantization import PostTrainingLookupQuantization, QuantizedModule
from cipherlearn.torch import NumpyModule


@dataclass(frozen=True)
class Setting:
    """The bits that a network is quantized with, analytically.

    Parameters
    ----------
    n_bits : int or mapping of str to int
    kept : int
        Bits that rounding keeps, approximately, before each look-up.
    bypass : {"hidden", "none", "outputs"}, default="hidden"
        What goes around look-ups.
    """

    n_bits: int | Mapping[str, int]
    kept: int
    bypass: str = field(default="hidden", kw_only=True)

    def __str__(self) -> str:
        """How tables name the setting."""
        bits = {"n_bits": self.n_bits} if isinstance(self.n_bits, int) else self.n_bits
        parts = [f"{name} {bits}" for name, bits in bits.items()]
        parts.append(f"approximate {self.kept}")
        if self.bypass != "hidden":
            parts.append(f"bypass {self.bypass}")
        return ", ".join(parts)

    def converter(self, case: Case) -> PostTrainingLookupQuantization:
        """What quantizes the case's network with these bits."""
        model = NumpyModule(case.net, torch.tensor(case.calibration[:2]))
        rounding = {"n_bits": self.kept, "method": "approximate"}
        return PostTrainingLookupQuantization(self.n_bits, model, rounding, bypass=self.bypass)

    def quantized(self, case: Case) -> QuantizedModule:
        """The case's network with these bits: exporting it is a part of that."""
        return self.converter(case).quantize_module(case.calibration)


def overflow_share(module: QuantizedModule, rows: int) -> float:
    """Share of accumulators that left their range since the count began, ``rows`` rows ago."""
    return module.overflow_count / (rows * count_lookups(module.circuit).total)


def encrypted_classes(module: QuantizedModule, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Classes of rows that are encrypted one by one, and the median of the seconds each takes.

    The module is compiled and has keys.
    """
    classes, times = [], []
    for row in x:
        start = time.perf_counter()
        classes.append(int(module.forward(row[None], fhe="execute").argmax()))
        times.append(time.perf_counter() - start)
    return np.array(classes), statistics.median(times)


def peak_memory() -> float:
    """The most memory that this process had so far, in GB."""
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
