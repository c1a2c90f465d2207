"""The yardstick: stitched towers and their training loop in plain PyTorch, as multi-task libraries write them.

One module per task, a Python sum over pairs of tasks at each site, a DataLoader over a Dataset, a loss and a metric for
each task in each step, masks for tasks with missing labels, and the recipe's optimizer from torch.optim with its
defaults. The networks are those of the recipes: the same layers, norms, dropout, sites and number of parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import mtl
from bench.speed.reference_tasks import TASKS, Task
from mtl.backbones.layers import activation_module
from mtl.training.trainer import Trainer

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
Row = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]


class Rows(Dataset):  # type: ignore[type-arg]
    """Rows of a data set: inputs, a label for each task, and whether it is there, for the tasks that lack some."""

    def __init__(
        self, inputs: Tensor, labels: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> None:
        self.inputs, self.labels, self.present = inputs, labels, present or {}

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> Row:
        return (
            self.inputs[i],
            {task: values[i] for task, values in self.labels.items()},
            {task: values[i] for task, values in self.present.items()},
        )


class Tower(nn.Module):
    """The layers of one task, stage by stage."""

    def __init__(self, recipe: mtl.Recipe, shape: tuple[int, ...]) -> None:
        super().__init__()
        backbone: Any = recipe.model.backbone
        own = {"eps": backbone.norm.eps, "momentum": backbone.norm.momentum}
        has_norm = backbone.norm.kind == "batch"

        def after(norm: type[nn.Module], width: int) -> list[nn.Module]:
            activation = activation_module(backbone.activation)
            assert activation is not None
            return [*([norm(width, **own)] if has_norm else []), activation]

        self.stages = nn.ModuleDict()
        for stage in backbone.stages:
            if stage.kind == "conv":
                conv = nn.Conv2d(
                    shape[0], stage.channels, stage.kernel, padding=stage.kernel // 2, bias=False
                )
                parts = [conv, *after(nn.BatchNorm2d, stage.channels)]
                shape = (stage.channels, *shape[1:])
            elif stage.kind == "max_pool":
                parts = [nn.MaxPool2d(stage.size)]
                shape = (shape[0], shape[1] // stage.size, shape[2] // stage.size)
            elif stage.kind == "linear":
                linear = nn.Linear(torch.Size(shape).numel(), stage.features, bias=False)
                parts = [nn.Flatten(), linear, *after(nn.BatchNorm1d, stage.features)]
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
        (features,), head, norm = tower.shape, recipe.model.head, recipe.model.backbone.norm
        has_norm = head.norm and norm.kind == "batch"
        self.heads = nn.ModuleDict(
            {
                task: nn.Sequential(
                    nn.Dropout(head.dropout),
                    nn.Linear(features, n, bias=not has_norm),
                    *([nn.BatchNorm1d(n, eps=norm.eps, momentum=norm.momentum)] if has_norm else []),
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


def tasks_of(trainer: Trainer) -> dict[str, Task]:
    """Task -> how its loss and its metric are computed."""
    return {
        task: TASKS[type(module).__name__] for module in trainer.modules.values() for task in module.tasks
    }


def rows_of(trainer: Trainer) -> Rows:
    """The training rows, as a program would prepare them before it trains: scaled, one-hot, labels standardized."""
    data, rows = trainer.dataset.rows, torch.from_numpy(trainer.dataset.splits["train"])
    with torch.no_grad():
        parts = [trainer.built.model.inputs(data.inputs[part]).float() for part in rows.split(4096)]
    labels, present = {}, {}
    for name, module in trainer.modules.items():
        for t, task in enumerate(module.tasks):
            labels[task] = TASKS[type(module).__name__].labels(data.target[name][rows][:, t], module, t)
            if name in trainer.incomplete:
                present[task] = data.present[name][rows][:, t]
    return Rows(torch.cat(parts), labels, present)


def network_of(trainer: Trainer, rows: Rows) -> CrossStitched:
    """The network of the trainer's recipe."""
    outputs = {task: module.head.n_outputs for module in trainer.modules.values() for task in module.tasks}
    return CrossStitched(trainer.recipe, tuple(rows.inputs.shape[1:]), outputs).train()


def losses_of(
    tasks: Mapping[str, Task],
    logits: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Task -> its mean loss over the rows that have its label, and the sum of its metric over them."""
    losses, metrics = {}, {}
    for task, z in logits.items():
        y = target[task]
        if task in present:
            z, y = z[present[task]], y[present[task]]
        losses[task] = tasks[task].loss(z, y) if len(z) else 0.0 * z.sum()
        metrics[task] = tasks[task].metric(z, y)
    return losses, metrics


def steps_of(trainer: Trainer) -> Iterator[None]:
    """Train the same network on the same rows, without end; each `next` takes one step."""
    recipe, rows, tasks = trainer.recipe, rows_of(trainer), tasks_of(trainer)
    model = network_of(trainer, rows)
    optimizer = OPTIMIZERS[recipe.optimizer.kind](model.parameters(), lr=recipe.optimizer.lr)
    loader = DataLoader(rows, batch_size=recipe.train.batch_size, shuffle=True, drop_last=True)
    loss_sum, metric_sum, seen = dict.fromkeys(tasks, 0.0), dict.fromkeys(tasks, 0.0), dict.fromkeys(tasks, 0)
    while True:
        for x, target, present in loader:
            losses, metrics = losses_of(tasks, model(x), target, present)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            for task in tasks:
                n = int(present[task].sum()) if task in present else len(x)
                loss_sum[task] += losses[task].item() * n
                metric_sum[task] += metrics[task].item()
                seen[task] += n
            yield
