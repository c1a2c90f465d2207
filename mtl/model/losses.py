"""Losses of a task group, and their sum.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def masked_mean(loss_BT: Tensor, present_BT: Tensor) -> Tensor:
    """(T,) mean over the rows whose label is present; exactly 0, with zero gradient, where none is."""
    total_T = torch.where(present_BT, loss_BT, 0.0).sum(0)
    return total_T / present_BT.sum(0).clamp(min=1)


def cross_entropy(
    logits_BTO: Tensor, target_BT: Tensor, present_BT: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """(T,) mean of -log softmax(logits)[target] over the present rows; in nats."""
    loss_BT = F.cross_entropy(
        logits_BTO.transpose(1, 2), target_BT, reduction="none", label_smoothing=label_smoothing
    )
    return masked_mean(loss_BT, present_BT)


class WeightedSum(nn.Module):
    """loss = sum_t weight_t * loss_t."""

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(tuple(weights), dtype=torch.float32), persistent=False)

    def forward(self, losses_N: Tensor) -> Tensor:
        return torch.dot(self.weights, losses_N)

    def extra_repr(self) -> str:
        return f"weights={self.weights.tolist()}"
