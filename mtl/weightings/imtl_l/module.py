"""Impartial multi-task learning, the part that scales losses. Shapes: N tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtl.model.weighting import Weighting


class ImpartialLossWeighting(Weighting):
    """loss = sum_t weight_t (exp(s_t) loss_t - s_t) over the seen tasks; s_t is learned.

    Source: Liu et al. 2021, Towards Impartial Multi-task Learning, ICLR, IMTL-L with the base e.
    """

    positive: ClassVar[bool] = True

    def __init__(self, task_weights: Sequence[float]) -> None:
        super().__init__(task_weights)
        self.log_scale = nn.Parameter(torch.zeros(len(self.task_weights)))

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        terms_N = self.task_weights * (torch.exp(self.log_scale) * losses_N - self.log_scale)
        return torch.where(seen_N, terms_N, 0.0).sum()
