"""What the owner of MNIST's images does with them alone, before anything is encrypted.

All of it is public and depends on no model: it reveals nothing of the model that is served, and
costs the server nothing. Images are tensors of shape (rows, channels, height, width).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

#: Deviations of ink from its centre that `upright` leads to, as shares of half a side: usual ones.
USUAL_WIDTH, USUAL_HEIGHT = 0.26, 0.38

#: Directions that `edges` tells apart, and the pixels of a side that it takes the mean of.
DIRECTIONS, CELL = 8, 2

#: Images that are worked on at once: all of them would take gigabytes.
CHUNK = 1000

#: Keeps quotients finite on images without ink.
TINY = 1e-4

#: Largest random rotation in degrees, relative change of size, shear, and shift in pixels.
ROTATION, SCALE, SHEAR, SHIFT = 6.0, 0.08, 0.06, 1.0


def upright(images: torch.Tensor) -> torch.Tensor:
    """Digits moved to the middle, sheared until they stand upright, and brought nearer to one size.

    Centre, slant and size are moments of the ink. Of the size's difference to the usual one half
    goes (in logarithms): size tells digits apart too, and removing all of it did no better.
    """
    ink = images[:, 0]
    total = ink.sum(dim=(1, 2)).clamp(min=TINY)
    across, down = (_places(size, ink) for size in (ink.shape[2], ink.shape[1]))
    columns, rows = ink.sum(dim=1), ink.sum(dim=2)
    centre_x, centre_y = (columns @ across) / total, (rows @ down) / total
    from_x, from_y = across - centre_x[:, None], down - centre_y[:, None]
    spread_x, spread_y = (
        (weights * distances.square()).sum(dim=1) / total
        for weights, distances in ((columns, from_x), (rows, from_y))
    )
    together = torch.einsum("nyx,ny,nx->n", ink, from_y, from_x) / total
    slant = together / spread_y.clamp(min=TINY)
    upright_spread = (spread_x - slant * together).clamp(min=TINY)
    wide = (upright_spread.sqrt() / USUAL_WIDTH).sqrt()
    high = (spread_y.clamp(min=TINY).sqrt() / USUAL_HEIGHT).sqrt()
    return _moved(images, (wide, slant * high, centre_x), (0 * high, high, centre_y))


def edges(images: torch.Tensor) -> torch.Tensor:
    """How much the ink grows in each of `DIRECTIONS` directions, as means over cells of pixels.

    Histograms of oriented gradients in short: derivatives between neighbours, of which each
    direction takes the positive part.
    """
    return torch.cat([_growth(part) for part in images.split(CHUNK)])


def changed(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images turned, resized, sheared and shifted at random, each on its own: for training."""
    rotation, wide, high, shear, right, down = (
        torch.rand(6, len(images), generator=generator) * 2 - 1
    )
    angle = rotation * math.radians(ROTATION)
    wide, high = 1 + SCALE * wide, 1 + SCALE * high
    right, down = (2 * SHIFT / images.shape[-1] * shift for shift in (right, down))
    first = (angle.cos() * wide, SHEAR * shear - angle.sin(), right)
    return _moved(images, first, (angle.sin(), angle.cos() * high, down))


def _places(size: int, like: torch.Tensor) -> torch.Tensor:
    """Where the middles of pixels are: from -1 to 1 over the image."""
    return (2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1


def _moved(
    images: torch.Tensor, first: Iterable[torch.Tensor], second: Iterable[torch.Tensor]
) -> torch.Tensor:
    """Each pixel from the place that an affine map, given by its rows, leads to."""
    maps = torch.stack([torch.stack([*row], dim=1) for row in (first, second)], dim=1)
    chunks = zip(images.split(CHUNK), maps.split(CHUNK), strict=True)
    return torch.cat([_sampled(part, part_maps) for part, part_maps in chunks])


def _sampled(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    grid = nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def _growth(images: torch.Tensor) -> torch.Tensor:
    around = nn.functional.pad(images, (1, 1, 1, 1))
    right = around[:, :, 1:-1, 2:] - around[:, :, 1:-1, :-2]
    down = around[:, :, 2:, 1:-1] - around[:, :, :-2, 1:-1]
    angles = torch.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
    along, across = (side[:, None, None] for side in (angles.cos(), angles.sin()))
    return nn.functional.avg_pool2d(torch.relu(right * along + down * across), CELL)
