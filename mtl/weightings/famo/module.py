"""Fast adaptive multitask optimization. Shapes: N tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtl.model.weighting import Needs, OwnAdam, Weighting, logarithms, softmax_of_seen


class FastAdaptiveWeighting(Weighting):
    """loss = n c sum_t z_t log loss_t over the n seen tasks, with z = softmax(w) and c = 1 / sum_t (z_t / loss_t).

    After the step, with the losses loss' of the same batch at the new parameters,

        delta_t = log loss_t - log loss'_t,   gradient of w = (dz / dw)^T delta

    and Adam with weight decay moves w. An absent task takes no part in the softmax, and its w and its moments stay.

    Source: Liu et al. 2023, arXiv:2306.03792, algorithm 1, without the factor n.

    Args:
        task_weights: weight_t, a factor of z_t.
        lr: of w.
        weight_decay: of w.
    """

    needs: ClassVar[Needs] = "totals"
    positive: ClassVar[bool] = True
    logits: Tensor

    def __init__(self, task_weights: Sequence[float], lr: float, weight_decay: float) -> None:
        super().__init__(task_weights)
        self.register_buffer("logits", torch.zeros(len(self.task_weights)))
        self.adam = OwnAdam(len(self.task_weights), lr, weight_decay)

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        z_N = softmax_of_seen(self.logits, seen_N) * self.task_weights
        held_N = torch.where(seen_N, losses_N.detach(), 1.0)
        c = 1 / (z_N / held_N).sum().clamp(min=1e-12)
        return seen_N.sum() * c * torch.dot(z_N, logarithms(losses_N, seen_N))

    @torch.no_grad()
    def after_step(self, losses_N: Tensor, seen_N: Tensor, losses_of: Callable[[], Tensor]) -> None:
        """Move w by how much the log loss of each task fell."""
        delta_N = logarithms(losses_N, seen_N) - logarithms(losses_of(), seen_N)
        z_N = softmax_of_seen(self.logits, seen_N)
        self.adam.step(self.logits, z_N * (delta_N - torch.dot(z_N, delta_N)), seen_N)

    def extra_repr(self) -> str:
        return f"lr={self.adam.lr:g}, weight_decay={self.adam.weight_decay:g}"
