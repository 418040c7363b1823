from __future__ import annotations

import math

import pytest
import torch

from benchmarks.images import changed, edges, upright


def bar(slant: float = 0.0, right: int = 0, half_width: int = 2) -> torch.Tensor:
    """A bar 18 pixels high; its middle line leaves the vertical by ``slant`` pixels a row."""
    image = torch.zeros(1, 1, 28, 28)
    for row in range(5, 23):
        middle = 13.5 + right + slant * (row - 13.5)
        columns = torch.arange(28)
        image[0, 0, row] = ((columns - middle).abs() <= half_width).float()
    return image


def ink_moments(image: torch.Tensor) -> tuple[float, float, float]:
    """Centre across and down in pixels, and how far columns change with rows."""
    ink = image[0, 0]
    places = torch.arange(28.0)
    total = ink.sum()
    x, y = (ink.sum(0) @ places) / total, (ink.sum(1) @ places) / total
    slant = ((places - y) @ ink @ (places - x)) / (ink.sum(1) @ (places - y) ** 2)
    return float(x), float(y), float(slant)


@pytest.mark.parametrize(("slant", "right"), [(0.0, 0), (0.4, 0), (-0.3, 3), (0.5, -3)])
def test_upright_images_are_centred_and_not_slanted(slant: float, right: int) -> None:
    before = ink_moments(bar(slant, right))
    assert before[2] == pytest.approx(slant, abs=0.1)
    x, y, left = ink_moments(upright(bar(slant, right)))
    assert (x, y) == pytest.approx((13.5, 13.5), abs=0.2)
    assert left == pytest.approx(0, abs=0.02)


def test_upright_brings_widths_nearer_to_each_other() -> None:
    thin, wide = (upright(bar(half_width=half))[0, 0, 13].sum() for half in (1, 6))
    assert 2 < wide / thin < 4  # 13 / 3 before


def test_every_image_is_set_upright_on_its_own() -> None:
    images = torch.cat([bar(0.4), bar(-0.3, 3), torch.zeros(1, 1, 28, 28)])
    together = upright(images)
    for number in range(3):
        torch.testing.assert_close(together[[number]], upright(images[[number]]))
    assert torch.all(together[2] == 0)  # no ink, and no division by it


def test_edges_tell_the_direction_in_which_ink_grows() -> None:
    ramp = torch.zeros(1, 1, 28, 28)
    ramp[..., 8:20] = torch.linspace(0, 1, 12)
    growth = edges(ramp)[0, :, 7, 7]
    assert edges(ramp).shape == (1, 8, 14, 14)
    directions = torch.arange(8) * math.pi / 4
    torch.testing.assert_close(growth, 2 / 11 * torch.relu(directions.cos()), atol=1e-6, rtol=0)
    turned = edges(ramp.transpose(2, 3))[0, :, 7, 7]  # from left-right to up-down
    torch.testing.assert_close(turned, growth.roll(2), atol=1e-6, rtol=0)


def test_changed_images_are_the_same_images() -> None:
    image = torch.zeros(1, 1, 28, 28)
    image[..., 10:18, 10:18] = 1.0
    images = changed(image.expand(50, -1, -1, -1), torch.Generator().manual_seed(0))
    assert images.shape == (50, 1, 28, 28)
    assert not torch.equal(images[0], images[1])
    assert torch.all(images[..., 13:15, 13:15] > 0.99)  # the middle stays in the middle
    assert torch.all(images[..., :4, :] == 0)
    areas = images.sum(dim=(1, 2, 3))
    assert torch.all((areas > 45) & (areas < 85))
