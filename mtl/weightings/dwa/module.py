"""Dynamic weight average. Shapes: N tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl.model.weighting import Weighting, softmax_of_seen


class DynamicWeights(Weighting):
    """loss = sum_t lambda_t weight_t loss_t over the seen tasks, with rates r_t = L_t(e - 1) / L_t(e - 2):

        lambda_t = n softmax(r / temperature)_t over the n seen tasks that were seen in two epochs, else 1

    L_t(e) is the mean loss of epoch e over the rows that have a label of task t. An epoch without any leaves the two
    last means of the task as they are.

    Source: Liu, Johns and Davison 2019, arXiv:1803.10704, eq. 7.

    Args:
        task_weights: weight_t.
        temperature: of the softmax.
    """

    last: Tensor
    before: Tensor
    epochs: Tensor

    def __init__(self, task_weights: Sequence[float], temperature: float) -> None:
        super().__init__(task_weights)
        self.temperature = temperature
        n = len(self.task_weights)
        self.register_buffer("last", torch.ones(n))
        self.register_buffer("before", torch.ones(n))
        self.register_buffer("epochs", torch.zeros(n, dtype=torch.long))

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        rated_N = seen_N & (self.epochs >= 2)
        rates_N = self.last / self.before / self.temperature
        lambda_N = torch.where(rated_N, softmax_of_seen(rates_N, rated_N) * rated_N.sum(), 1.0)
        return torch.dot(lambda_N * self.task_weights, torch.where(seen_N, losses_N, 0.0))

    @torch.no_grad()
    def after_epoch(self, losses_N: Tensor, seen_N: Tensor) -> None:
        """Take note of the mean losses of an epoch, for the tasks that had labels."""
        self.before.copy_(torch.where(seen_N, self.last, self.before))
        self.last.copy_(torch.where(seen_N, losses_N.to(self.last.dtype), self.last))
        self.epochs += seen_N

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}"
