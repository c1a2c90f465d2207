"""Smooth Tchebycheff scalarization. Shapes: N tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtl.model.weighting import Needs, Weighting


class SmoothTchebycheffScalarization(Weighting):
    """loss = n^2 mu log sum_t exp(lambda_t (loss_t - ideal) / mu), lambda_t = weight_t / n, over the n seen tasks.

    Source: Lin et al. 2024, arXiv:2402.19078, eq. 5, without the factor n^2.

    Args:
        task_weights: weight_t.
        mu: the smoothing.
        ideal: the ideal point z*, the same for all tasks.
    """

    needs: ClassVar[Needs] = "totals"

    def __init__(self, task_weights: Sequence[float], mu: float, ideal: float) -> None:
        super().__init__(task_weights)
        self.mu, self.ideal = mu, ideal

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        n = seen_N.sum().clamp(min=1)
        terms_N = self.task_weights / n * (losses_N - self.ideal) / self.mu
        return n * n * self.mu * torch.logsumexp(terms_N.masked_fill(~seen_N, -torch.inf), dim=0)

    def extra_repr(self) -> str:
        return f"mu={self.mu:g}, ideal={self.ideal:g}"
