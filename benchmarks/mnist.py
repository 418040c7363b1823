"""MNIST, from a file that the reader has, and the networks that figures are quoted for."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from benchmarks.data import mnist_data
from benchmarks.images import DIRECTIONS, changed, edges, upright
from benchmarks.networks import Case, train
from cipherlearn.torch.distillation import one_thread

#: Channels of the convolutional network; each gives four activations.
CHANNELS = 6

#: Size of its kernels, on the cells of `benchmarks.images.edges`, and their distance.
KERNEL, STRIDE = 10, 4

#: What a look-up is to read: sums of deviation 1 that stay within this distance of their mean.
REACH = 2.2

#: Steps that noise in training stands for: a range of `2 * REACH` in 16.
STEP = 2 * REACH / 16

#: Of the mean square of what is out of reach, beside the cross-entropy.
PENALTY = 10.0


class Absolute(nn.Module):
    """The absolute value: an activation costs one look-up whatever it computes.

    Both signs of a feature count, so one of them does the work of two with ReLU.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Element by element."""
        return torch.abs(x)


def mnist_mlp(folder: Path | None = None, seed: int = 0, epochs: int = 8) -> Case:
    """MNIST, 784-64-10 with ReLU; trained for seconds, accurate to about 0.97.

    Adam at its usual rate and nothing else, as the network was that the peer is quoted with: how
    far weights and activations spread decides what few bits cost, so a recipe is part of a figure.
    """
    x_train, x_test, y_train, y_test = mnist_data(folder)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    with one_thread():
        train(
            net,
            x_train,
            y_train,
            seed,
            epochs=epochs,
            batch=128,
            rate=1e-3,
            last_rate=1e-3,
            weight_decay=0.0,
        )
    return Case(net, x_train, x_test, y_train, y_test)


def mnist_cnn(
    folder: Path | None = None, seed: int = 0, epochs: int = 12, channels: int = CHANNELS
) -> Case:
    """MNIST as images: one convolution and a linear layer, made for few cheap look-ups.

    Who owns the images sets them upright and takes their edges (`benchmarks.images`) before
    encrypting them: that is public, the same for any model, and reveals nothing of this one. The
    case's rows are what is encrypted: 8 directions on 14x14 cells.

    The price is a look-up for each activation, whatever the size of the kernel: weights that meet
    fresh encryptions are free. So kernels are large and take 2x2 positions, which tells more for a
    look-up than many positions of a small kernel do. Training takes a minute and is a float recipe:
    random affine changes of the images, and noise and a penalty on what activations read, which
    keep their ranges short.
    """
    x_train, x_test, y_train, y_test = mnist_data(folder)
    upright_train, upright_test = (
        upright(torch.tensor(x.reshape(-1, 1, 28, 28))) for x in (x_train, x_test)
    )
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(channels)
    # Fixed deviations: a penalty on far values would only make all of them smaller.
    norm.weight.requires_grad = False
    net = nn.Sequential(
        nn.Conv2d(DIRECTIONS, channels, KERNEL, stride=STRIDE, bias=False),
        norm,
        Absolute(),
        nn.Flatten(),
        nn.Linear(4 * channels, 10),
    )
    with one_thread():
        _train_for_lookups(net, upright_train, torch.tensor(y_train), seed, epochs)
    return Case(net, edges(upright_train).numpy(), edges(upright_test).numpy(), y_train, y_test)


def _train_for_lookups(
    net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, seed: int, epochs: int, batch: int = 256
) -> None:
    """Train a convolution with its normalization and what follows; noise stands for rounding."""
    features, rest = net[:2], net[2:]
    optimizer = torch.optim.AdamW(net.parameters(), lr=6e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 6e-3, total_steps=epochs * math.ceil(len(x) / batch), pct_start=0.2
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            optimizer.zero_grad()
            sums = features(edges(changed(x[rows], generator)))
            noise = (torch.rand(sums.shape, generator=generator) - 0.5) * STEP
            loss = nn.functional.cross_entropy(rest(sums + noise), y[rows])
            outside = nn.functional.relu(sums.abs() - REACH)
            (loss + PENALTY * outside.square().mean()).backward()
            optimizer.step()
            schedule.step()
    net.eval()
