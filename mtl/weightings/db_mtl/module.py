"""Dual balancing. Shapes: N tasks, S of them seen in a step, P shared numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtl.model.weighting import Needs, Weighting

EPS = 1e-8


class DualBalance(Weighting):
    """gradient = max_u ||a_u|| * sum_t weight_t a_t / ||a_t|| over the seen tasks, with averages over their own steps

        a_t = b_k a_t + (1 - b_k) g_t / (loss_t + 1e-8),   b_k = beta / k^sigma at the k-th step that sees task t

    of the gradients of log(loss_t + 1e-8). An absent task keeps its average.

    Source: Lin et al. 2023, arXiv:2308.12029, eq. 1 to 4 and algorithm 1.

    Args:
        task_weights: weight_t.
        beta: the part of the average that the first step keeps.
        sigma: how fast that part falls.
    """

    needs: ClassVar[Needs] = "gradients"
    positive: ClassVar[bool] = True
    averages: Tensor
    steps: Tensor

    def __init__(self, task_weights: Sequence[float], beta: float, sigma: float) -> None:
        super().__init__(task_weights)
        self.beta, self.sigma = beta, sigma
        self.register_buffer("steps", torch.zeros(len(self.task_weights)))

    def prepare(self, n_shared: int) -> None:
        """Make room for the averages (N, P), if there are any."""
        shape = (len(self.task_weights), n_shared if self.beta else 0)
        self.register_buffer("averages", torch.zeros(shape))

    def combine(self, jacobian_SP: Tensor, losses_S: Tensor, seen_N: Tensor) -> tuple[Tensor, Tensor | None]:
        scales_S = 1 / (losses_S + EPS)
        rows_SP = scales_S[:, None] * jacobian_SP
        if self.beta and bool(rows_SP.isfinite().all()):  # a step that is not finite is not taken
            self.steps += seen_N
            kept_S1 = (self.beta / self.steps[seen_N] ** self.sigma).to(rows_SP.dtype)[:, None]
            rows_SP = kept_S1 * self.averages[seen_N].to(rows_SP.dtype) + (1 - kept_S1) * rows_SP
            self.averages[seen_N] = rows_SP.to(self.averages.dtype)
        lengths_S = rows_SP.norm(dim=1)
        weights_S = self.task_weights[seen_N].to(rows_SP.dtype) * lengths_S.max() / (lengths_S + EPS)
        return weights_S @ rows_SP, None if self.beta else weights_S * scales_S

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}, sigma={self.sigma:g}"
