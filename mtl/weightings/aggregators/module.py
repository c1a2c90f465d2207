"""Gradients combined by TorchJD, whose state is kept in buffers.

Shapes: N tasks, S of them seen in a step, P numbers in the shared slices, M tasks with a positive weight.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mtl.model.weighting import Needs, Weighting


@dataclass(frozen=True)
class Use:
    """How a class of TorchJD is used.

    Args:
        name: its name in `torchjd.aggregation`.
        options: number of tasks -> its arguments.
        takes: the Gramian J J^T, or the Jacobian J itself.
        gives: weights of the tasks, or the gradient.
        preference: whether the tasks' weights are its preference vector; else they multiply the tasks' gradients.
        sums_to_one: whether its weights are those of a mean, which is multiplied by the number of seen tasks.
        batches: how many independent batches it compares; the weights come from the first two, and apply to the third
            or, if there are two, to their mean.
    """

    name: str
    options: Callable[[int], dict[str, Any]]
    takes: Literal["gramian", "jacobian"]
    gives: Literal["weights", "gradient"]
    preference: bool
    sums_to_one: bool
    batches: int = 1


class Aggregated(Weighting):
    """The gradient of the shared slices as a class of TorchJD combines those of the seen tasks.

    The rows of absent tasks are left out, since rows of zeros would be gradients that nothing can improve. A class with
    a memory works on all M tasks; it is built anew in each step and given its memory back, so that a resumed run
    computes the same numbers. A step in which a task has sample weights of 0 alone takes the plain sum then.

    Args:
        task_weights: the preference vector, or factors of the rows.
        use: which class, and how.
    """

    needs: ClassVar[Needs] = "gradients"

    def __init__(self, task_weights: Sequence[float], use: Use) -> None:
        super().__init__(task_weights)
        self.use, self.batches = use, use.batches
        self.n_tasks = sum(weight > 0 for weight in task_weights)

    def prepare(self, n_shared: int) -> None:
        """Make room for what the class remembers: (M,), (M, M) or (M, P) numbers."""
        for name, (value, _) in self._memory(n_shared).items():
            self.register_buffer(name, value)

    def combine(self, jacobian_SP: Tensor, losses_S: Tensor, seen_N: Tensor) -> tuple[Tensor, Tensor | None]:
        use, weights_S = self.use, self.task_weights[seen_N].to(jacobian_SP.dtype)
        rows_SP = jacobian_SP if use.preference else weights_S[:, None] * jacobian_SP
        lacks_task = bool(self._memory(0)) and len(weights_S) < self.n_tasks
        if lacks_task or not bool(rows_SP.isfinite().all()):  # a step that is not finite is not taken
            return weights_S @ (jacobian_SP.mean(0) if use.batches > 1 else jacobian_SP), weights_S
        if use.batches > 1:
            given = rows_SP[0] @ rows_SP[1].T
            rows_SP = rows_SP.mean(0) if use.batches == 2 else rows_SP[2]
        else:
            given = rows_SP @ rows_SP.T if use.takes == "gramian" else rows_SP
        made = self._made(weights_S)
        self._give_back(made, rows_SP)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="cvxpy|torchjd|mtl")  # "not DPP"
            found: Tensor = made(given)
        self._take(made)
        factor = len(rows_SP) if use.sums_to_one else 1
        if use.gives == "gradient":
            return factor * found, None
        return factor * found @ rows_SP, factor * (found if use.preference else found * weights_S)

    def _made(self, weights_S: Tensor) -> Any:
        from torchjd import aggregation

        preference = {"pref_vector": weights_S} if self.use.preference else {}
        made = getattr(aggregation, self.use.name)(**self.use.options(len(weights_S)), **preference)
        return made.weighting if self.use.name == "NashMTL" else made

    def _memory(self, n_shared: int) -> dict[str, tuple[Tensor, str]]:
        """Buffer -> its first value and the attribute of TorchJD's class that it stands for."""
        m = self.n_tasks
        return {
            "GradVacWeighting": {"usual": (torch.zeros(m, m), "_phi_t")},
            "NashMTL": {"bargained": (torch.ones(m), "prvs_alpha")},
            "PCDWeighting": {
                "squared_norms": (torch.zeros(m, dtype=torch.float64), "_sq_norm_ema"),
                "n_steps": (torch.zeros((), dtype=torch.long), "_n_steps"),
            },
            "MoDoWeighting": {"chosen": (torch.full((m,), 1 / m), "_lambda")},
            "SDMGradWeighting": {"chosen": (torch.full((m,), 1 / m), "_w")},
            "ExcessMTLWeighting": {
                "squared_sum": (torch.zeros(m, n_shared), "_sq_grad_sum"),
                "warmup_sum": (torch.zeros(m), "_warmup_w_sum"),
                "chosen": (torch.full((m,), 1 / m), "_weights"),
                "initial": (torch.full((m,), torch.nan), "_initial_w"),
                "n_steps": (torch.zeros((), dtype=torch.long), "_n_steps"),
            },
        }.get(self.use.name, {})

    def _give_back(self, made: Any, rows_SP: Tensor) -> None:
        """Put the memory into an instance of TorchJD's class."""
        m, dtype = len(rows_SP), rows_SP.dtype
        for name, (_, attribute) in self._memory(0).items():
            value = self.get_buffer(name).clone()
            if attribute == "_phi_t":
                value = value.cpu()
            setattr(made, attribute, value)
        kind = self.use.name
        if kind == "GradVacWeighting":
            made._state_key = (m, dtype)
        elif kind == "PCDWeighting":
            made._state_key = m
        elif kind in ("MoDoWeighting", "SDMGradWeighting"):
            made._state_key = (m, dtype, rows_SP.device)
        elif kind == "NashMTL":
            made.prvs_alpha = made.prvs_alpha.cpu().numpy()
        elif kind == "ExcessMTLWeighting":
            made._state_key = (m, rows_SP.shape[1], dtype, rows_SP.device)
            made._n_steps = int(made._n_steps)
            made._initial_w = None if bool(made._initial_w.isnan().any()) else made._initial_w

    @torch.no_grad()
    def _take(self, made: Any) -> None:
        """Keep the memory of an instance of TorchJD's class."""
        for name, (_, attribute) in self._memory(0).items():
            value = getattr(made, attribute)
            if value is not None:  # the warm-up is not over
                self.get_buffer(name).copy_(torch.as_tensor(value))

    def extra_repr(self) -> str:
        return self.use.name
