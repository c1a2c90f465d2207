"""The network for N tasks: inputs, a trunk, and the heads and losses of its task groups.

Shapes: B batch, R readings, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtl.model.parts import Dropout
from mtl.model.tasks.module import TaskModule
from mtl.model.trunk import SharingMatrix, Trunk, along


class Standardize(nn.Module):
    """z-score of the raw input, (x - mean) / std, with the training split's mean and std.

    Args:
        mean: broadcasts to the input of one row.
        std: broadcasts likewise; every entry is positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Raw input (B, ...) -> standardized input of the same shape."""
        return (x.to(self.mean.dtype) - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"shape={tuple(self.mean.shape)}"


@dataclass(frozen=True)
class Logits(Mapping[str, Tensor]):
    """The output of the network: task -> logits (B, O), each a view of the logits of its task group.

    Args:
        groups: task group -> (B, T, O).
        places: task -> its group and its position in that group.
    """

    groups: Mapping[str, Tensor]
    places: Mapping[str, tuple[str, int]]

    def __getitem__(self, task: str) -> Tensor:
        group, t = self.places[task]
        return self.groups[group][:, t]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class StitchedMultiTower(nn.Module):
    """A network for N tasks: x -> inputs -> trunk -> one task module per task group.

    Args:
        trunk: from the input to R readings; `StitchedTowers` is K towers with cross-stitch units between them.
        task_modules: task group -> head, loss and prediction of its tasks.
        inputs: the first layer, `Standardize` or `TableInputs`; without it the trunk reads the raw input.
        dropout: probability that training drops a value of a reading, for heads that have no rate of their own.
    """

    def __init__(
        self,
        trunk: Trunk,
        task_modules: Mapping[str, TaskModule],
        inputs: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.inputs = inputs if inputs is not None else nn.Identity()
        self.trunk = trunk
        self.dropout = Dropout(dropout)
        self.task_modules = nn.ModuleDict(task_modules)
        self.places = {
            task: (name, t) for name, module in task_modules.items() for t, task in enumerate(module.tasks)
        }

    def modules_of_tasks(self) -> dict[str, TaskModule]:
        """Task group -> its module."""
        return {name: module for name, module in self.task_modules.items() if isinstance(module, TaskModule)}

    @property
    def tasks(self) -> tuple[str, ...]:
        """All N tasks, group by group."""
        return tuple(self.places)

    def forward(self, x: Tensor, present: Mapping[str, Tensor] | None = None) -> Logits:
        """Input (B, ...) -> logits of every task, (B, O) each, and of every task group, (B, T, O).

        Args:
            x: the inputs of B rows.
            present: task group -> (B, T) bool, which rows have a label. Only the norms of heads read it, and only
                in training. A group that is left out has all labels.
        """
        return self.logits_of(self.trunk(self.inputs(x)), present)

    def logits_of(self, h: Tensor, present: Mapping[str, Tensor] | None = None) -> Logits:
        """Readings (B, R, *shape) -> logits; `present` as in `forward`."""
        dropped, present = self.dropout(h), present or {}
        groups = {
            name: module(
                dropped if module.head.dropout is None else module.head.dropout(h), present.get(name)
            )
            for name, module in self.modules_of_tasks().items()
        }
        return Logits(groups, self.places)

    @torch.no_grad()
    def sharing(self) -> dict[str, SharingMatrix]:
        """Place in the network -> the current sharing matrix of that place."""
        return self.trunk.readings()

    def parameter_roles(self) -> dict[str, str]:
        """Parameter -> its role: `weight` (two dimensions or more), `scale`, or `sharing`, which the trunk names."""
        roles = {name: "weight" if p.ndim > 1 else "scale" for name, p in self.named_parameters()}
        roles.update({f"trunk.{name}": role for name, role in self.trunk.roles().items()})
        return roles

    def reach(self, tasks: tuple[str, ...]) -> dict[str, Tensor]:
        """Parameter -> the tasks that its parts serve, as a bool tensor that broadcasts to (*shape, N).

        The trunk gives the entries of its own parameters. Slice t of a task module serves task t.

        Args:
            tasks: all N tasks in the order of the trunk's plan, which is the recipe's.
        """
        reach = {f"trunk.{name}": served for name, served in self.trunk.reach().items()}
        for name, module in self.modules_of_tasks().items():
            rows = [[task == other for other in tasks] for task in module.tasks]
            own_TN = torch.tensor(rows, device="cpu")
            reach.update(
                {f"task_modules.{name}.{key}": along(own_TN, p) for key, p in module.named_parameters()}
            )
        copies_KN = self.trunk.reach_of_copies()
        reach.update({f"inputs.{name}": along(copies_KN, p) for name, p in self.inputs.named_parameters()})
        return reach
