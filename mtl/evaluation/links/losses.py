"""The loss of every row in one pass, and the change of a mean loss between two passes, with its standard error.

Shapes: n rows, B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.evaluation.evaluate import evaluation_mode, passes
from mtl.evaluation.meter import Meter, Values
from mtl.model.stitched import StitchedMultiTower
from mtl.model.tasks.module import TaskModule
from mtl.recipe.specs import TaskSpec

Numbers = npt.NDArray[np.float64]
LEVEL = 0.05
"""The chance that any verdict of a table takes noise for a change."""
NEGLIGIBLE = 0.02
"""A link is `not used` if the 95% interval of its change lies within this part of the task's loss."""


@dataclass(frozen=True)
class RowLosses:
    """The losses of n rows in one pass.

    Args:
        loss: task -> (n,) the loss of each row; any value where the weight is 0.
        weight: task -> (n,) the weight of each row in the task's mean loss: 0 where a label is missing.
        metrics: `<split>/<task>/<metric>` -> value over the rows.
    """

    loss: Mapping[str, Numbers]
    weight: Mapping[str, Numbers]
    metrics: Values

    def mean(self, task: str) -> float | None:
        """The mean loss of a task, sum_r w_r L_r / sum_r w_r; None without a row that counts."""
        there = self.weight[task] > 0
        if not there.any():
            return None
        return _finite(np.average(self.loss[task][there], weights=self.weight[task][there]))


@dataclass(frozen=True)
class Change:
    """The change of a mean loss: its value, its standard error and the number of units that it comes from."""

    delta: float
    se: float | None
    n_units: int


@torch.inference_mode()
def row_losses(
    model: StitchedMultiTower, tasks: Mapping[str, TaskSpec], dataset: Dataset, rows: Rows, split: str
) -> RowLosses:
    """The losses of rows in evaluation mode, and the metrics over them.

    Args:
        model: the network; hooks that cut its links stay in force.
        tasks: task -> its spec, in the order of results.
        dataset: holds the rows and their labels.
        rows: the rows, all of one split.
        split: the name of the split.
    """
    modules = model.modules_of_tasks()
    meter = Meter(modules, tasks, next(model.parameters()).device, dataset.undefined.get(split))
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in modules}
    with evaluation_mode(model):
        for batch, logits in passes(model, dataset, rows):
            for group, module in modules.items():
                given = logits.groups[group], batch.target[group], batch.weight[group]
                loss_BT, weight_BT = _losses_of(module, *given)
                parts[group].append((loss_BT.cpu(), weight_BT.cpu()))
                meter.update(group, given[0], batch, *module.loss(*given))
    loss, weight = {}, {}
    for group, module in modules.items():
        loss_nT, weight_nT = (torch.cat(own).double().numpy() for own in zip(*parts[group], strict=True))
        for t, task in enumerate(module.tasks):
            loss[task], weight[task] = loss_nT[:, t], weight_nT[:, t]
    return RowLosses(loss, weight, meter.values(split))


def _losses_of(
    module: TaskModule, logits_BTO: Tensor, target: Tensor, weight_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """(B, T) losses and weights; a module with a `loss` of its own gives them row by row."""
    if type(module).loss is TaskModule.loss:
        return module.row_loss(logits_BTO, target), module.row_weight(target, weight_BT)
    each = [
        module.loss(logits_BTO[b : b + 1], target[b : b + 1], weight_BT[b : b + 1])
        for b in range(len(logits_BTO))
    ]
    sums, weights = torch.stack([one for one, _ in each]), torch.stack([one for _, one in each])
    return torch.where(weights > 0, sums / torch.where(weights > 0, weights, 1), 0.0), weights


def change(
    before: RowLosses, after: RowLosses, task: str, groups: npt.NDArray[np.int64] | None
) -> Change | None:
    """The change of a task's mean loss between two passes over the same rows; None if it is not finite.

    d_r is the difference of row r, w_r its weight, delta = sum_r w_r d_r / sum_r w_r. The standard error is that of a
    weighted mean over G units, which are rows or groups of rows:

        se = sqrt(G / (G - 1) sum_g (sum_{r in g} w_r (d_r - delta))^2) / sum_r w_r.

    Args:
        before: the pass without a change.
        after: the pass with it.
        task: the task.
        groups: (n,) the group of each row, if rows of one group were always split together; None for rows.
    """
    weight = before.weight[task]
    there = weight > 0
    weight, units = weight[there], np.arange(there.sum()) if groups is None else groups[there]
    differences = after.loss[task][there] - before.loss[task][there]
    if not len(weight) or not np.isfinite(differences).all():
        return None
    delta = float(np.average(differences, weights=weight))
    _, units = np.unique(units, return_inverse=True)
    sums, n_units = np.bincount(units, weights=weight * (differences - delta)), int(units.max()) + 1
    if n_units < 2:
        return Change(delta, None, n_units)
    se = float(np.sqrt(n_units / (n_units - 1) * np.square(sums).sum()) / weight.sum())
    return Change(delta, se, n_units)


def factor_of(n_tests: int, n_units: int) -> float:
    """How many standard errors a change must exceed: Student's t, divided among n_tests verdicts (Bonferroni)."""
    from scipy import special  # it takes longer to load than torchmetrics

    return float(-special.stdtrit(max(1, n_units - 1), LEVEL / 2 / max(1, n_tests)))


def verdict(found: Change | None, loss: float | None, n_tests: int) -> str:
    """What a cut says of a link: it is `used`, it `hurts`, it is `not used`, or these rows `cannot tell`.

    used and hurts: the cut raises or lowers the loss by more than `factor_of` standard errors, so that all verdicts of
    a table together take noise for a change with a chance of 5%. not used: it does neither, and the change's own 95%
    interval lies within `NEGLIGIBLE` of the task's loss. Everything else these rows cannot tell.
    """
    if found is None or found.se is None:
        return "cannot tell"
    if abs(found.delta) > factor_of(n_tests, found.n_units) * found.se:
        return "used" if found.delta > 0 else "hurts"
    end = abs(found.delta) + factor_of(1, found.n_units) * found.se
    return "not used" if end <= NEGLIGIBLE * abs(loss or 0.0) else "cannot tell"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
