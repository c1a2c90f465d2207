"""How many threads of the CPU a run takes: small networks wait longer for a second thread than it works for them."""

from __future__ import annotations

import math

import torch
from torch import nn

from mtl.model.stitched import StitchedMultiTower
from mtl.model.towers import Towers
from mtl.recipe.keys.train import Train

LEAST_WORK = 20_000_000
"""Multiplications in the forward pass of a batch; with fewer of them a run takes one thread."""


def threads_of(train: Train, model: StitchedMultiTower) -> int:
    """The recipe's threads; `auto`: one where a batch has little work, else as many as torch has by itself."""
    if train.threads != "auto":
        return train.threads
    return 1 if train.batch_size * work_of_row(model) < LEAST_WORK else torch.get_num_threads()


def work_of_row(model: StitchedMultiTower) -> int:
    """The multiplications by weights in the forward pass of one row: the weights of each stage times its positions."""
    positions = {
        parameter: math.prod(part.shapes[name][1:])
        for part in model.trunk.modules()
        if isinstance(part, Towers)
        for name, stage in part.stages.items()
        for parameter in stage.parameters()
    }
    mapped: list[nn.Module] = [model.trunk, model.task_modules]  # looking up embeddings multiplies nothing
    weights = [parameter for part in mapped for parameter in part.parameters() if parameter.ndim > 1]
    return sum(weight.numel() * positions.get(weight, 1) for weight in weights)
