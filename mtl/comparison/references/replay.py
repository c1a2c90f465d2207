"""Logits that another model gave, as a network that replays them, so that metrics come from the code of networks.

Shapes: B batch, T tasks of a group, O outputs per task, m rows of the splits that are replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mtl.build import Built
from mtl.contracts import of_module
from mtl.dataset.assemble import Dataset
from mtl.dataset.batch import ResidentRows
from mtl.errors import UserError, quoted
from mtl.evaluation.baseline import Flat
from mtl.model.stitched import StitchedMultiTower
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.module import TaskModule
from mtl.task_groups import TaskGroup

TRIED = 7
"""Rows by which a way back to logits is tried."""


class StoredHead(GroupedHead):
    """A head whose logits are columns of its input.

    Args:
        tasks: the T tasks.
        n_outputs: O.
        first: the column of the first logit; T * O columns follow one another, task by task.
    """

    def __init__(self, tasks: Sequence[str], n_outputs: int, first: int = 0) -> None:
        super().__init__(tasks, [0] * len(tasks), 1, 1, n_outputs)
        self.first = first

    def forward(self, h: Tensor, present_BT: Tensor | None = None) -> Tensor:
        """(B, 1, all logits) -> (B, T, O), whichever rows have labels."""
        own: Tensor = h[:, 0, self.first : self.first + len(self.tasks) * self.n_outputs]
        return own.reshape(len(own), len(self.tasks), self.n_outputs)


def module_of_task(group: TaskGroup, t: int) -> TaskModule:
    """The module of task t of a group alone; its head computes nothing.

    Raises:
        UserError: the kind of task has no way back from predictions to logits, or a wrong one.
    """
    constants = {name: values[t : t + 1].cpu() for name, values in group.constants.items()}
    module = group.spec.build(StoredHead(group.tasks[t : t + 1], group.n_outputs), constants)
    if module.answer is None or type(module).logits_of is TaskModule.logits_of:
        raise UserError(
            "", f"kind {quoted(group.spec.kind)} has no way back from predictions to logits",
            f"compare without reference models, or give {type(module).__name__} `answer` and `logits_of`",
            path=("tasks", group.tasks[t]),
        )  # fmt: skip
    _try(module, group.n_outputs)
    return module


@torch.no_grad()
def _try(module: TaskModule, n_outputs: int) -> None:
    """Refuse a module whose `logits_of` is not the inverse of its `predict`."""
    logits = 2 * torch.sin(torch.arange(TRIED * n_outputs).float()).view(TRIED, 1, n_outputs)
    predicted = module.predict(logits)
    if module.answer not in predicted:
        raise of_module(module, "answer", f"is {quoted(module.answer)}, which `predict` does not give")
    back = module.logits_of(predicted)
    if tuple(back.shape) != tuple(logits.shape):
        what = f"gives logits of shape {tuple(back.shape)}, not (B, T, O) = {tuple(logits.shape)}"
        raise of_module(module, "logits_of", what)
    again = module.predict(back)
    for name, values in predicted.items():
        if not torch.allclose(again[name].double(), values.double(), rtol=1e-3, atol=1e-4):
            raise of_module(module, "logits_of", f"gives logits with another {quoted(name)} than was given")


def replayed(
    groups: Sequence[TaskGroup], dataset: Dataset, logits: Mapping[str, Mapping[str, Tensor]]
) -> tuple[Built, Dataset]:
    """A network that gives the stored logits, and the data set of the rows that have them, both on the CPU.

    The inputs of these rows are their logits. The network passes them on bit by bit, so that evaluations, fits of
    thresholds and resamples of rows run as they do for a trained network.

    Args:
        groups: the task groups of `task_groups(recipe, dataset.learned)`.
        dataset: all rows.
        logits: split -> task -> (rows of the split, O), in the order of the split. A task may be absent; its logits
            are 0 then, and its metrics mean nothing.
    """
    modules: dict[str, TaskModule] = {}
    columns: list[Tensor] = []
    for group in groups:
        head = StoredHead(group.tasks, group.n_outputs, sum(part.shape[1] for part in columns))
        constants = {name: values.cpu() for name, values in group.constants.items()}
        modules[group.name] = group.spec.build(head, constants)
        for task in group.tasks:
            columns.append(torch.cat([_of(task, own, group, dataset, s) for s, own in logits.items()]))
    rows = np.concatenate([dataset.splits[split] for split in logits])
    index = torch.from_numpy(rows).to(dataset.rows.inputs.device)

    def of_these(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {group: values[index].cpu() for group, values in parts.items()}

    stored = ResidentRows(
        inputs=torch.cat(columns, dim=1),
        target=of_these(dataset.rows.target),
        present=of_these(dataset.rows.present),
        weight=of_these(dataset.rows.weight),
    )
    ends = np.cumsum([len(dataset.splits[split]) for split in logits])
    splits = {
        split: np.arange(end - len(dataset.splits[split]), end)
        for split, end in zip(logits, ends, strict=True)
    }
    trunk = Flat(sum(len(group.tasks) for group in groups), stored.inputs.shape[1])
    built = Built(StitchedMultiTower(trunk, modules), tuple(groups))
    return built, replace(dataset, rows=stored, splits=splits)


def _of(task: str, own: Mapping[str, Tensor], group: TaskGroup, dataset: Dataset, split: str) -> Tensor:
    found = own.get(task)
    return torch.zeros(len(dataset.splits[split]), group.n_outputs) if found is None else found.float()
