"""What the pictures of a report need of the test rows: counts in bins, gathered in one pass, none for each row.

Shapes: B batch, T tasks of a group, O outputs per task, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.evaluation.evaluate import evaluation_mode, passes
from mtl.evaluation.meter import weight_in_metrics
from mtl.evaluation.numbers import NumberCounts
from mtl.evaluation.points import amount, by_output, confusions, curve, reliability
from mtl.model.stitched import StitchedMultiTower
from mtl.model.tasks.kinds import Quantity
from mtl.model.tasks.metrics import GroupedClasses, GroupedLabels
from mtl.model.tasks.module import TaskModule
from mtl.model.tasks.scores import GroupedScores, count, hold_weights
from mtl.recipe.specs import TaskSpec

PENDING = 2048
"""Rows of an update, since the calls of an update cost most of its time."""
MOST_CELLS = 2**22
"""Most cells of the confusion matrices of a group; beyond, confusions are not counted."""
MOST_CURVES, MOST_HISTOGRAMS = 12, 1024
"""Most classes or labels of a task that have a curve each, and most curves of a group."""
CURVES = frozenset({"auroc", "average_precision", "macro_auroc", "macro_average_precision"})


@torch.no_grad()
def test_details(
    model: StitchedMultiTower,
    tasks: Mapping[str, TaskSpec],
    dataset: Dataset,
    rows: Rows,
    between: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """Task -> plain values for its pictures, for the tasks of a shipped kind that have labels in `rows`.

    `form` is `classes`, `yes_or_no`, `labels` or `number`. A confusion is counted at [true class][predicted class]. A
    bin of `calibration` is [rows, mean probability, share of hits]; of several classes the most probable one counts. A
    curve is recall and precision at up to 200 thresholds. `residuals` counts prediction - label in equal bins, and
    `groups` has quantiles of the predictions for rows with similar labels, both in the unit of the label. `n` is the
    number of labels (of `labels`: of pairs of row and label); rows count as they do in the metrics of their task.

    Args:
        model: the network.
        tasks: task -> its spec, in the order of results.
        dataset: holds the rows and their labels.
        rows: the rows of the test split.
        between: called after each batch; an exception of it ends the pass.
    """
    counts: dict[str, ClassCounts | NumberCounts] = {}
    for group, module in model.modules_of_tasks().items():
        weighted = any(tasks[task].metrics_weighted for task in module.tasks)
        if isinstance(module, Quantity):
            counts[group] = NumberCounts(module, dataset.rows, group, rows)
        elif ClassCounts.knows(module):
            counts[group] = ClassCounts(module, weighted)
    pending: dict[str, list[tuple[Tensor, ...]]] = {group: [] for group in counts}
    with evaluation_mode(model):
        for batch, logits in passes(model, dataset, rows):
            for group, own in counts.items():
                weight_BT = weight_in_metrics(batch, group, own.tasks, tasks)
                parts = (logits.groups[group], batch.target[group], weight_BT)
                pending[group].append(tuple(part.cpu() for part in parts))  # MPS has no float64
                _count(own, pending[group], PENDING)
            between()
    for group, own in counts.items():
        _count(own, pending[group], 1)
    found = {task: one for own in counts.values() for task, one in own.details().items()}
    return {task: found[task] for task in tasks if task in found and found[task]["n"]}


def _count(own: ClassCounts | NumberCounts, pending: list[tuple[Tensor, ...]], least: int) -> None:
    """Count the pending batches once they have enough rows."""
    if sum(len(target) for _, target, _ in pending) >= least:
        own.add(*(torch.cat(parts) for parts in zip(*pending, strict=True)))
        pending.clear()


class ClassCounts:
    """Counts of a group of classifiers, yes-or-no tasks, or multilabel tasks, by the metric of its kind.

    Args:
        module: the module of the T tasks.
        weighted: whether rows count by their weights.
    """

    def __init__(self, module: TaskModule, weighted: bool) -> None:
        self.module, self.tasks = module, module.tasks
        self.metric: Metric = _metric(module)
        n_tasks = len(self.tasks)
        if weighted:
            hold_weights(self.metric, torch.float64)
        self.matrix_TCC: Tensor | None = None
        if isinstance(self.metric, GroupedClasses) and n_tasks * self.metric.n_classes**2 <= MOST_CELLS:
            shape = (n_tasks, self.metric.n_classes, self.metric.n_classes)
            self.matrix_TCC = torch.zeros(shape, dtype=torch.float64)

    @staticmethod
    def knows(module: TaskModule) -> bool:
        """Whether the metric of a module has counts that pictures can show; that of a plug-in may have none."""
        return isinstance(module.metric(frozenset()), GroupedClasses | GroupedScores | GroupedLabels)

    def add(self, logits_BTO: Tensor, target: Tensor, weight_BT: Tensor) -> None:
        """Count rows with their logits, labels and weights, as a metric does."""
        self.metric.update(logits_BTO, target, weight_BT)
        if self.matrix_TCC is not None and isinstance(self.metric, GroupedClasses):
            log_p = self.metric.log_p
            predicted_BT = (logits_BTO if log_p is None else log_p(logits_BTO)).argmax(-1)
            n_classes = self.metric.n_classes
            first_T = torch.arange(len(self.tasks)) * n_classes**2
            count(self.matrix_TCC, first_T + target.long() * n_classes + predicted_BT, weight_BT)

    def details(self) -> dict[str, dict[str, Any]]:
        """Task -> its plain values."""
        make = self._yes_or_no
        if isinstance(self.metric, GroupedClasses):
            make = self._classes
        elif isinstance(self.metric, GroupedLabels):
            make = self._labels
        return {task: make(t) for t, task in enumerate(self.tasks)}

    def _classes(self, t: int) -> dict[str, Any]:
        metric = self.metric
        assert isinstance(metric, GroupedClasses)
        true_C, predicted_C, hits_C = metric.counts[t].double()
        own = slice(t * metric.n_classes, (t + 1) * metric.n_classes)
        return {
            "form": "classes",
            **by_output(true_C, predicted_C, hits_C),
            **({} if self.matrix_TCC is None else confusions(self.matrix_TCC[t])),
            "calibration": reliability(metric.calibration[:, t]),
            "curves": _curves(metric.scores, own),
        }

    def _yes_or_no(self, t: int) -> dict[str, Any]:
        metric = self.metric
        assert isinstance(metric, GroupedScores)
        answers = metric.answers[t].double()
        return {
            "form": "yes_or_no",
            **by_output(answers.sum(1), answers.sum(0), answers.diagonal()),
            **confusions(answers),
            "threshold": round(float(metric.threshold[t]), 6),
            "calibration": reliability(metric.calibration[:, t]),
            "curves": _curves(metric, slice(t, t + 1)),
        }

    def _labels(self, t: int) -> dict[str, Any]:
        metric = self.metric
        assert isinstance(metric, GroupedLabels)
        own = slice(t * metric.n_outputs, (t + 1) * metric.n_outputs)
        answers = metric.scores.answers[own].double()
        return {
            "form": "labels",
            **by_output(answers[:, 1].sum(1), answers[:, :, 1].sum(1), answers[:, 1, 1]),
            "n": amount(float(answers.sum())),
            "calibration": reliability(metric.scores.calibration[:, own].sum(1)),
            "curves": _curves(metric.scores, own),
        }


def _metric(module: TaskModule) -> Metric:
    """The metric of a group on the CPU, with calibration, and with curves if there are not too many."""
    n_curves = module.head.n_outputs
    few = n_curves <= MOST_CURVES and n_curves * len(module.tasks) <= MOST_HISTOGRAMS
    return module.metric(frozenset({"calibration_error", *(CURVES if few else ())})).cpu()


def _curves(scores: GroupedScores | None, of: slice) -> list[dict[str, list[float]] | None]:
    """A curve for each output, or None for an output with rows on one side only; [] without histograms."""
    if scores is None or not scores.curves:
        return []
    return [curve(*pair.double()) for pair in scores.histogram[of]]
