"""Small networks of all kinds that people export, with the shapes of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name that everybody uses)

Shape = tuple[int, ...]


class One(nn.Module):
    """A function of one input and some layers."""

    def __init__(self, function: Callable[..., Tensor], layers: list[nn.Module]) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


class Two(One):
    """A function of two inputs and some layers."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return self.function(x, y, *self.layers)


@dataclass(frozen=True)
class Network:
    """A function, the layers that it uses, and the shapes of its inputs without the batch."""

    function: Callable[..., Any]
    shapes: tuple[Shape, ...]
    layers: Callable[[], list[nn.Module]] = field(default=list)
    integers: bool = False

    def build(self) -> nn.Module:
        """Make the module, with weights and statistics that are the same every time."""
        torch.manual_seed(0)
        made = (One if len(self.shapes) == 1 else Two)(self.function, self.layers()).eval()
        for part in made.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (part.running_mean, part.weight.data, part.bias.data):
                    nn.init.normal_(tensor)
                nn.init.uniform_(part.running_var, 0.5, 2)
        return made

    def examples(self, rows: int) -> tuple[Tensor, ...]:
        """Draw inputs."""
        generator = torch.Generator().manual_seed(rows)
        if self.integers:
            return tuple(
                torch.randint(0, 5, (rows, *shape), generator=generator) for shape in self.shapes
            )
        return tuple(torch.randn(rows, *shape, generator=generator) for shape in self.shapes)


def cnn() -> list[nn.Module]:
    return [
        nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
        )
    ]


def residual(x: Tensor, a: Any, m: Any, b: Any, n: Any, shortcut: Any) -> Tensor:
    return F.relu(n(b(F.relu(m(a(x))))) + shortcut(x))


def attention(x: Tensor, project: Any, out: Any) -> Tensor:
    query, key, value = project(x).chunk(3, -1)
    return out(torch.relu(query @ key.transpose(1, 2) * 0.5) @ value)


def heads(x: Tensor, project: Any) -> Tensor:
    rows = x.size(0)
    parts = [t.view(rows, -1, 2, 2).transpose(1, 2) for t in project(x).split(4, dim=-1)]
    query, key, value = parts
    return (F.relu(query @ key.transpose(-1, -2) / 2) @ value).transpose(1, 2).reshape(rows, -1, 4)


IMAGE = ((2, 4, 4),)
NETWORKS = {
    "cnn": Network(lambda x, net: net(x), ((1, 8, 8),), cnn),
    "residual": Network(
        residual,
        ((2, 5, 5),),
        lambda: [
            *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)),
            *(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(2, 4, 1)),
        ],
    ),
    "depthwise": Network(
        lambda x, a, b: b(F.relu6(a(x))),
        ((4, 5, 5),),
        lambda: [nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 3, 1)],
    ),
    "dilated": Network(
        lambda x, a: a(x), ((2, 9),), lambda: [nn.Conv1d(2, 3, 3, padding=2, dilation=2)]
    ),
    "same padding": Network(
        lambda x, a: a(x), ((2, 6, 6),), lambda: [nn.Conv2d(2, 3, (3, 5), padding="same")]
    ),
    "transposed": Network(
        lambda x, a, b: b(a(x)),
        IMAGE,
        lambda: [nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1), nn.BatchNorm2d(3)],
    ),
    "average pool": Network(lambda x: F.avg_pool2d(x, 3, 2, 1), ((2, 6, 6),)),
    "maximum pool": Network(lambda x: F.max_pool2d(F.relu(x), 3, 2, 1), ((2, 6, 6),)),
    "adaptive average": Network(lambda x: F.adaptive_avg_pool2d(x, 2).flatten(1), IMAGE),
    "adaptive maximum": Network(lambda x: F.adaptive_max_pool2d(x, 2), IMAGE),
    "global mean": Network(lambda x: x.mean((2, 3)), IMAGE),
    "pad": Network(lambda x, a: a(F.pad(x, (1, 2, 0, 1))), IMAGE, lambda: [nn.Conv2d(2, 3, 2)]),
    "pad with a number": Network(lambda x: F.pad(x, (1, 2), value=3.0), ((2, 4),)),
    "two inputs": Network(
        lambda x, y, a, b: b(F.relu(a(torch.cat([x, y], 1)))),
        ((3,), (4,)),
        lambda: [nn.Linear(7, 4), nn.Linear(4, 2)],
    ),
    "attention": Network(attention, ((3, 4),), lambda: [nn.Linear(4, 12), nn.Linear(4, 2)]),
    "heads": Network(heads, ((3, 4),), lambda: [nn.Linear(4, 12)]),
    "embedding": Network(
        lambda x, a, b: b(a(x).flatten(1)),
        ((3,),),
        lambda: [nn.Embedding(10, 4), nn.Linear(12, 2)],
        integers=True,
    ),
    "layer norm": Network(
        lambda x, a, b: b(a(x)), ((3, 4),), lambda: [nn.LayerNorm(4), nn.Linear(4, 2)]
    ),
    "batch norm first": Network(
        lambda x, a, b: b(a(x)), ((4,),), lambda: [nn.BatchNorm1d(4), nn.Linear(4, 2)]
    ),
    "interpolate by a factor": Network(lambda x: F.interpolate(x, scale_factor=2.0), ((2, 3, 3),)),
    "interpolate to a size": Network(lambda x: F.interpolate(x, size=(5, 7)), ((2, 3, 3),)),
    "pixel shuffle": Network(lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), ((4, 3, 3),)),
    "split and stack": Network(
        lambda x: torch.stack([a * 2 for a in x.split([1, 3], 1)[1].chunk(3, 1)], 2), ((4, 3),)
    ),
    "chunk": Network(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), ((4, 3),)),
    "unbind": Network(lambda x: sum(x.unbind(1)), ((3, 3),)),
    "where": Network(lambda x: torch.where(x > 0, x, 0.1 * x), ((4,),)),
    "mask": Network(lambda x: x.masked_fill(x < 0, -1.0), ((3, 3),)),
    "einsum": Network(lambda x, y: torch.einsum("bij,bjk->bik", x, y), ((2, 3), (3, 4))),
    "einsum with weights": Network(
        lambda x, a: torch.einsum("bij,kj->bki", x, a.weight), ((2, 3),), lambda: [nn.Linear(3, 4)]
    ),
    "slice": Network(lambda x: x[:, 1:, ::2], ((4, 5),)),
    "select": Network(lambda x: x[:, -1], ((4, 5),)),
    "index": Network(lambda x: x[:, [2, 0]], ((4, 5),)),
    "index on two axes": Network(lambda x: x[:, [0, 2], [1, 0]], ((4, 3),)),
    "view": Network(lambda x: x.view(x.size(0), -1), ((4, 2),)),
    "permute and view": Network(
        lambda x: x.permute(0, 2, 1).reshape(x.shape[0], x.shape[1] * x.shape[2]), ((4, 2),)
    ),
    "squeeze": Network(lambda x: x.squeeze(1), ((1, 4),)),
    "expand": Network(lambda x: x.unsqueeze(1).expand(-1, 3, -1) + x.unsqueeze(2), ((3,),)),
    "repeat": Network(lambda x: x.repeat(1, 2), ((3,),)),
    "roll": Network(lambda x: x.roll(1, 1), ((3,),)),
    "norms": Network(lambda x: x.norm(dim=1) + x.sum(1) + x.amax(1) + x.pow(2).sum(1), ((4,),)),
    "normalize": Network(F.normalize, ((3,),)),
    "larger and smaller": Network(
        lambda x, y: torch.maximum(x, y) - torch.minimum(x, y), ((3,),) * 2
    ),
    "activations": Network(
        lambda x: F.gelu(x) + F.silu(x) + F.hardswish(x) + F.mish(x) + F.elu(x) + F.softplus(x),
        ((3,),),
    ),
    "softmax": Network(lambda x: F.softmax(x, 1), ((3,),)),
    "distances": Network(
        lambda x, a: ((x.unsqueeze(1) - a.weight) ** 2).sum(-1), ((3,),), lambda: [nn.Linear(3, 4)]
    ),
}

PLACES = torch.tensor([[0, 2, 1, 1]])

# TorchScript's exporter knows none of these.
CURRENT_ONLY: dict[str, Network] = {
    "adaptive average, uneven": Network(lambda x: F.adaptive_avg_pool1d(x, 3), ((2, 7),)),
    "adaptive average, uneven twice": Network(
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)), ((1, 7, 5),)
    ),
    "gather": Network(lambda x: x.gather(1, PLACES.expand(x.shape[0], 4)), ((4,),)),
    "align corners": Network(
        lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=True),
        ((1, 3, 4),),
    ),
}
