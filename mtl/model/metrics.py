"""Metrics of a whole task group in one update.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class GroupedConfusion(Metric):
    """Accuracy and macro F1 of T classifiers, from T confusion matrices counted at once.

    Equal to torchmetrics' MulticlassAccuracy(average="micro") and MulticlassF1Score(average="macro") on
    each task alone; a group of 100 tasks takes one update instead of 100.

    Args:
        n_tasks: T.
        n_classes: O.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(self, n_tasks: int, n_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_tasks, self.n_classes = n_tasks, n_classes
        counts = torch.zeros(n_tasks, n_classes, n_classes, dtype=torch.long)
        self.add_state("confusion", default=counts, dist_reduce_fx="sum")

    def update(self, logits_BTO: Tensor, target_BT: Tensor, present_BT: Tensor) -> None:
        """Count predictions; rows without a label are left out."""
        size = self.n_tasks * self.n_classes**2
        first_bin_T = torch.arange(self.n_tasks, device=target_BT.device) * self.n_classes**2
        bin_BT = first_bin_T + target_BT * self.n_classes + logits_BTO.argmax(-1)
        bin_BT = torch.where(present_BT, bin_BT, size)
        counts = torch.bincount(bin_BT.flatten(), minlength=size + 1)[:size]
        self.confusion += counts.view_as(self.confusion)

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> (T,); NaN for a task without any label."""
        confusion = self.confusion.cpu().double()
        hits_TO = confusion.diagonal(dim1=1, dim2=2)
        seen_TO = confusion.sum(1) + confusion.sum(2)  # predicted and true: 2 tp + fp + fn
        f1_TO = 2 * hits_TO / seen_TO.clamp(min=1)
        return {
            "accuracy": hits_TO.sum(-1) / confusion.sum((1, 2)),
            "macro_f1": f1_TO.sum(-1) / (seen_TO > 0).sum(-1),
        }
