"""Fits the linear map that minimizes a task's own loss, with a ridge penalty whose strength other rows choose.

Shapes: n rows, F inputs, r = min(n, F) principal axes, T tasks of a group, O outputs per task, M = T * O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtl.model.tasks.module import TaskModule

STRENGTHS = tuple(10.0 ** (1 - i / 2) for i in range(13))
"""The penalties that are tried, from strong (10) to weak (1e-5), for standardized inputs."""
PATIENCE = 3
"""The search ends after this many weaker penalties in a row that serve no task."""
STEPS = 200
"""Most steps of L-BFGS for one penalty; it takes about 10, since the inputs are whitened."""


@dataclass(frozen=True)
class Examples:
    """Rows from which a linear map is fitted, or by which its penalty is chosen.

    Args:
        x: (n, F) float64.
        target: (n, T) or (n, T, O), as losses take it.
        weight: (n, T) the weight of each row in the loss; 0 where the label is missing.
    """

    x: Tensor
    target: Tensor
    weight: Tensor

    def rows(self, chosen: Tensor) -> Examples:
        """The rows that a mask chooses."""
        return Examples(self.x[chosen], self.target[chosen], self.weight[chosen])

    def losses(self, module: TaskModule, logits_NM: Tensor) -> tuple[Tensor, Tensor]:
        """(T,) the mean loss of each task, or 0; and (T,) whether the task has a row that counts."""
        logits_NTO = logits_NM.unflatten(1, (len(module.tasks), module.head.n_outputs)).float()
        sum_T, weight_T = module.loss(logits_NTO, self.target, self.weight)
        seen_T = weight_T > 0
        return torch.where(seen_T, sum_T / torch.where(seen_T, weight_T, 1.0), 0.0).double(), seen_T


class Whitened:
    """Inputs in the axes in which a penalized square loss is round, so that L-BFGS takes few steps for any loss.

    X - mean = Z V^T, where Z^T Z / n is diagonal with the variances e. Weights W = V D U have the penalty
    s |W|^2 = s |D U|^2, and D = (e + s)^(-1/2) makes the Hessian of mean |Z D U|^2 + s |D U|^2 a multiple of 1.

    Args:
        x: (n, F) float64.
    """

    def __init__(self, x: Tensor) -> None:
        n, width = x.shape
        self.mean = x.mean(0)
        centred = x - self.mean
        if width <= n:
            variance, self.axes = torch.linalg.eigh(centred.T @ centred / n)
            self.variance, self.z = variance.clamp_min(0), centred @ self.axes
            return
        variance, left = torch.linalg.eigh(centred @ centred.T / n)
        kept = variance > 1e-10 * variance[-1]
        self.variance, left = variance[kept], left[:, kept]
        self.z = left * (n * self.variance).sqrt()
        self.axes = centred.T @ left / (n * self.variance).sqrt()

    def map_of(self, weight_RM: Tensor, bias_M: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (r, M) of the axes, and the bias -> weights (F, M) of the inputs, and their bias."""
        weight_FM = self.axes @ weight_RM
        return weight_FM, bias_M - self.mean @ weight_FM


def fit_linear(
    module: TaskModule, train: Examples, chooser: Examples | None, between: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    """The weights (F, M) and biases (M,) with the lowest loss_t + s_t |W_t|^2 for each task t.

    Loss, class weights and sample weights are those of the task. For `mse` this is ridge regression (Hoerl and Kennard
    1970), for the losses of classes it is logistic regression with an L2 penalty. The penalty s_t of a task is the one
    with the lowest loss on `chooser`. If a task has no label there, every fifth training row chooses instead, and then
    all rows are fitted.

    Args:
        module: the T tasks; the head of the module is not used.
        train: the rows to fit.
        chooser: the rows that choose the penalty, such as those of validation.
        between: called at each step; an exception of it ends the fit.
    """
    if train.x.shape[1] == 0:  # nothing is penalized, so that nothing needs to be chosen
        whitened = Whitened(train.x)
        return whitened.map_of(
            *_solved(module, train, whitened, torch.ones(len(module.tasks)), None, between)
        )
    if chooser is not None and bool((chooser.weight > 0).any(0).all()):
        return _chosen(module, train, chooser, between)[1]
    fifth = torch.arange(len(train.x)) % 5 == 4
    strength_T, _ = _chosen(module, train.rows(~fifth), train.rows(fifth), between)
    whitened = Whitened(train.x)
    return whitened.map_of(*_solved(module, train, whitened, strength_T, None, between))


def _chosen(
    module: TaskModule, train: Examples, chooser: Examples, between: Callable[[], None]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """(T,) the penalty of each task, and the weights and biases with it."""
    n_tasks, n_outputs = len(module.tasks), module.head.n_outputs
    whitened = Whitened(train.x)
    best_T, strength_T = torch.full((n_tasks,), torch.inf, dtype=torch.float64), torch.ones(n_tasks)
    kept_FM = torch.zeros(train.x.shape[1], n_tasks * n_outputs, dtype=torch.float64)
    kept_M = torch.zeros(n_tasks * n_outputs, dtype=torch.float64)
    start, in_vain = None, 0
    for strength in STRENGTHS:
        tried_T = torch.full((n_tasks,), strength)
        start = _solved(module, train, whitened, tried_T, start, between)
        weight_FM, bias_M = whitened.map_of(*start)
        with torch.no_grad():
            loss_T, _ = chooser.losses(module, chooser.x @ weight_FM + bias_M)
        better_T = loss_T < best_T
        best_T, strength_T = torch.where(better_T, loss_T, best_T), torch.where(better_T, tried_T, strength_T)
        better_M = better_T.repeat_interleave(n_outputs)
        kept_FM, kept_M = torch.where(better_M, weight_FM, kept_FM), torch.where(better_M, bias_M, kept_M)
        in_vain = 0 if better_T.any() else in_vain + 1
        if in_vain == PATIENCE:
            break
    return strength_T, (kept_FM, kept_M)


def _solved(
    module: TaskModule,
    train: Examples,
    whitened: Whitened,
    strength_T: Tensor,
    start: tuple[Tensor, Tensor] | None,
    between: Callable[[], None],
) -> tuple[Tensor, Tensor]:
    """The weights (r, M) of the axes and the biases (M,) that minimize the penalized loss, by L-BFGS from `start`."""
    from scipy.optimize import minimize  # it takes 0.3 s to load, before the first step of training

    n_outputs = module.head.n_outputs
    strength_M = strength_T.double().repeat_interleave(n_outputs)
    scale_RM = (whitened.variance[:, None] + strength_M).rsqrt()
    r, m = scale_RM.shape
    first = np.zeros((r + 1, m))
    if start is not None:
        first = torch.cat([start[0] / scale_RM, start[1][None]]).numpy()

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        between()
        free = torch.from_numpy(flat.reshape(r + 1, m)).requires_grad_()
        with torch.enable_grad():
            weight_RM = free[:r] * scale_RM
            loss_T, _ = train.losses(module, whitened.z @ weight_RM + free[r])
            total = loss_T.sum() + (strength_M * weight_RM.square()).sum()
        (gradient,) = torch.autograd.grad(total, free)
        return total.item(), gradient.numpy().ravel()

    found = minimize(
        value_and_gradient, first.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": STEPS, "ftol": 1e-7, "gtol": 1e-6},
    )  # fmt: skip
    solved = torch.from_numpy(found.x.reshape(r + 1, m))
    return solved[:r] * scale_RM, solved[r]
