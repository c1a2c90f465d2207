"""Batch norm of heads, over the rows that have the label of a task.

Shapes: B batch, T tasks of a group, W features or outputs of one task.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mtl.model.layers import DebiasedBatchNorm1d, grouped_norm
from mtl.model.parts import current_part

FEWEST = 2
"""Labelled rows that a batch needs for statistics of its own; with fewer, a task is normalized as in evaluation."""


class LabelledBatchNorm(DebiasedBatchNorm1d):
    """Batch norm (Ioffe and Szegedy 2015) of (B, T*W) with the statistics of each task's labelled rows.

    With m_bt = 1 where row b has the label of task t, and n_t = sum_b m_bt:

        mean_t = sum_b m_bt x_bt / n_t,   var_t = sum_b m_bt (x_bt - mean_t)^2 / n_t
        y_bt = (x_bt - mean_t) / sqrt(var_t + eps) * scale + shift

    Statistics over all rows would let a task lower its loss by shrinking the logits of the rows without its label,
    because their part of the deviation then falls and the labelled rows' logits grow. New rows are like those without.
    Evaluation and training without missing labels are those of plain batch norm.

    Args:
        n_tasks: T.
        width: W.
        eps: added to each variance.
        momentum: the part of the running statistics that a batch replaces.
        debias: whether the running statistics are corrected for their start.
        sync: whether the rows are those of all processes that train together.
    """

    def __init__(
        self, n_tasks: int, width: int, *, eps: float, momentum: float, debias: bool, sync: bool = False
    ) -> None:
        super().__init__(n_tasks * width, eps=eps, momentum=momentum)
        self.n_tasks, self.width, self.debias, self.sync = n_tasks, width, debias, sync
        self.settled = not debias
        # a count for each task, since a batch without its labels leaves its statistics as they are
        self.num_batches_tracked = torch.zeros(n_tasks, dtype=torch.long)

    def forward(self, x: Tensor, present_BT: Tensor | None = None) -> Tensor:
        """Input (B, T*W) -> normalized input; `present_BT` tells which rows have a label, None that all have."""
        part = current_part() if self.sync else None
        if present_BT is None and part is not None:
            present_BT = x.new_ones(len(x), self.n_tasks, dtype=torch.bool)
        if present_BT is None or not self.training or x.is_meta:
            return super().forward(x)
        x_BTW = x.float().unflatten(1, (self.n_tasks, self.width))
        there_BT1 = present_BT.unsqueeze(2)
        over_processes: Callable[[Tensor], Tensor] = (lambda own: own) if part is None else part.sum
        n_T1 = over_processes(there_BT1.sum(0))
        divisor_T1 = n_T1.clamp(min=1)
        mean_TW = over_processes(torch.where(there_BT1, x_BTW, 0.0).sum(0)) / divisor_T1
        var_TW = over_processes(torch.where(there_BT1, x_BTW - mean_TW, 0.0).square().sum(0)) / divisor_T1
        assert self.running_mean is not None and self.running_var is not None
        shape, enough_T1 = (self.n_tasks, self.width), n_T1 >= FEWEST
        mean = torch.where(enough_T1, mean_TW, self.running_mean.view(shape)).flatten()
        var = torch.where(enough_T1, var_TW, self.running_var.view(shape)).flatten()
        self._remember(mean_TW.detach(), var_TW.detach(), n_T1, enough_T1)
        normalized = (x.float() - mean) * torch.rsqrt(var + self.eps)
        return (normalized * self.weight + self.bias).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean_TW: Tensor, var_TW: Tensor, n_T1: Tensor, enough_T1: Tensor) -> None:
        """Move the running statistics of the tasks that had labels in the batch."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += enough_T1.squeeze(1)
        rate_T1 = enough_T1.to(mean_TW.dtype) * (self.momentum or 0.0)
        if self.debias:
            rest_T1 = (1 - (self.momentum or 0.0)) ** self.num_batches_tracked.unsqueeze(1).to(mean_TW.dtype)
            rate_T1 = torch.where(enough_T1, rate_T1 / (1 - rest_T1), 0.0)
        unbiased_TW = var_TW * n_T1 / (n_T1 - 1).clamp(min=1)
        for running, value_TW in ((self.running_mean, mean_TW), (self.running_var, unbiased_TW)):
            assert running is not None
            running.copy_(
                torch.lerp(running.view_as(value_TW), value_TW, rate_T1.expand_as(value_TW)).flatten()
            )


def head_norm(
    kind: str,
    n_tasks: int,
    width: int,
    *,
    eps: float,
    momentum: float,
    debias: bool = False,
    sync: bool = False,
) -> nn.Module | None:
    """`grouped_norm` for the head of T tasks, of which each normalizes over its own labelled rows."""
    if kind == "batch":
        return LabelledBatchNorm(n_tasks, width, eps=eps, momentum=momentum, debias=debias, sync=sync)
    return grouped_norm(kind, n_tasks, width, spatial=False, eps=eps, momentum=momentum)


def through(modules: nn.Module, x: Tensor, present_BT: Tensor | None) -> Tensor:
    """`modules` applied in turn, where the norms of labelled rows are told which rows have labels."""
    if isinstance(modules, nn.Sequential):
        for module in modules:
            x = through(module, x, present_BT)
        return x
    y: Tensor = modules(x, present_BT) if isinstance(modules, LabelledBatchNorm) else modules(x)
    return y
