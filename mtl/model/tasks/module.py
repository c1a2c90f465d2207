"""What belongs to T tasks of one kind: their head, their loss, and how their logits are read.

Shapes: B batch, R readings, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mtl.model.tasks.losses import weighted_sum

if TYPE_CHECKING:
    from torchmetrics import Metric

    from mtl.model.tasks.heads import GroupedHead


class TaskModule(nn.Module):
    """Head, loss and prediction of T tasks of one kind, computed together.

    A kind of task is a subclass with `row_loss`, `metric` and `predict`.

    Args:
        head: from the trunk's readings to logits (B, T, O).
        constants: the numbers that the kind needs, (T,) or (T, ...) each. They become buffers of these names. No
            checkpoint holds them: the record of the run does.
    """

    mean_weight: Tensor
    """(T,) the mean weight of a training row that counts; a step divides a loss by the rows that count times this."""

    def __init__(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.head = head
        for name, values in constants.items():
            self.register_buffer(name, values.clone(), persistent=False)  # `decide` writes into it
        self.register_buffer("mean_weight", torch.ones(len(head.tasks)), persistent=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The T tasks, in the order of the logits."""
        return self.head.tasks

    def forward(self, h: Tensor) -> Tensor:
        """Readings (B, R, *shape) -> logits (B, T, O)."""
        logits_BTO: Tensor = self.head(h)
        return logits_BTO

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        """(B, T) the loss of each row; anything finite where the label is missing."""
        raise NotImplementedError

    def row_weight(self, target: Tensor, weight_BT: Tensor) -> Tensor:
        """(B, T) the weight of each row in the loss: `weight_BT`, times that of the row's class in some kinds."""
        return weight_BT

    def loss(self, logits_BTO: Tensor, target: Tensor, weight_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(T,) sum over rows of weight * loss, and (T,) sum of the weights: never a mean.

        Whoever has all rows divides one by the other; a step divides by what `counted` gives.

        Args:
            logits_BTO: of B rows.
            target: (B, T) or (B, T, O).
            weight_BT: 0 where a label is missing, elsewhere the row's sample weight (1 unless given).
        """
        weight_BT = self.row_weight(target, weight_BT)
        return weighted_sum(self.row_loss(logits_BTO, target), weight_BT), weight_BT.sum(0)

    def counted(self, target: Tensor, weight_BT: Tensor) -> Tensor:
        """(T,) how many rows count for each task: those with a label and a positive weight."""
        return (self.row_weight(target, weight_BT) > 0).sum(0)

    def metric(self, names: frozenset[str]) -> Metric:
        """A torchmetrics Metric that measures `names`.

        `update(logits_BTO, target, present_BT)`; `compute()` gives name -> (T,), NaN where it is undefined.
        """
        raise NotImplementedError

    def predict(self, logits_BTO: Tensor) -> dict[str, Tensor]:
        """What the logits mean, in torch alone: name -> (B, T) or (B, T, ...)."""
        raise NotImplementedError

    def negative_log_likelihood(self, logits_BO: Tensor, target: Tensor) -> Tensor:
        """The mean over rows of one task, by which a temperature is fitted; only for kinds that have one."""
        raise NotImplementedError

    def decide(self, t: int, constants: Mapping[str, tuple[float, ...]]) -> None:
        """Set fitted numbers of task t, such as its threshold."""
        for name, values in constants.items():
            own = self.get_buffer(name)
            own[t] = torch.tensor(values, dtype=own.dtype, device=own.device).view(own[t].shape)
