"""Output layers; tasks of one kind and output size are one grouped head.

Shapes: B batch, K towers, F features of one tower, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl.model.layers import GroupedLinear


class GroupedHead(nn.Module):
    """T output layers in one: logits_t = norm(W_t h_tower(t)).

    Args:
        tasks: the T tasks.
        towers: for each task, the number of the tower it reads, 0 <= tower < K.
        n_towers: K.
        width: F.
        n_outputs: O.
        norm: applied to (B, T*O); without one the layer has a bias.
        hidden: features of each hidden layer and its norm, if any; each ends in a ReLU.
        dropout: on what the head reads and on its hidden layers; None: what `Heads` drops for all.
    """

    towers: Tensor

    def __init__(
        self,
        tasks: Sequence[str],
        towers: Sequence[int],
        n_towers: int,
        width: int,
        n_outputs: int,
        norm: nn.Module | None = None,
        *,
        hidden: Sequence[tuple[int, nn.Module | None]] = (),
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.tasks, self.n_outputs, self.n_towers = tuple(tasks), n_outputs, n_towers
        self.reads_all_in_order = tuple(towers) == tuple(range(n_towers))
        self.dropout = None if dropout is None else nn.Dropout(dropout)
        self.hidden = nn.Sequential()
        for number, (features, hidden_norm) in enumerate(hidden):
            shared = n_towers == 1 and number == 0
            layer = GroupedLinear(
                len(self.tasks), width, features, shared_input=shared, bias=hidden_norm is None
            )
            parts = [layer, hidden_norm, nn.ReLU(), nn.Dropout(dropout) if dropout else None]
            self.hidden.append(nn.Sequential(*(part for part in parts if part is not None)))
            width = features
        shared = n_towers == 1 and not hidden
        self.linear = GroupedLinear(len(self.tasks), width, n_outputs, shared_input=shared, bias=norm is None)
        self.norm = norm if norm is not None else nn.Identity()
        self.register_buffer("towers", torch.tensor(towers, dtype=torch.long), persistent=False)

    def forward(self, h_BKF: Tensor) -> Tensor:
        if not (self.reads_all_in_order or self.n_towers == 1):
            h_BKF = h_BKF.index_select(1, self.towers)
        logits: Tensor = self.norm(self.linear(self.hidden(h_BKF.flatten(1))))
        logits_BTO: Tensor = logits.unflatten(1, (len(self.tasks), self.n_outputs))
        return logits_BTO

    def extra_repr(self) -> str:
        return f"tasks={list(self.tasks)}, n_outputs={self.n_outputs}"


class Heads(nn.Module):
    """Dropout on the towers' last activation, then one grouped head per task group.

    Args:
        groups: group name -> head.
        n_towers: K.
        dropout: probability that a feature is dropped in training.
    """

    def __init__(self, groups: Mapping[str, GroupedHead], n_towers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_towers = n_towers
        self.dropout = nn.Dropout(dropout)
        self.groups = nn.ModuleDict(groups)

    def forward(self, h: Tensor) -> dict[str, Tensor]:
        plain_BKF = h.flatten(1).unflatten(1, (self.n_towers, -1))
        h_BKF = self.dropout(plain_BKF)
        return {
            name: head(h_BKF if head.dropout is None else head.dropout(plain_BKF))  # type: ignore[operator]
            for name, head in self.groups.items()
        }

    def place(self, task: str) -> tuple[str, int]:
        """The group a task is computed in and its position there."""
        for name, head in self.groups.items():
            assert isinstance(head, GroupedHead)
            if task in head.tasks:
                return name, head.tasks.index(task)
        raise KeyError(task)
