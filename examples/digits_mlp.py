"""A small network on handwritten digits, from training to encrypted predictions.

Run it with ``scripts/demo``, or ``python examples/digits_mlp.py --images 5``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from tqdm.auto import tqdm

from cipherlearn.quantization import QuantizedModule
from cipherlearn.torch import compile_torch_model


def train(x: np.ndarray, y: np.ndarray, epochs: int = 60) -> nn.Sequential:
    """Train a network with two hidden layers of 32 neurons."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=epochs)
    inputs, labels = torch.tensor(x), torch.tensor(y)
    for _ in tqdm(range(epochs), desc="training", leave=False):
        for rows in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    return net.eval()


def main() -> int:
    """Run the demonstration; 0 if all encrypted results were right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5, help="images to encrypt (default: 5)")
    parser.add_argument("--n-bits", type=int, help="bits of weights and activations (chosen)")
    parser.add_argument("--kept-bits", type=int, help="bits that look-ups read (chosen)")
    options = parser.parse_args()

    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0)

    print("1. Train a float network (64-32-32-10) on 1,347 digits")
    net = train(x_train, y_train)

    print("2. Quantize and compile (no keys yet)")
    start = time.perf_counter()
    is_chosen = options.n_bits is None or options.kept_bits is None
    module = compile_torch_model(
        net,
        x_train[:500],
        n_bits=options.n_bits or "auto",
        rounding_threshold_bits={"n_bits": options.kept_bits or "auto", "method": "approximate"},
        labels=y_train[:500] if is_chosen else None,
    )
    print(f"   took {time.perf_counter() - start:.1f} s\n")
    if module.search is not None:
        print("   Bits that were tried (* taken):")
        print(_indented(module.search), "\n")

    print(f"3. Accuracy on {len(x_test)} test digits, before waiting for anything encrypted")
    print(_indented(module.agreement(x_test, y_test)), "\n")
    print("4. Cost of one prediction")
    print(_indented(module.cost()), "\n")

    print("5. Make keys (the client's secret keys, the server's evaluation keys)")
    start = time.perf_counter()
    module.fhe_circuit.keygen()
    print(f"   took {time.perf_counter() - start:.1f} s\n")

    print(f"6. Encrypt, run and decrypt {options.images} images")
    return _predict_encrypted(module, x_test[: options.images], y_test[: options.images])


def _predict_encrypted(module: QuantizedModule, images: np.ndarray, labels: np.ndarray) -> int:
    program = module.fhe_circuit
    clear = module.forward(images)
    right = 0
    print("   image   label   clear   encrypted   seconds")
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        start = time.perf_counter()
        encrypted = program.encrypt(module.quantize_input(image[None]))  # the client
        result = program.run(encrypted)  # the server: sees neither image nor digit
        scores = module.dequantize_output(program.decrypt(result))  # the client
        seconds = time.perf_counter() - start
        same = scores.argmax() == clear[place].argmax()
        right += same
        print(
            f"   {place:5d}   {label:5d}   {clear[place].argmax():5d}   {scores.argmax():9d}"
            f"   {seconds:7.2f}{'' if same else '   <- differs'}"
        )
    print(f"\n   {right} of {len(images)} encrypted answers are those of the quantized model.")
    return 0 if right == len(images) else 1


def _indented(report: object) -> str:
    return "\n".join(f"   {line}" for line in str(report).splitlines())


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        print("\nInterrupted: nothing was left behind.", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    os._exit(code) if code == 130 else sys.exit(code)
