"""The floor: the convolutions and matrix products of a network of `layers`, forward and backward, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtl.training.trainer import Trainer


def steps_of(trainer: Trainer) -> Iterator[None]:
    """Each `next` multiplies once by every weight of the towers, and once more for each gradient that a step needs.

    Each map has random inputs of its own, laid out as the fastest kernel of the CPU reads them, so that nothing is
    copied between them. The first map needs no gradient of its input.
    """
    recipe = trainer.recipe
    backbone: Any = recipe.model.backbone
    n, n_towers = recipe.train.batch_size, len(recipe.towers)
    shape, first = trainer.dataset.header.input_shape, True
    maps: list[tuple[str, Tensor, Tensor, int]] = []  # kind, input, weight, groups
    for stage in backbone.stages:
        if stage.kind == "conv":
            groups = 1 if first else n_towers
            x = torch.randn(n, groups * shape[0], *shape[1:]).to(memory_format=torch.channels_last)
            weight = torch.randn(n_towers * stage.channels, shape[0], stage.kernel, stage.kernel)
            maps.append(
                ("conv", x.requires_grad_(not first), weight.to(memory_format=torch.channels_last), groups)
            )
            shape, first = (stage.channels, *shape[1:]), False
        elif stage.kind == "max_pool":
            shape = (shape[0], shape[1] // stage.size, shape[2] // stage.size)
        elif stage.kind == "linear":
            width = torch.Size(shape).numel()
            x = torch.randn(1, n, width) if first else torch.randn(n_towers, n, width)
            maps.append(
                ("linear", x.requires_grad_(not first), torch.randn(n_towers, width, stage.features), 1)
            )
            shape, first = (stage.features,), False
    for *_, weight, _ in maps:
        weight.requires_grad_()
    ones: dict[int, Tensor] = {}
    while True:
        for i, (kind, x, weight, groups) in enumerate(maps):
            if kind == "conv":
                y = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
            else:
                y = torch.bmm(x.expand(len(weight), -1, -1), weight)
            if i not in ones:
                ones[i] = torch.ones_like(y)
            torch.autograd.grad(y, [t for t in (x, weight) if t.requires_grad], ones[i])
        yield
