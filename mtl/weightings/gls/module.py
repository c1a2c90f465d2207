"""Geometric loss strategy. Shapes: N tasks."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtl.model.weighting import Needs, Weighting, logarithms


class GeometricLoss(Weighting):
    """loss = exp(sum_t weight_t log loss_t / sum_t weight_t) over the seen tasks.

    Source: Chennupati et al. 2019, arXiv:1904.08492, eq. 3, whose root is that of the number of tasks.
    """

    needs: ClassVar[Needs] = "totals"
    positive: ClassVar[bool] = True

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        weights_N = torch.where(seen_N, self.task_weights, 0.0)
        return torch.exp(
            torch.dot(weights_N, logarithms(losses_N, seen_N)) / weights_N.sum().clamp(min=1e-12)
        )
