"""Random loss weighting. Shapes: N tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl.model.weighting import Weighting, softmax_of_seen


class RandomLossWeights(Weighting):
    """loss = n sum_t softmax(z)_t weight_t loss_t over the n seen tasks, z ~ N(0, 1).

    z is drawn by torch's own generator, which a step begins at a state that follows from the seed and the number of the
    step. A resumed run therefore draws the same numbers.

    Source: Lin et al. 2022, arXiv:2111.10603, algorithm 2, where the weights sum to 1.
    """

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        z_N = torch.randn(len(losses_N), device="cpu").to(losses_N)
        weights_N = softmax_of_seen(z_N, seen_N) * seen_N.sum() * self.task_weights
        return torch.dot(weights_N, torch.where(seen_N, losses_N, 0.0))
