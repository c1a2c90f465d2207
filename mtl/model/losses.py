"""Losses of a task group, and their sum.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks. weight_BT is 0 where a label is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def masked_mean(loss_BT: Tensor, weight_BT: Tensor) -> Tensor:
    """(T,) weighted mean over the rows; exactly 0, with zero gradient, where all weights are 0."""
    total_T = torch.where(weight_BT > 0, loss_BT * weight_BT, 0.0).sum(0)
    weight_T = weight_BT.sum(0)
    return total_T / torch.where(weight_T > 0, weight_T, 1.0)


def cross_entropy(
    logits_BTO: Tensor,
    target_BT: Tensor,
    weight_BT: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weight_TO: Tensor | None = None,
) -> Tensor:
    """(T,) mean of -log softmax(logits)[target], each row weighted by its class's weight too; in nats.

    Smoothing moves its share of a row's target evenly to all classes.
    """
    target_BT = target_BT.long()
    loss_BT = F.cross_entropy(
        logits_BTO.transpose(1, 2), target_BT, reduction="none", label_smoothing=label_smoothing
    )
    if class_weight_TO is not None:
        weight_BT = weight_BT * class_weight_TO.T.gather(0, target_BT)
    return masked_mean(loss_BT, weight_BT)


def binary_cross_entropy(
    logits_BT: Tensor,
    target_BT: Tensor,
    weight_BT: Tensor,
    *,
    label_smoothing: float = 0.0,
    positive_weight_T: Tensor | None = None,
) -> Tensor:
    """(T,) mean of -w y log s(z) - (1 - y) log(1 - s(z)); in nats. Smoothing moves y to its share towards 1/2."""
    y_BT = _smoothed(target_BT.to(logits_BT.dtype), label_smoothing)
    loss_BT = F.binary_cross_entropy_with_logits(
        logits_BT, y_BT, reduction="none", pos_weight=positive_weight_T
    )
    return masked_mean(loss_BT, weight_BT)


def multilabel_loss(
    logits_BTO: Tensor,
    target_BTO: Tensor,
    weight_BT: Tensor,
    *,
    label_smoothing: float = 0.0,
    positive_weight_TO: Tensor | None = None,
) -> Tensor:
    """(T,) mean over rows of the mean binary cross entropy over the row's known labels; target -1 is unknown."""
    known_BTO = target_BTO >= 0
    y_BTO = _smoothed(target_BTO.clamp(min=0).to(logits_BTO.dtype), label_smoothing)
    loss_BTO = F.binary_cross_entropy_with_logits(
        logits_BTO, y_BTO, reduction="none", pos_weight=positive_weight_TO
    )
    loss_BT = torch.where(known_BTO, loss_BTO, 0.0).sum(-1) / known_BTO.sum(-1).clamp(min=1)
    return masked_mean(loss_BT, weight_BT)


def _smoothed(y: Tensor, label_smoothing: float) -> Tensor:
    return y * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else y


def regression_loss(z_BT: Tensor, y_BT: Tensor, weight_BT: Tensor, kind: str, delta: float) -> Tensor:
    """(T,) mse, mae or huber of standardized predictions and labels."""
    if kind == "mse":
        loss_BT = (z_BT - y_BT).square()
    elif kind == "mae":
        loss_BT = (z_BT - y_BT).abs()
    else:
        loss_BT = F.huber_loss(z_BT, y_BT, reduction="none", delta=delta)
    return masked_mean(loss_BT, weight_BT)


def cumulative_log_p(r: Tensor) -> Tensor:
    """(..., C - 1) head outputs -> (..., C) log probabilities of ordered classes.

    z_1 = r_1, z_c = z_{c-1} - softplus(r_c); P(y = c) = s(z_c) - s(z_{c+1}). Since s(a) - s(b) =
    s(a) s(-b) (1 - exp(b - a)) and 1 - exp(-softplus(r)) = s(r), log P(y = c) = log s(z_c) + log s(-z_{c+1}) +
    log s(r_{c+1}), which stays exact where the difference would round to zero.
    """
    first, rest = r[..., :1], r[..., 1:]
    z = torch.cat([first, first - F.softplus(rest).cumsum(-1)], dim=-1)
    low = F.logsigmoid(-z[..., :1])
    middle = F.logsigmoid(z[..., :-1]) + F.logsigmoid(-z[..., 1:]) + F.logsigmoid(rest)
    high = F.logsigmoid(z[..., -1:])
    return torch.cat([low, middle, high], dim=-1)


def cumulative_loss(
    logits_BTO: Tensor,
    target_BT: Tensor,
    weight_BT: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weight_TC: Tensor | None = None,
) -> Tensor:
    """(T,) mean of -log P(y) of ordered classes, smoothed and weighted as in `cross_entropy`; in nats."""
    log_p_BTC, target_BT = cumulative_log_p(logits_BTO), target_BT.long()
    loss_BT = -log_p_BTC.gather(-1, target_BT.unsqueeze(-1)).squeeze(-1)
    if label_smoothing:
        loss_BT = (1 - label_smoothing) * loss_BT - label_smoothing * log_p_BTC.mean(-1)
    if class_weight_TC is not None:
        weight_BT = weight_BT * class_weight_TC.T.gather(0, target_BT)
    return masked_mean(loss_BT, weight_BT)


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
