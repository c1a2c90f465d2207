"""From probabilities back to logits: the inverses of what the shipped kinds of tasks predict.

Shapes: B batch, T tasks of a group, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = torch.finfo(torch.float32).tiny
"""A probability of 0 counts as this, so that its logit is finite (-87)."""
CLOSE = 1e-6
"""Probabilities are put this far apart where rounding could turn an answer: at a threshold, and between two classes."""
SURE = 0.9
"""The probability of a class that is given without probabilities; the others share the rest."""


def log_odds_of(p: Tensor) -> Tensor:
    """log p - log(1 - p) in float64; 0 and 1 give finite numbers."""
    p = p.double().clamp(LEAST, 1 - torch.finfo(torch.float64).eps)
    return p.log() - torch.log1p(-p)


def log_p_of(p_BTC: Tensor) -> Tensor:
    """(B, T, C) log p, less that of the most probable class, in float64: near ties stay apart in float32."""
    log_p_BTC = p_BTC.double().clamp_min(LEAST).log()
    return log_p_BTC - log_p_BTC.amax(-1, keepdim=True)


def sides_of(p: Tensor, threshold: Tensor) -> Tensor:
    """The same probabilities in float64; none is so close to its threshold that rounding could change the answer.

    The answer is yes from the threshold upwards, both in float32, as predictions have it.
    """
    yes = p.float() >= threshold
    p, threshold = p.double(), threshold.double()
    side = threshold + torch.where(yes, CLOSE, -CLOSE)
    return torch.where((p - threshold).abs() < CLOSE, side, p)


def p_of_answers(yes: Tensor, threshold: Tensor) -> Tensor:
    """A probability half way between the threshold and 1 for a yes, and between 0 and the threshold for a no."""
    return torch.where(yes, (1 + threshold.double()) / 2, threshold.double() / 2)


def p_of_classes(class_BT: Tensor, n_classes: int) -> Tensor:
    """(B, T, C) probabilities of which that of the given class is the highest."""
    p_BTC = torch.full((*class_BT.shape, n_classes), (1 - SURE) / (n_classes - 1), dtype=torch.float64)
    return p_BTC.to(class_BT.device).scatter(-1, class_BT.long().unsqueeze(-1), SURE)


def cumulative_of(p_BTC: Tensor) -> Tensor:
    """(B, T, C) probabilities of ordered classes -> (B, T, C - 1) head outputs r, the inverse of `cumulative_log_p`.

    With S_c = P(y >= c) and L_c = P(y < c): z_c = log S_c - log L_c, r_1 = z_1, and softplus(r_c) = z_{c-1} - z_c =
    log(1 + p_{c-1} / S_c) + log(1 + p_{c-1} / L_{c-1}), which loses no digits where z_{c-1} and z_c are close.
    """
    p = p_BTC.double().clamp_min(LEAST)
    top = p.topk(2, dim=-1)
    tied = (top.values[..., :1] - top.values[..., 1:]) < CLOSE
    p = torch.where(tied, p.scatter_add(-1, p.argmax(-1, keepdim=True), torch.full_like(p, 2 * CLOSE)), p)
    below = p.cumsum(-1)[..., :-1]  # L_1 ... L_{C-1}
    above = p.flip(-1).cumsum(-1).flip(-1)[..., 1:]  # S_1 ... S_{C-1}
    first = above[..., :1].log() - below[..., :1].log()
    middle = p[..., 1:-1]
    gap = torch.log1p(middle / above[..., 1:]) + torch.log1p(middle / below[..., :-1])
    rest = gap + torch.log(-torch.expm1(-gap))
    return torch.cat([first, rest], dim=-1)
