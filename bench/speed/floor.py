"""The floor: the convolutions and matrix products of a network of `layers`, forward and backward, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtl.training.trainer import Trainer


@dataclass(frozen=True)
class Map:
    """The maps of all towers at one stage.

    Args:
        x: a random input, laid out as the fastest kernel of the CPU reads it.
        weight: the weights of all towers.
        groups: of a convolution; None for a matrix product.
    """

    x: Tensor
    weight: Tensor
    groups: int | None

    def __call__(self) -> Tensor:
        """The products with every weight, once."""
        if self.groups is None:
            return torch.bmm(self.x.expand(len(self.weight), -1, -1), self.weight)
        return F.conv2d(self.x, self.weight, padding=self.weight.shape[-1] // 2, groups=self.groups)


def maps_of(trainer: Trainer) -> list[Map]:
    """The maps of the towers, with inputs of their own, so that nothing is copied between them.

    The first map needs no gradient of its input.
    """
    recipe = trainer.recipe
    backbone: Any = recipe.model.backbone
    n, n_towers = recipe.train.batch_size, len(recipe.towers)
    with torch.no_grad():  # columns of a table become more numbers, one for each category
        shape = tuple(trainer.built.model.inputs(trainer.dataset.rows.inputs[:1]).shape[1:])
    maps: list[Map] = []
    for stage in backbone.stages:
        first = not maps
        if stage.kind == "conv":
            groups = 1 if first else n_towers
            x = torch.randn(n, groups * shape[0], *shape[1:]).to(memory_format=torch.channels_last)
            weight = torch.randn(n_towers * stage.channels, shape[0], stage.kernel, stage.kernel)
            weight = weight.to(memory_format=torch.channels_last)
            maps.append(Map(x.requires_grad_(not first), weight.requires_grad_(), groups))
            shape = (stage.channels, *shape[1:])
        elif stage.kind == "max_pool":
            shape = (shape[0], shape[1] // stage.size, shape[2] // stage.size)
        elif stage.kind == "linear":
            width = torch.Size(shape).numel()
            x = torch.randn(1 if first else n_towers, n, width)
            weight = torch.randn(n_towers, width, stage.features)
            maps.append(Map(x.requires_grad_(not first), weight.requires_grad_(), None))
            shape = (stage.features,)
    return maps


def steps_of(trainer: Trainer) -> Iterator[None]:
    """Each `next` multiplies once by every weight of the towers, and once more for each gradient that a step needs."""
    maps = maps_of(trainer)
    ones = [torch.ones_like(each()) for each in maps]
    while True:
        for each, one in zip(maps, ones, strict=True):
            torch.autograd.grad(each(), [t for t in (each.x, each.weight) if t.requires_grad], one)
        yield
