"""Weightings turn the losses of N tasks into one gradient.

Shapes: N tasks, S of them seen in a step, P numbers in the shared slices of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Needs = Literal["losses", "totals", "gradients"]


class Weighting(nn.Module):
    """A weighting gives the objective that a step minimizes, or the direction of the step.

    It keeps its state in parameters and buffers, so that every checkpoint holds it. A step does not see a task if no
    row has a label of it or its weight is 0. Such a task takes no part, and the number in place of its loss is ignored.
    A parameter of N entries has one for each task, and a step leaves those of unseen tasks as they are.

    Args:
        task_weights: N weights from the recipe.
    """

    needs: ClassVar[Needs] = "losses"
    """`losses`: the objective is linear in the losses, so that a step computes it part by part. `totals`: the weighting
    needs the losses of the whole step. `gradients`: the weighting combines the gradients of the tasks by `combine`."""
    batches: int = 1
    """How many independent batches a step needs. With more than one, a step's rows are parted into so many, and
    `combine` is given the jacobian of each, (batches, S, P); a step with too few rows for that takes the plain sum."""
    positive: ClassVar[bool] = False
    """Whether the losses must be positive: the objective has logarithms or ratios of them, or else no lower bound."""
    task_weights: Tensor

    def __init__(self, task_weights: Sequence[float]) -> None:
        super().__init__()
        weights = torch.tensor(tuple(task_weights), dtype=torch.float32)
        self.register_buffer("task_weights", weights, persistent=False)

    def prepare(self, n_shared: int) -> None:
        """Make buffers whose size depends on the network; called once, before training or loading.

        Args:
            n_shared: P, how many numbers of the network at least two tasks reach; 0 unless it needs `gradients`.
        """

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        """The objective, one number. Its derivatives with respect to the losses are the weights of the tasks.

        Args:
            losses_N: the loss of each task.
            seen_N: bool, which tasks take part.
        """
        raise NotImplementedError

    def derivatives(self, losses_N: Tensor, seen_N: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The derivatives (N,) of the objective by the losses, 0 for unseen tasks, and those by the own parameters."""
        leaf = losses_N.detach().requires_grad_()
        found: list[Tensor | None] = list(
            torch.autograd.grad(self(leaf, seen_N), [leaf, *self.parameters()], allow_unused=True)
        )
        weights_N = torch.zeros_like(losses_N) if found[0] is None else found[0]
        return torch.where(seen_N, weights_N, 0.0), found[1:]

    def combine(self, jacobian_SP: Tensor, losses_S: Tensor, seen_N: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradient (P,) of the shared slices, and the weights (S,) of the seen tasks if the method has such.

        Args:
            jacobian_SP: the gradient of each seen task's loss with respect to the shared slices, or to the features.
            losses_S: the losses of the seen tasks.
            seen_N: bool, which of the N tasks the step sees.
        """
        raise NotImplementedError

    def after_step(self, losses_N: Tensor, seen_N: Tensor, losses_of: Callable[[], Tensor]) -> None:
        """Take note of what a step did to the losses; only a weighting that needs `totals` is asked.

        Args:
            losses_N: the losses before the step.
            seen_N: bool, which tasks took part.
            losses_of: computes the losses of the same rows again, with the same dropout, and leaves norms as they are.
        """

    def after_epoch(self, losses_N: Tensor, seen_N: Tensor) -> None:
        """Take note of the mean losses of an epoch."""


class WeightedSum(Weighting):
    """loss = sum_t weight_t * loss_t over the seen tasks."""

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        return torch.dot(self.task_weights, torch.where(seen_N, losses_N, 0.0))

    def derivatives(self, losses_N: Tensor, seen_N: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        if type(self).forward is not WeightedSum.forward:
            return super().derivatives(losses_N, seen_N)
        return torch.where(seen_N, self.task_weights, 0.0), []  # autograd takes 0.1 ms to find the same

    def extra_repr(self) -> str:
        return f"weights={self.task_weights.tolist()}"


class OwnAdam(nn.Module):
    """Adam (Kingma and Ba 2015) for N numbers of a weighting, one for each task; those of unseen tasks do not move.

    Weight decay adds `weight_decay * value` to the gradient, as in torch.optim.Adam. Each task counts its own steps.

    Args:
        n_tasks: N.
        lr: the learning rate.
        weight_decay: pulls the numbers to 0.
    """

    first: Tensor
    second: Tensor
    steps: Tensor
    BETAS: ClassVar[tuple[float, float]] = (0.9, 0.999)
    EPS: ClassVar[float] = 1e-8

    def __init__(self, n_tasks: int, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        for name in ("first", "second", "steps"):
            self.register_buffer(name, torch.zeros(n_tasks))

    @torch.no_grad()
    def step(self, value_N: Tensor, gradient_N: Tensor, seen_N: Tensor) -> None:
        """Move `value_N` in place against its gradient."""
        gradient_N = gradient_N + self.weight_decay * value_N
        self.steps += seen_N
        moments = zip((self.first, self.second), (gradient_N, gradient_N.square()), self.BETAS, strict=True)
        corrected = []
        for moment_N, new_N, beta in moments:
            moment_N.copy_(torch.where(seen_N, torch.lerp(moment_N, new_N, 1 - beta), moment_N))
            corrected.append(moment_N / (1 - beta ** self.steps.clamp(min=1)))
        change_N = self.lr * corrected[0] / (corrected[1].sqrt() + self.EPS)
        value_N -= torch.where(seen_N, change_N, 0.0)


def rescaled(weights_N: Tensor, seen_N: Tensor) -> Tensor:
    """Weights of the seen tasks whose sum is the number of those tasks with a positive weight; 0 for the others."""
    there_N = torch.where(seen_N, weights_N, 0.0)
    return there_N * (there_N > 0).sum() / there_N.sum().clamp(min=1e-12)


def softmax_of_seen(logits_N: Tensor, seen_N: Tensor) -> Tensor:
    """The softmax over the seen tasks; 0 for the others."""
    return torch.where(seen_N, logits_N.masked_fill(~seen_N, -torch.inf).softmax(0), 0.0)


def logarithms(losses_N: Tensor, seen_N: Tensor) -> Tensor:
    """log(loss + 1e-8) of the seen tasks, as a loss may become 0; 0 for the others."""
    return torch.log(torch.where(seen_N, losses_N + 1e-8, 1.0))


class UncertaintyWeighting(Weighting):
    """loss = sum_t weight_t * (c_t exp(-s_t) loss_t + s_t / 2) over the seen tasks; s_t = log sigma_t^2 is learned.

    Source: Kendall, Gal and Cipolla 2018, arXiv:1705.07115, eq. 7 (c = 1/2) and 10 (c = 1).

    Args:
        task_weights: weight_t.
        factors: c_t.
    """

    positive: ClassVar[bool] = True
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

    def derivatives(self, losses_N: Tensor, seen_N: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The derivatives (N,) of the objective by the losses, 0 for unseen tasks, and those by the own parameters."""
        leaf = losses_N.detach().requires_grad_()
        found: list[Tensor | None] = list(
            torch.autograd.grad(self(leaf, seen_N), [leaf, *self.parameters()], allow_unused=True)
        )
        weights_N = torch.zeros_like(losses_N) if found[0] is None else found[0]
        return torch.where(seen_N, weights_N, 0.0), found[1:]

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
