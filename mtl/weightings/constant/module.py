"""Constant weights whose sum is the number of tasks that a step sees. Shapes: N tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl.model.weighting import Weighting, rescaled


class ConstantWeighting(Weighting):
    """loss = n sum_t w_t loss_t / sum_t w_t over the n seen tasks."""

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        return torch.dot(rescaled(self.task_weights, seen_N), torch.where(seen_N, losses_N, 0.0))
