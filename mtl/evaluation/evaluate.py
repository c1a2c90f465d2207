"""Losses and metrics of a model on one split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.evaluation.meter import Meter, Values
from mtl.model.stitched import StitchedMultiTower
from mtl.recipe.specs import TaskSpec
from mtl.task_groups import TaskGroup

BATCH = 500
"""Rows per forward pass."""


@torch.inference_mode()
def evaluate(
    model: StitchedMultiTower,
    groups: Sequence[TaskGroup],
    tasks: dict[str, TaskSpec],
    dataset: Dataset,
    rows: Rows,
    split: str,
    between: Callable[[], None] = lambda: None,
) -> Values:
    """Metrics over `rows` in evaluation mode; the model's mode is put back. `between` is called after each batch."""
    device = next(model.parameters()).device
    meter = Meter(groups, tasks, device)
    with evaluation_mode(model):
        for start in range(0, len(rows), BATCH):
            index = torch.from_numpy(rows[start : start + BATCH]).to(device)
            logits = model.forward_groups(dataset.inputs[index])
            for group in groups:
                target, present = dataset.targets(group.name, index), dataset.present[group.name][index]
                weight = dataset.weights(group.name, index)
                loss_T = group.spec.losses(logits[group.name], target, weight, group.constants)
                meter.update(group.name, logits[group.name], target, present, loss_T, weight.sum(0))
            between()
    return meter.values(split)


class evaluation_mode:
    """`with evaluation_mode(model)`: dropout off, running statistics of norms used and left alone."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.were_training: list[nn.Module] = []

    def __enter__(self) -> None:
        self.were_training = [module for module in self.model.modules() if module.training]
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module in self.were_training:
            module.training = True
