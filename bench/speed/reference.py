"""The yardstick: stitched towers and their training loop in plain PyTorch, as multi-task libraries write them.

One module per task, a Python sum over pairs of tasks at each site, a DataLoader over a Dataset, a loss and a metric for
each task in each step, and torch.optim.Adam with its defaults. The networks are those of the recipes: the same layers,
norms, dropout, sites and number of parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import mtl
from mtl.training.trainer import Trainer


class Rows(Dataset):  # type: ignore[type-arg]
    """Rows of a data set: inputs, and a label for each task."""

    def __init__(self, inputs: Tensor, labels: Mapping[str, Tensor]) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.inputs[i], {task: values[i] for task, values in self.labels.items()}


class Tower(nn.Module):
    """The layers of one task, stage by stage."""

    def __init__(self, recipe: mtl.Recipe, shape: tuple[int, ...]) -> None:
        super().__init__()
        backbone: Any = recipe.model.backbone
        norm = {"eps": backbone.norm.eps, "momentum": backbone.norm.momentum}
        self.stages = nn.ModuleDict()
        for stage in backbone.stages:
            if stage.kind == "conv":
                parts = [nn.Conv2d(shape[0], stage.channels, stage.kernel, padding=stage.kernel // 2, bias=False),
                         nn.BatchNorm2d(stage.channels, **norm), nn.ReLU()]  # fmt: skip
                shape = (stage.channels, *shape[1:])
            elif stage.kind == "max_pool":
                parts = [nn.MaxPool2d(stage.size)]
                shape = (shape[0], shape[1] // stage.size, shape[2] // stage.size)
            elif stage.kind == "linear":
                width = torch.Size(shape).numel()
                parts = [nn.Flatten(), nn.Linear(width, stage.features, bias=False),
                         nn.BatchNorm1d(stage.features, **norm), nn.ReLU()]  # fmt: skip
                shape = (stage.features,)
            else:
                parts = [nn.Dropout(stage.p)]
            self.stages[stage.name] = nn.Sequential(*parts)
        self.shape = shape


class CrossStitched(nn.Module):
    """A tower and a head for each task; after a site, each tower reads a weighted sum of all."""

    def __init__(self, recipe: mtl.Recipe, shape: tuple[int, ...], outputs: Mapping[str, int]) -> None:
        super().__init__()
        self.tasks, sharing = list(outputs), recipe.model.sharing
        self.towers = nn.ModuleDict({task: Tower(recipe, shape) for task in self.tasks})
        self.sites = list(getattr(sharing, "after", ()))
        self.by_channel = getattr(sharing, "granularity", "scalar") == "channel"
        self.alpha = nn.ParameterDict()
        tower: Any = self.towers[self.tasks[0]]
        for site in self.sites:
            width = self._width(tower, site) if self.by_channel else 1
            self.alpha[site] = nn.Parameter(torch.eye(len(self.tasks)).repeat(width, 1, 1))
        (features,), head = tower.shape, recipe.model.head
        self.heads = nn.ModuleDict(
            {
                task: nn.Sequential(
                    nn.Dropout(head.dropout),
                    nn.Linear(features, n, bias=not head.norm),
                    *([nn.BatchNorm1d(n)] if head.norm else []),
                )
                for task, n in outputs.items()
            }
        )

    @staticmethod
    def _width(tower: Any, site: str) -> int:
        """The channels after a stage: those of the last norm up to it."""
        width = 0
        for name, stage in tower.stages.items():
            width = next((m.num_features for m in stage if hasattr(m, "num_features")), width)
            if name == site:
                break
        return width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = dict.fromkeys(self.tasks, x)
        towers: Any = self.towers
        for name in towers[self.tasks[0]].stages:
            h = {task: towers[task].stages[name](h[task]) for task in self.tasks}
            if name in self.sites:
                alpha = self.alpha[name]
                shape = (-1,) + (1,) * (h[self.tasks[0]].ndim - 2)
                h = {
                    task: sum(alpha[:, i, j].view(shape) * h[other] for j, other in enumerate(self.tasks))
                    for i, task in enumerate(self.tasks)
                }
        return {task: self.heads[task](h[task]) for task in self.tasks}


def steps_of(trainer: Trainer) -> Iterator[None]:
    """Train the same network on the same rows, without end; each `next` takes one step."""
    recipe, rows = trainer.recipe, torch.from_numpy(trainer.dataset.splits["train"])
    with torch.no_grad():
        inputs = torch.cat(
            [
                trainer.built.model.inputs(trainer.dataset.rows.inputs[part]).float()
                for part in rows.split(4096)
            ]
        )
    labels, outputs = {}, {}
    for name, module in trainer.modules.items():
        for t, task in enumerate(module.tasks):
            labels[task] = trainer.dataset.rows.target[name][rows][:, t].long()
            outputs[task] = module.head.n_outputs
    model = CrossStitched(recipe, tuple(inputs.shape[1:]), outputs).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.optimizer.lr)
    loader = DataLoader(
        Rows(inputs, labels), batch_size=recipe.train.batch_size, shuffle=True, drop_last=True
    )
    loss_sum, right, seen = dict.fromkeys(outputs, 0.0), dict.fromkeys(outputs, 0), 0
    while True:
        for x, target in loader:
            logits = model(x)
            losses = {
                task: F.cross_entropy(z, target[task])
                if z.shape[1] > 1
                else F.binary_cross_entropy_with_logits(z[:, 0], target[task].float())
                for task, z in logits.items()
            }
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            for task, z in logits.items():
                answer = z.argmax(1) if z.shape[1] > 1 else (z[:, 0] > 0).long()
                loss_sum[task] += losses[task].item() * len(x)
                right[task] += (answer == target[task]).sum().item()
            seen += len(x)
            yield
