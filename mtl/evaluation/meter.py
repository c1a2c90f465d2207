"""Losses and metrics of every task, accumulated over batches.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from mtl.dataset.batch import Targets
from mtl.dataset.undefined import Undefined, defined_tasks
from mtl.model.tasks.module import TaskModule
from mtl.model.tasks.scores import hold_weights
from mtl.recipe.specs import TaskSpec, mean_metric

Values = dict[str, float | None]
PENDING, PENDING_NUMBERS = 2048, 2**22
"""A metric takes up to this many rows, or logits, in one update, since the calls of an update cost most of its time."""


class Meter:
    """Loss and metrics of each task over all batches that `update` took in.

    The loss is the sum over rows of weight * loss, divided by the sum of the weights, so it does not depend on how rows
    were split into batches.

    Args:
        modules: task group -> its module.
        tasks: task -> its spec, in the order of results.
        device: the device of the logits.
        undefined: the metrics that the labels of these rows cannot define.
    """

    def __init__(
        self,
        modules: Mapping[str, TaskModule],
        tasks: Mapping[str, TaskSpec],
        device: torch.device,
        undefined: Undefined | None = None,
    ) -> None:
        self.modules, self.tasks, self.device = dict(modules), tasks, device
        self.undefined = undefined or {}
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.metrics = {name: new_metric(module, tasks, device) for name, module in modules.items()}

        def zeros(dtype: torch.dtype) -> dict[str, Tensor]:
            return {
                name: torch.zeros(len(module.tasks), dtype=dtype, device=device)
                for name, module in modules.items()
            }

        self.loss_sum, self.weight, self.count = zeros(exact), zeros(exact), zeros(torch.long)
        self.loss_weight = torch.zeros(2, len(tasks), dtype=exact, device=device)
        self.pending: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in modules}

    @torch.no_grad()
    def update(
        self, group: str, logits_BTO: Tensor, targets: Targets, sum_T: Tensor, weight_T: Tensor
    ) -> None:
        """Take in one batch of one task group; `sum_T` and `weight_T` are the results of its module's `loss`."""
        present_BT = targets.present[group]
        self.loss_sum[group] += sum_T
        self.weight[group] += weight_T
        self.count[group] += present_BT.sum(0)
        pending = self.pending[group]
        weight_BT = weight_in_metrics(targets, group, self.modules[group].tasks, self.tasks)
        pending.append((logits_BTO, targets.target[group], weight_BT))
        n_rows = sum(len(weight) for *_, weight in pending)
        if n_rows >= PENDING or n_rows * logits_BTO[0].numel() >= PENDING_NUMBERS:
            self._count(group)

    @torch.no_grad()
    def weigh(self, weights_N: Tensor, seen_N: Tensor) -> None:
        """Add the weights (N,) of the losses in one step; `seen_N` marks the tasks that had one."""
        self.loss_weight += torch.stack([torch.where(seen_N, weights_N, 0.0), seen_N.to(weights_N.dtype)])

    @torch.no_grad()
    def _count(self, group: str) -> None:
        """Hand the pending batches to the metric."""
        if self.pending[group]:
            self.metrics[group].update(
                *(torch.cat(parts) for parts in zip(*self.pending[group], strict=True))
            )
            self.pending[group].clear()

    def state(self) -> dict[str, Tensor]:
        """The whole state, for a checkpoint within an epoch; pending batches stay pending."""
        tensors: dict[str, Tensor] = {"loss_weight": self.loss_weight}
        for name in self.metrics:
            sums = {"loss_sum": self.loss_sum, "weight": self.weight, "count": self.count}
            tensors |= {f"{name}/{key}": values[name] for key, values in sums.items()}
            if self.pending[name]:
                parts = zip(
                    ("logits", "target", "weight"), zip(*self.pending[name], strict=True), strict=True
                )
                tensors |= {f"{name}/pending/{key}": torch.cat(rows) for key, rows in parts}
            for part, metric in _parts(self.metrics[name]):
                for key, value in metric.metric_state.items():
                    held = {"": value} if isinstance(value, Tensor) else dict(enumerate(value))
                    tensors |= {f"{name}/metric/{part}/{key}/{i}": each for i, each in held.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore a result of `state`."""
        self.loss_weight.copy_(tensors["loss_weight"])
        for name in self.metrics:
            for key, values in (("loss_sum", self.loss_sum), ("weight", self.weight), ("count", self.count)):
                values[name].copy_(tensors[f"{name}/{key}"])
            if f"{name}/pending/logits" in tensors:
                rows = (tensors[f"{name}/pending/{key}"] for key in ("logits", "target", "weight"))
                logits, target, weight = (part.to(self.device) for part in rows)
                self.pending[name] = [(logits, target, weight)]
            for part, metric in _parts(self.metrics[name]):
                for key, value in metric.metric_state.items():
                    stem = f"{name}/metric/{part}/{key}/"
                    if isinstance(value, Tensor):
                        setattr(metric, key, tensors[stem].to(self.device))
                    else:
                        n = sum(other.startswith(stem) for other in tensors)
                        setattr(metric, key, [tensors[f"{stem}{i}"].to(self.device) for i in range(n)])

    def losses(self) -> tuple[Tensor, Tensor]:
        """(N,) the mean loss of each task in the order of results, or 0; and (N,) whether the task has a loss."""
        place = {
            task: (name, t) for name, module in self.modules.items() for t, task in enumerate(module.tasks)
        }
        total = {name: (self.loss_sum[name], self.weight[name]) for name in self.modules}
        sums = torch.stack([total[place[task][0]][0][place[task][1]] for task in self.tasks])
        weights = torch.stack([total[place[task][0]][1][place[task][1]] for task in self.tasks])
        seen_N = weights > 0
        return torch.where(seen_N, sums / torch.where(seen_N, weights, 1.0), 0.0).float(), seen_N

    def values(self, split: str) -> Values:
        """`<split>/<task>/<metric>` and `<split>/mean/<metric>` -> value; None where the metric is undefined.

        If all tasks have the same headline metric, the mean over tasks is its plain mean. Otherwise it is the mean of
        their losses, weighted by `weight`: sum_i w_i L_i / sum_i w_i. A mean leaves out the tasks whose labels cannot
        define the metric, which are the same ones throughout a run. If no task is left, the mean loss stands beside it.
        """
        per_task: dict[str, Values] = {}
        for group, module in self.modules.items():
            self._count(group)
            count_T = self.count[group]
            with (
                warnings.catch_warnings()
            ):  # a metric may have no update, since every step may have been skipped
                warnings.filterwarnings("ignore", "The ``compute`` method of metric", UserWarning)
                metrics = {
                    "loss": self.loss_sum[group] / self.weight[group],
                    **self.metrics[group].compute(),
                }
            # torchmetrics squeezes the results of a group with one task to scalars
            columns = {name: values.reshape(-1).tolist() for name, values in metrics.items()}
            counts, broken = count_T.tolist(), self.loss_sum[group].isnan().tolist()
            for t, task in enumerate(module.tasks):
                chosen = ("loss", *self.tasks[task].metric_names)
                # if a loss is NaN, its predictions are NaN too, so their metrics mean nothing
                lacking = self.undefined.get(task, {})
                per_task[task] = {
                    name: None if broken[t] or name in lacking else _finite(columns[name][t])
                    for name in chosen
                }
                if self.tasks[task].missing == "mask":
                    per_task[task]["labels"] = counts[t]
        for task, total, steps in zip(self.tasks, *self.loss_weight.tolist(), strict=True):
            if steps:
                per_task[task]["loss_weight"] = total / steps
        row = {
            f"{split}/{task}/{name}": value for task in self.tasks for name, value in per_task[task].items()
        }
        name = mean_metric(self.tasks)
        for metric in (name,) if defined_tasks(self.tasks, self.undefined, name) else (name, "loss"):
            counted = defined_tasks(self.tasks, self.undefined, metric)
            row[f"{split}/mean/{metric}"] = _mean(
                [per_task[task][metric] for task in counted],
                [self.tasks[task].weight if metric == "loss" else 1.0 for task in counted],
            )
        return row


def new_metric(
    module: TaskModule,
    tasks: Mapping[str, TaskSpec],
    device: torch.device,
    names: frozenset[str] | None = None,
) -> Metric:
    """The metric of a task group, which measures `names`, or by default what any of its tasks asks for."""
    if names is None:
        names = frozenset(name for task in module.tasks for name in tasks[task].metric_names)
    metric = module.metric(names)
    if any(tasks[task].metrics_weighted for task in module.tasks):
        hold_weights(metric, torch.float64)
    for _, part in _parts(metric):
        part.distributed_available_fn = _alone  # each of several processes has measured all rows
        if device.type == "mps":  # MPS has no float64
            part.set_dtype(torch.float32)
    return metric.to(device)


def _alone() -> bool:
    """Whether torchmetrics should add up the measurements of several processes."""
    return False


def weight_in_metrics(
    targets: Targets, group: str, of: Sequence[str], tasks: Mapping[str, TaskSpec]
) -> Tensor:
    """(B, T) how much each row counts in the metrics of a group: whether it has a label, or else its weight.

    Args:
        targets: the labels of B rows.
        group: the task group.
        of: its T tasks.
        tasks: task -> its spec.
    """
    present_BT, weight_BT = targets.present[group], targets.weight[group]
    weighted = [tasks[task].metrics_weighted for task in of]
    if not any(weighted):
        return present_BT
    exact = torch.float32 if present_BT.device.type == "mps" else torch.float64
    weighted_T = torch.tensor(weighted, device=present_BT.device)
    return torch.where(weighted_T, weight_BT.to(exact), present_BT.to(exact))


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The weighted mean; None if the weights sum to 0, or if a value with a positive weight is None."""
    counted = [(weight, value) for weight, value in zip(weights, values, strict=True) if weight > 0]
    total = 0.0
    for weight, value in counted:
        if value is None:
            return None
        total += weight * value
    return total / sum(weight for weight, _ in counted) if counted else None


def _parts(metric: Metric) -> list[tuple[str, Metric]]:
    """A metric and its inner metrics, by name."""
    return [(name, part) for name, part in metric.named_modules() if isinstance(part, Metric)]


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
