"""The module of T tasks of one kind holds their head and their loss, and interprets their logits.

Shapes: B batch, R readings, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from mtl.model.tasks.losses import weighted_sum

if TYPE_CHECKING:
    from torchmetrics import Metric

    from mtl.model.tasks.heads import GroupedHead


class TaskModule(nn.Module):
    """Head, loss and prediction of T tasks of one kind, computed together.

    Each kind of task is a subclass, which implements `row_loss`, `metric` and `predict`.

    Args:
        head: maps the trunk's readings to logits (B, T, O).
        constants: the numbers that the kind needs, (T,) or (T, ...) each, which become buffers of these names. The
            record of the run holds them; checkpoints do not.
    """

    answer: ClassVar[Literal["class", "yes", "there", "value"] | None] = None
    """The prediction that is the answer itself: a class (B, T), yes or no (B, T), the labels that are there (B, T, O),
    or a value (B, T). None for a kind without `logits_of`."""

    mean_weight: Tensor
    """(T,) the mean weight of the training rows that count; a step divides a loss sum by their number times this."""

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

    def forward(self, h: Tensor, present_BT: Tensor | None = None) -> Tensor:
        """Readings (B, R, *shape) -> logits (B, T, O); `present_BT`: which rows have a label, None if all have."""
        logits_BTO: Tensor = self.head(h, present_BT)
        return logits_BTO

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        """(B, T) the loss of each row; a row without a label may have any finite value."""
        raise NotImplementedError

    def row_weight(self, target: Tensor, weight_BT: Tensor) -> Tensor:
        """(B, T) the weight of each row in the loss: `weight_BT`, which some kinds multiply by the class weight."""
        return weight_BT

    def weight_of_yes(self) -> Tensor | None:
        """(T,) or (T, O) the weight in the loss of rows whose answer is yes; None if they weigh as much as others."""
        return None

    def loss(self, logits_BTO: Tensor, target: Tensor, weight_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(T,) sum over rows of weight * loss, and (T,) sum of the weights; the caller divides.

        An evaluation divides the sum of losses by the sum of weights over all rows. A step divides it by the number
        of rows from `counted` times `mean_weight`.

        Args:
            logits_BTO: the logits of B rows.
            target: (B, T) or (B, T, O).
            weight_BT: 0 where a label is missing, elsewhere the sample weight of the row (by default 1).
        """
        weight_BT = self.row_weight(target, weight_BT)
        return weighted_sum(self.row_loss(logits_BTO, target), weight_BT), weight_BT.sum(0)

    def counted(self, target: Tensor, weight_BT: Tensor) -> Tensor:
        """(T,) the number of rows that count for each task: they have a label and a positive weight."""
        return (self.row_weight(target, weight_BT) > 0).sum(0)

    def metric(self, names: frozenset[str]) -> Metric:
        """A torchmetrics Metric that measures `names`.

        Its signatures are `update(logits_BTO, target, present_BT)` and `compute()`, which gives name -> (T,), NaN
        where a metric is undefined. If a task of the group says `metrics_weighted`, `update` gets the weights of the
        rows instead of `present_BT`, 0 where a label is missing; its states of whole numbers are floating then.
        """
        raise NotImplementedError

    def predict(self, logits_BTO: Tensor) -> dict[str, Tensor]:
        """Name of a prediction -> (B, T) or (B, T, ...), computed with torch alone."""
        raise NotImplementedError

    def class_probabilities(self, logits_BTO: Tensor) -> Tensor:
        """(B, T, C) the probability of each class; only kinds whose rows have exactly one class have it."""
        raise NotImplementedError

    def predicted_of(self, p_BTC: Tensor) -> dict[str, Tensor]:
        """The probabilities of classes in the form in which `predict` gives them."""
        return {"p": p_BTC}

    def logits_of(self, predicted: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, T, O) for which `predict` gives `predicted`: so other models have the metrics of networks.

        Args:
            predicted: the probabilities `p`, or else the answer alone, in the forms in which `predict` gives them.
                Metrics of `TaskSpec.answer_metrics` are then those of the answers; others would mean nothing.
        """
        raise NotImplementedError

    def negative_log_likelihood(
        self, logits_BO: Tensor, target: Tensor, weight_B: Tensor | None = None
    ) -> Tensor:
        """The mean over the rows of one task, in nats. Its minimum gives the temperature of the kinds that have one.

        Args:
            logits_BO: the logits of B rows.
            target: (B,) or (B, O).
            weight_B: the weight of each row in the mean; by default all count alike.
        """
        raise NotImplementedError

    def decide(self, t: int, constants: Mapping[str, tuple[float, ...]]) -> None:
        """Set the fitted numbers of task t, such as its threshold."""
        for name, values in constants.items():
            own = self.get_buffer(name)
            own[t] = torch.tensor(values, dtype=own.dtype, device=own.device).view(own[t].shape)
