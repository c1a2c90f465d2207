"""Losses row by row, and their weighted sums over rows.

Shapes: B batch, T tasks of a group, O outputs per task, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def weighted_sum(loss_BT: Tensor, weight_BT: Tensor) -> Tensor:
    """(T,) sum over rows of weight * loss; exactly 0, with zero gradient, if all weights are 0.

    A row of weight 0 adds nothing, even if its loss is infinite or NaN.
    """
    return torch.where(weight_BT > 0, loss_BT * weight_BT, 0.0).sum(0)


def cross_entropy(logits_BTO: Tensor, target_BT: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(B, T) -log softmax(logits)[target], in nats.

    Smoothing by e uses (1 - e) * one-hot(target) + e / C as the target distribution.
    """
    return F.cross_entropy(
        logits_BTO.transpose(1, 2), target_BT.long(), reduction="none", label_smoothing=label_smoothing
    )


def binary_cross_entropy(
    logits_BT: Tensor,
    target_BT: Tensor,
    label_smoothing: float = 0.0,
    positive_weight_T: Tensor | None = None,
) -> Tensor:
    """(B, T) -w y log s(z) - (1 - y) log(1 - s(z)), in nats; s is the logistic function.

    Smoothing by e uses (1 - e) * y + e / 2 in place of y.
    """
    y_BT = _smoothed(target_BT.to(logits_BT.dtype), label_smoothing)
    return F.binary_cross_entropy_with_logits(logits_BT, y_BT, reduction="none", pos_weight=positive_weight_T)


def multilabel_loss(
    logits_BTO: Tensor,
    target_BTO: Tensor,
    label_smoothing: float = 0.0,
    positive_weight_TO: Tensor | None = None,
) -> Tensor:
    """(B, T) mean binary cross entropy over the known labels of a row, in nats; target -1 marks an unknown label."""
    known_BTO = target_BTO >= 0
    y_BTO = _smoothed(target_BTO.clamp(min=0).to(logits_BTO.dtype), label_smoothing)
    loss_BTO = F.binary_cross_entropy_with_logits(
        logits_BTO, y_BTO, reduction="none", pos_weight=positive_weight_TO
    )
    return torch.where(known_BTO, loss_BTO, 0.0).sum(-1) / known_BTO.sum(-1).clamp(min=1)


def _smoothed(y: Tensor, label_smoothing: float) -> Tensor:
    return y * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else y


def regression_loss(z_BT: Tensor, y_BT: Tensor, kind: str, delta: float) -> Tensor:
    """(B, T) mse, mae or huber loss of standardized predictions and labels."""
    if kind == "mse":
        return (z_BT - y_BT).square()
    if kind == "mae":
        return (z_BT - y_BT).abs()
    return F.huber_loss(z_BT, y_BT, reduction="none", delta=delta)


def cumulative_log_p(r: Tensor) -> Tensor:
    """(..., C - 1) head outputs -> (..., C) log probabilities of ordered classes.

    z_1 = r_1, z_c = z_{c-1} - softplus(r_c); P(y = c) = s(z_c) - s(z_{c+1}). Since s(a) - s(b) =
    s(a) s(-b) (1 - exp(b - a)) and 1 - exp(-softplus(r)) = s(r), log P(y = c) = log s(z_c) + log s(-z_{c+1}) +
    log s(r_{c+1}). This form stays exact even if the difference would round to zero.
    """
    first, rest = r[..., :1], r[..., 1:]
    z = torch.cat([first, first - F.softplus(rest).cumsum(-1)], dim=-1)
    low = F.logsigmoid(-z[..., :1])
    middle = F.logsigmoid(z[..., :-1]) + F.logsigmoid(-z[..., 1:]) + F.logsigmoid(rest)
    high = F.logsigmoid(z[..., -1:])
    return torch.cat([low, middle, high], dim=-1)


def cumulative_logits(p: Tensor) -> Tensor:
    """(..., C) positive numbers that add up to about 1 -> (..., C - 1) head outputs, the inverse of `cumulative_log_p`.

    z_c = log(P(y >= c) / P(y < c)), r_1 = z_1, and r_c = log(exp(z_{c-1} - z_c) - 1) for c > 1. Since
    exp(z_{c-1} - z_c) - 1 = P(y = c - 1) / (P(y < c - 1) P(y >= c)), the differences of z are never taken.
    """
    below = p.cumsum(-1)[..., :-1]
    above = p.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    first = above[..., :1].log() - below[..., :1].log()
    rest = p[..., 1:-1].log() - below[..., :-1].log() - above[..., 1:].log()
    return torch.cat([first, rest], dim=-1)


def cumulative_loss(logits_BTO: Tensor, target_BT: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(B, T) -log P(y) of ordered classes, in nats; smoothing is that of `cross_entropy`."""
    log_p_BTC = cumulative_log_p(logits_BTO)
    loss_BT = -log_p_BTC.gather(-1, target_BT.long().unsqueeze(-1)).squeeze(-1)
    if label_smoothing:
        loss_BT = (1 - label_smoothing) * loss_BT - label_smoothing * log_p_BTC.mean(-1)
    return loss_BT


def mean_of(loss_B: Tensor, weight_B: Tensor | None) -> Tensor:
    """sum_i w_i loss_i / sum_i w_i; without weights the plain mean."""
    return loss_B.mean() if weight_B is None else (weight_B * loss_B).sum() / weight_B.sum()
