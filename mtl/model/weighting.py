"""Weightings turn the losses of N tasks into one gradient.

Shapes: N tasks, S of them seen in a step, P numbers in the shared slices of the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Needs = Literal["losses", "totals", "gradients"]


class Weighting(nn.Module):
    """A weighting gives the objective that a step minimizes, or the direction of the step.

    It keeps its state in parameters and buffers, so that every checkpoint holds it. A step does not see a task if no
    row has a label of it or its weight is 0. Such a task takes no part, and the number in place of its loss is ignored.

    Args:
        task_weights: N weights from the recipe.
    """

    needs: ClassVar[Needs] = "losses"
    """`losses`: the objective is linear in the losses, so that a step computes it part by part. `totals`: the weighting
    needs the losses of the whole step. `gradients`: the weighting combines the gradients of the tasks by `combine`."""
    task_weights: Tensor

    def __init__(self, task_weights: Sequence[float]) -> None:
        super().__init__()
        weights = torch.tensor(tuple(task_weights), dtype=torch.float32)
        self.register_buffer("task_weights", weights, persistent=False)

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        """The objective, one number. Its derivatives with respect to the losses are the weights of the tasks.

        Args:
            losses_N: the loss of each task.
            seen_N: bool, which tasks take part.
        """
        raise NotImplementedError

    def combine(self, jacobian_SP: Tensor, losses_S: Tensor, seen_N: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradient (P,) of the shared slices, and the weights (S,) of the seen tasks if the method has such.

        Args:
            jacobian_SP: the gradient of each seen task's loss with respect to the shared slices.
            losses_S: the losses of the seen tasks.
            seen_N: bool, which of the N tasks the step sees.
        """
        raise NotImplementedError

    def after_epoch(self, losses_N: Tensor, seen_N: Tensor) -> None:
        """Take note of the mean losses of an epoch."""


class WeightedSum(Weighting):
    """loss = sum_t weight_t * loss_t over the seen tasks."""

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        return torch.dot(self.task_weights, torch.where(seen_N, losses_N, 0.0))

    def extra_repr(self) -> str:
        return f"weights={self.task_weights.tolist()}"


def loss_weights(
    weighting: Weighting, losses_N: Tensor, seen_N: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """The derivatives (N,) of the objective with respect to the losses, and to the weighting's own parameters."""
    leaf = losses_N.detach().requires_grad_()
    own = list(weighting.parameters())
    found: list[Tensor | None] = list(
        torch.autograd.grad(weighting(leaf, seen_N), [leaf, *own], allow_unused=True)
    )
    weights = torch.zeros_like(losses_N) if found[0] is None else found[0]
    return torch.where(seen_N, weights, 0.0), found[1:]


class UncertaintyWeighting(Weighting):
    """loss = sum_t weight_t * (c_t exp(-s_t) loss_t + s_t / 2) over the seen tasks; s_t = log sigma_t^2 is learned.

    Source: Kendall, Gal and Cipolla 2018, arXiv:1705.07115, eq. 7 (c = 1/2) and 10 (c = 1).

    Args:
        task_weights: weight_t.
        factors: c_t.
    """

    factors: Tensor

    def __init__(self, task_weights: Sequence[float], factors: Sequence[float]) -> None:
        super().__init__(task_weights)
        self.register_buffer("factors", torch.tensor(tuple(factors)), persistent=False)
        self.log_variance = nn.Parameter(torch.zeros(len(self.task_weights)))

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        s_N = self.log_variance
        terms_N = self.task_weights * (self.factors * torch.exp(-s_N) * losses_N + s_N / 2)
        return torch.where(seen_N, terms_N, 0.0).sum()


class UPGradWeighting(Weighting):
    """Each gradient is projected onto the dual cone of all gradients; the projections are summed with task weights.

    Source: Quinton and Rey 2024, arXiv:2406.16232; the projections are TorchJD's.

    Args:
        task_weights: the preference vector.
        norm_eps: below this squared norm of the Jacobian, the gradients are summed without projection.
        reg_eps: this number is added to the diagonal of the Gramian after its division by the trace.
    """

    needs: ClassVar[Needs] = "gradients"

    def __init__(self, task_weights: Sequence[float], norm_eps: float, reg_eps: float) -> None:
        super().__init__(task_weights)
        self.norm_eps, self.reg_eps = norm_eps, reg_eps

    def combine(self, jacobian_SP: Tensor, losses_S: Tensor, seen_N: Tensor) -> tuple[Tensor, Tensor | None]:
        from torchjd.aggregation import UPGradWeighting as Projections
        from torchjd.linalg import QuadprogProjector

        weights_S = self.task_weights[seen_N]
        gramian_SS = jacobian_SP @ jacobian_SP.T
        if bool(gramian_SS.isfinite().all()):  # the step is not taken otherwise
            projector = QuadprogProjector(norm_eps=self.norm_eps, reg_eps=self.reg_eps)
            weights_S = Projections(weights_S.to(gramian_SS.dtype), projector)(gramian_SS)
        return weights_S @ jacobian_SP, weights_S

    def extra_repr(self) -> str:
        return f"norm_eps={self.norm_eps:g}, reg_eps={self.reg_eps:g}"
