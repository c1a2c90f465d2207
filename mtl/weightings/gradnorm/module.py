"""Gradient normalization. Shapes: N tasks, S of them seen in a step, P shared numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtl.model.weighting import Needs, OwnAdam, Weighting

LEAST = 1e-3
"""No weight falls below this, as a negative one would make a task worse on purpose."""


class GradientNormalization(Weighting):
    """gradient = sum_t w_t g_t over the seen tasks, with weights w that follow

        G_t = w_t ||g_t||,   r_t = (L_t / L_t(0)) / mean_u (L_u / L_u(0)),
        w minimizes sum_t |G_t - mean_u G_u * r_t^alpha|, where the second term is held,

    by a step of Adam after each step of training, and are then scaled so that their sum stays. L_t(0) is the loss of
    the task in the first step that sees it. An absent task keeps its weight. In the paper the gradients are those of
    the last shared layer; here they are those of all shared slices.

    Source: Chen et al. 2018, arXiv:1711.02257, eq. 1 and 2, algorithm 1.

    Args:
        task_weights: weight_t, a factor of w_t.
        alpha: the exponent.
        lr: of the weights.
    """

    needs: ClassVar[Needs] = "gradients"
    positive: ClassVar[bool] = True
    balance: Tensor
    first_losses: Tensor

    def __init__(self, task_weights: Sequence[float], alpha: float, lr: float) -> None:
        super().__init__(task_weights)
        self.alpha = alpha
        n = len(self.task_weights)
        self.register_buffer("balance", torch.ones(n))
        self.register_buffer("first_losses", torch.full((n,), torch.nan))
        self.adam = OwnAdam(n, lr)

    def combine(self, jacobian_SP: Tensor, losses_S: Tensor, seen_N: Tensor) -> tuple[Tensor, Tensor | None]:
        weights_S = (self.balance * self.task_weights)[seen_N].to(jacobian_SP.dtype)
        gradient = weights_S @ jacobian_SP
        lengths_S = jacobian_SP.norm(dim=1) * self.task_weights[seen_N]
        if bool(
            (torch.isfinite(lengths_S) & torch.isfinite(losses_S)).all()
        ):  # the step is not taken otherwise
            self._follow(lengths_S.to(self.balance.dtype), losses_S.to(self.balance.dtype), seen_N)
        return gradient, weights_S

    @torch.no_grad()
    def _follow(self, lengths_S: Tensor, losses_S: Tensor, seen_N: Tensor) -> None:
        """Move the weights of the seen tasks."""
        first_S = self.first_losses[seen_N]
        self.first_losses[seen_N] = torch.where(first_S.isnan(), losses_S, first_S)
        ratios_S = losses_S / self.first_losses[seen_N]
        rates_S = ratios_S / ratios_S.mean()
        norms_S = self.balance[seen_N] * lengths_S
        slope_S = torch.sign(norms_S - norms_S.mean() * rates_S**self.alpha) * lengths_S
        gradient_N = torch.zeros_like(self.balance)
        gradient_N[seen_N] = slope_S
        total = self.balance[seen_N].sum()
        self.adam.step(self.balance, gradient_N, seen_N)
        moved_S = self.balance[seen_N].clamp(min=LEAST)
        self.balance[seen_N] = moved_S * total / moved_S.sum()

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}, lr={self.adam.lr:g}"
