"""A weighting: the losses have other weights at every step.

Shapes: N tasks.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

import mtl


class RandomlyWeighted(mtl.Weighting):
    """loss = sum_t w_t loss_t over the tasks seen in a step; w = softmax(z) times their number, z ~ N(0, 1)."""

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        # from torch's own generator, which begins each step at a state of its own: a resumed run draws the same
        z_N = torch.randn(len(losses_N)).to(losses_N)
        w_N = z_N.masked_fill(~seen_N, -torch.inf).softmax(0) * seen_N.sum()
        return (torch.where(seen_N, w_N * self.task_weights, 0.0) * losses_N).sum()


@mtl.register_weighting("random")
class Random(mtl.WeightingSpec):
    """Random loss weighting: a baseline that other weightings have to beat."""

    reference: ClassVar[str] = "Lin et al. 2021, arXiv:2111.10603"

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> mtl.Weighting:
        return RandomlyWeighted(task_weights)
