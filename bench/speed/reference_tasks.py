"""Loss and metric of each kind of task in plain PyTorch, for the yardstick in bench/speed/reference.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Task:
    """One kind of task.

    Args:
        labels: raw labels (n, ...), their module in mtl and their place in it -> the labels that the loss takes.
        loss: logits (B, O) and labels -> the mean loss.
        metric: logits (B, O) and labels -> the sum over rows of what is counted: right answers, or squared errors.
    """

    labels: Callable[[Tensor, Any, int], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]


def log_p_of_ordered(z: Tensor) -> Tensor:
    """(B, C - 1) -> (B, C): log odds of y >= c that fall from class to class, as log probabilities of the classes."""
    odds = torch.cat([z[:, :1], z[:, :1] - F.softplus(z[:, 1:]).cumsum(1)], dim=1)
    at_least = F.pad(odds.sigmoid(), (1, 0), value=1.0)
    return (at_least - F.pad(odds.sigmoid(), (0, 1), value=0.0)).clamp_min(1e-12).log()


def _standardized(y: Tensor, module: Any, t: int) -> Tensor:
    z: Tensor = (y - module.mean[t] - module.mean_rest[t]) / module.std[t]
    return z.float()


TASKS = {
    "Classes": Task(
        labels=lambda y, module, t: y.long(),
        loss=F.cross_entropy,
        metric=lambda z, y: (z.argmax(1) == y).sum(),
    ),
    "OrderedClasses": Task(
        labels=lambda y, module, t: y.long(),
        loss=lambda z, y: F.nll_loss(log_p_of_ordered(z), y),
        metric=lambda z, y: (log_p_of_ordered(z).argmax(1) == y).sum(),
    ),
    "YesNo": Task(
        labels=lambda y, module, t: y.float(),
        loss=lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y),
        metric=lambda z, y: ((z[:, 0] > 0) == y.bool()).sum(),
    ),
    "Labels": Task(
        labels=lambda y, module, t: y.float(),
        loss=F.binary_cross_entropy_with_logits,
        metric=lambda z, y: ((z > 0) == y.bool()).float().mean(1).sum(),
    ),
    "Quantity": Task(
        labels=_standardized,
        loss=lambda z, y: F.mse_loss(z[:, 0], y),
        metric=lambda z, y: (z[:, 0] - y).square().sum(),
    ),
}
"""Name of a module of mtl -> the same kind of task."""
