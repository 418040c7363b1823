"""Runs in the peer's environment: quantize, compile and measure each network of a folder.

``worker.py FOLDER`` reads ``points.json``, a list of objects with ``network``, ``n_bits``,
``kept``, ``simulated`` and ``encrypted``, and for each network NAME the files ``NAME.onnx`` and
``NAME.npz``. It prints an object a line, in the order of the points.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from concrete.ml.torch.compile import compile_onnx_model


def measure(folder: Path, point: dict[str, Any]) -> dict[str, float]:
    """Accuracy and complexity of one network at one setting."""
    model = onnx.load(folder / f"{point['network']}.onnx")
    with np.load(folder / f"{point['network']}.npz", allow_pickle=False) as arrays:
        calibration, x_test, y_test = (arrays[name] for name in ("calibration", "x", "y"))
    start = time.perf_counter()
    module = compile_onnx_model(
        model,
        calibration,
        n_bits=point["n_bits"],
        rounding_threshold_bits={"n_bits": point["kept"], "method": "approximate"},
        p_error=2**-40,
    )
    compile_seconds = time.perf_counter() - start

    def accuracy(rows: int, mode: str) -> float:
        scores = module.forward(x_test[:rows], fhe=mode)
        return float((scores.argmax(1) == y_test[:rows]).mean())

    found = {
        "accuracy": accuracy(len(x_test), "disable"),
        "complexity": float(module.fhe_circuit.complexity),
        "compile_seconds": compile_seconds,
    }
    if point["simulated"]:
        found["simulated_accuracy"] = accuracy(point["simulated"], "simulate")
    if point["encrypted"]:
        module.fhe_circuit.keygen()
        module.forward(x_test[:1], fhe="execute")  # the first run unpacks the keys
        start = time.perf_counter()
        found["encrypted_accuracy"] = accuracy(point["encrypted"], "execute")
        found["encrypted_seconds"] = (time.perf_counter() - start) / point["encrypted"]
    return found


def main() -> None:
    """Measure all points of the folder that is given."""
    folder = Path(sys.argv[1])
    for point in json.loads((folder / "points.json").read_text()):
        # What the peer itself prints must not come between the results.
        with contextlib.redirect_stdout(sys.stderr):
            found = measure(folder, point)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
