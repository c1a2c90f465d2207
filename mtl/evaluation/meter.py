"""Losses and metrics of every task, accumulated over batches.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from mtl.recipe.specs import TaskSpec, mean_metric
from mtl.task_groups import TaskGroup

Values = dict[str, float | None]
PENDING, PENDING_NUMBERS = 2048, 2**22
"""Rows, and logits, that are counted at once: a metric's update costs more in calls than in arithmetic."""


class Meter:
    """Mean loss and metrics per task over everything it has seen.

    The loss is the mean over batches, weighted by their labels or by the rows' weights: exactly the mean over
    rows, but for class weights, which differ from batch to batch.

    Args:
        groups: the task groups.
        tasks: task -> its spec, in the order of results.
        device: where logits are.
    """

    def __init__(self, groups: Sequence[TaskGroup], tasks: dict[str, TaskSpec], device: torch.device) -> None:
        self.groups, self.tasks, self.device = tuple(groups), tasks, device
        self.metrics = {g.name: self._meter(g).to(device) for g in groups}
        self.loss_sum = {g.name: torch.zeros(len(g.tasks), device=device) for g in groups}
        self.weight = {g.name: torch.zeros(len(g.tasks), device=device) for g in groups}
        self.count = {g.name: torch.zeros(len(g.tasks), dtype=torch.long, device=device) for g in groups}
        self.pending: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {g.name: [] for g in groups}

    def _meter(self, group: TaskGroup) -> Metric:
        names = frozenset(name for task in group.tasks for name in self.tasks[task].metric_names)
        metric = group.spec.meter(len(group.tasks), group.n_outputs, names, group.constants)
        if self.device.type == "mps":  # which has no float64
            for part in metric.modules():
                if isinstance(part, Metric):
                    part.set_dtype(torch.float32)
        return metric

    @torch.no_grad()
    def update(
        self,
        group: str,
        logits_BTO: Tensor,
        target_BT: Tensor,
        present_BT: Tensor,
        loss_T: Tensor,
        weight_T: Tensor | None = None,
    ) -> None:
        """Take in one batch of one group; `weight_T` is what its mean losses count, by default their labels."""
        count_T = present_BT.sum(0)
        weight_T = count_T if weight_T is None else weight_T
        self.loss_sum[group] += loss_T * weight_T
        self.weight[group] += weight_T
        self.count[group] += count_T
        pending = self.pending[group]
        pending.append((logits_BTO, target_BT, present_BT))
        n_rows = sum(len(present) for *_, present in pending)
        if n_rows >= PENDING or n_rows * logits_BTO[0].numel() >= PENDING_NUMBERS:
            self._count(group)

    @torch.no_grad()
    def _count(self, group: str) -> None:
        """Hand what is pending to the metric."""
        if self.pending[group]:
            self.metrics[group].update(
                *(torch.cat(parts) for parts in zip(*self.pending[group], strict=True))
            )
            self.pending[group].clear()

    def state(self) -> dict[str, Tensor]:
        """Everything seen so far, for a checkpoint within an epoch; what is pending stays so."""
        tensors: dict[str, Tensor] = {}
        for name in self.metrics:
            sums = {"loss_sum": self.loss_sum, "weight": self.weight, "count": self.count}
            tensors |= {f"{name}/{key}": values[name] for key, values in sums.items()}
            if self.pending[name]:
                parts = zip(
                    ("logits", "target", "present"), zip(*self.pending[name], strict=True), strict=True
                )
                tensors |= {f"{name}/pending/{key}": torch.cat(rows) for key, rows in parts}
            for part, metric in _parts(self.metrics[name]):
                for key, value in metric.metric_state.items():
                    held = {"": value} if isinstance(value, Tensor) else dict(enumerate(value))
                    tensors |= {f"{name}/metric/{part}/{key}/{i}": each for i, each in held.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        for name in self.metrics:
            for key, values in (("loss_sum", self.loss_sum), ("weight", self.weight), ("count", self.count)):
                values[name].copy_(tensors[f"{name}/{key}"])
            if f"{name}/pending/logits" in tensors:
                rows = (tensors[f"{name}/pending/{key}"] for key in ("logits", "target", "present"))
                logits, target, present = (part.to(self.device) for part in rows)
                self.pending[name] = [(logits, target, present)]
            for part, metric in _parts(self.metrics[name]):
                for key, value in metric.metric_state.items():
                    stem = f"{name}/metric/{part}/{key}/"
                    if isinstance(value, Tensor):
                        setattr(metric, key, tensors[stem].to(self.device))
                    else:
                        n = sum(other.startswith(stem) for other in tensors)
                        setattr(metric, key, [tensors[f"{stem}{i}"].to(self.device) for i in range(n)])

    def values(self, split: str) -> Values:
        """`<split>/<task>/<metric>` and `<split>/mean/<metric>`; None where it is not defined.

        The mean over tasks is of the headline metric that they have in common, or else of their losses,
        weighted by `weight`: sum_i w_i L_i / sum_i w_i.
        """
        per_task: dict[str, Values] = {}
        for group in self.groups:
            self._count(group.name)
            count_T = self.count[group.name]
            with warnings.catch_warnings():  # no update at all is no fault: every step may have been skipped
                warnings.filterwarnings("ignore", "The ``compute`` method of metric", UserWarning)
                metrics = {
                    "loss": self.loss_sum[group.name] / self.weight[group.name],
                    **self.metrics[group.name].compute(),
                }
            # torchmetrics squeezes the results of a group of one task to scalars
            columns = {name: values.reshape(-1).tolist() for name, values in metrics.items()}
            counts, broken = count_T.tolist(), self.loss_sum[group.name].isnan().tolist()
            for t, task in enumerate(group.tasks):
                chosen = ("loss", *self.tasks[task].metric_names)
                # where a loss is NaN, predictions are, and no metric of theirs is true
                per_task[task] = {name: None if broken[t] else _finite(columns[name][t]) for name in chosen}
                if self.tasks[task].missing == "mask":
                    per_task[task]["labels"] = counts[t]
        row = {
            f"{split}/{task}/{name}": value for task in self.tasks for name, value in per_task[task].items()
        }
        name = mean_metric(self.tasks)
        row[f"{split}/mean/{name}"] = _mean(
            [per_task[task][name] for task in self.tasks],
            [spec.weight if name == "loss" else 1.0 for spec in self.tasks.values()],
        )
        return row


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The weighted mean; None if nothing counts, or something that counts has no value."""
    counted = [(weight, value) for weight, value in zip(weights, values, strict=True) if weight > 0]
    total = 0.0
    for weight, value in counted:
        if value is None:
            return None
        total += weight * value
    return total / sum(weight for weight, _ in counted) if counted else None


def _parts(metric: Metric) -> list[tuple[str, Metric]]:
    """A metric and those that it is made of, by name."""
    return [(name, part) for name, part in metric.named_modules() if isinstance(part, Metric)]


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
