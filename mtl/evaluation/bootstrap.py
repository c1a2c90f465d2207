"""The headline metric of each task on resampled test rows, which shows how much it owes to the choice of these rows.

Shapes: n rows, U units, B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl.data.rows.order import generator_bits
from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.evaluation.evaluate import evaluation_mode, passes
from mtl.evaluation.meter import new_metric, weight_in_metrics
from mtl.model.stitched import StitchedMultiTower
from mtl.model.tasks.module import TaskModule
from mtl.recipe.specs import TaskSpec

REPLICATES = 200
"""The standard deviation of so many replicates is known to 5%."""
MOST = 4 * 10**7
"""Rows times tasks times replicates; of more rows, a part is resampled, and the result is scaled to all of them."""


@dataclass(frozen=True)
class Resampled:
    """One metric of one task on R resamples of the rows of a split.

    Args:
        metric: its name.
        value: its value on the rows themselves; None if it is undefined.
        replicates: (R,) its value on each resample; None where a resample leaves it undefined.
        n_units: the number of rows, or of groups of rows, that were drawn with replacement.
        by_group: whether whole groups were drawn.
    """

    metric: str
    value: float | None
    replicates: tuple[float | None, ...]
    n_units: int
    by_group: bool


def resampled(
    model: StitchedMultiTower,
    tasks: Mapping[str, TaskSpec],
    dataset: Dataset,
    split: str,
    of: Collection[str],
    between: Callable[[], None] = lambda: None,
) -> dict[str, Resampled]:
    """The headline metric of some tasks on `REPLICATES` bootstrap resamples of a split.

    Each resample draws as many units as there are, with replacement; a unit is a row, or a whole group where the
    recipe splits by groups. The draws depend on the number of units alone, so that two networks on the same rows are
    measured on the same resamples and their differences are paired.

    Source: Efron and Tibshirani 1993, chapter 6; Davison and Hinkley 1997, section 3.8, for whole groups.

    Args:
        model: the network.
        tasks: task -> its spec, for all tasks of the network.
        dataset: holds the rows and their labels.
        split: the name of the split.
        of: the tasks that are measured.
        between: called between batches and between resamples; an exception of it ends this function.
    """
    drawn = Draws.of(dataset, split, len(of))
    logits = logits_of(model, dataset, drawn.rows, between)
    labels = dataset.rows.targets(drawn.rows)
    found: dict[str, Resampled] = {}
    for group, module in model.modules_of_tasks().items():
        if any(task in of for task in module.tasks):
            weight_BT = weight_in_metrics(labels, group, module.tasks, tasks)
            found |= drawn.measure(module, tasks, logits[group], labels.target[group], weight_BT, between)
    return {task: found[task] for task in tasks if task in of}


@torch.inference_mode()
def logits_of(
    model: StitchedMultiTower, dataset: Dataset, rows: Rows, between: Callable[[], None]
) -> dict[str, Tensor]:
    """Task group -> logits (n, T, O) of these rows, in evaluation mode."""
    parts: dict[str, list[Tensor]] = {group: [] for group in model.modules_of_tasks()}
    with evaluation_mode(model):
        for _, logits in passes(model, dataset, rows):
            for group, own in parts.items():
                own.append(logits.groups[group])
            between()
    return {group: torch.cat(own) for group, own in parts.items()}


@dataclass(frozen=True)
class Draws:
    """The units of a split that a bootstrap draws from.

    Args:
        rows: (n,) the rows of the units.
        unit_of_row: (n,) the number of the unit of each row.
        n_units: U.
        by_group: whether a unit is a group of rows.
        thinning: how many times more units the split has than these.
    """

    rows: Rows
    unit_of_row: npt.NDArray[np.int64]
    n_units: int
    by_group: bool
    thinning: int

    @classmethod
    def of(cls, dataset: Dataset, split: str, n_tasks: int) -> Draws:
        """The units of a split, thinned out evenly if there are too many of them for so many tasks."""
        rows = dataset.splits[split]
        unit_of_row = np.arange(len(rows))
        if dataset.groups is not None:
            unit_of_row = np.unique(dataset.groups[rows], return_inverse=True)[1].astype(np.int64)
        thinning = max(1, math.ceil(len(rows) * n_tasks * REPLICATES / MOST))
        kept = unit_of_row % thinning == 0
        rows, unit_of_row = rows[kept], unit_of_row[kept] // thinning
        n_units = int(unit_of_row.max(initial=-1)) + 1
        return cls(rows, unit_of_row, n_units, dataset.groups is not None, thinning)

    def counts(self, replicate: int) -> npt.NDArray[np.int64]:
        """(n,) how often each row is in a resample."""
        bits = generator_bits(0, replicate, f"bootstrap of {self.n_units}")
        drawn = np.random.Generator(bits).integers(0, self.n_units, self.n_units)
        return np.bincount(drawn, minlength=self.n_units)[self.unit_of_row]

    def measure(
        self,
        module: TaskModule,
        tasks: Mapping[str, TaskSpec],
        logits_BTO: Tensor,
        target: Tensor,
        weight_BT: Tensor,
        between: Callable[[], None] = lambda: None,
    ) -> dict[str, Resampled]:
        """The headline metrics of the T tasks of one group on the rows and on each resample of them.

        Args:
            module: the module of the group.
            tasks: task -> its spec, for all tasks of the network.
            logits_BTO: the logits of the n rows.
            target: (n, T) or (n, T, O).
            weight_BT: how much each row counts in the metrics.
            between: called between resamples.
        """
        names = frozenset(tasks[task].headline for task in module.tasks)
        found: list[list[float | None]] = []
        for r in range(-1, REPLICATES):
            between()
            rows = (
                np.arange(len(self.rows)) if r < 0 else np.repeat(np.arange(len(self.rows)), self.counts(r))
            )
            index = torch.from_numpy(rows).to(logits_BTO.device)
            metric = new_metric(module, tasks, logits_BTO.device, names)
            metric.update(logits_BTO[index], target[index], weight_BT[index])
            values = {name: value.reshape(-1).tolist() for name, value in metric.compute().items()}
            found.append([_finite(values[tasks[task].headline][t]) for t, task in enumerate(module.tasks)])
        return {
            task: self._resampled(tasks[task].headline, [row[t] for row in found])
            for t, task in enumerate(module.tasks)
        }

    def _resampled(self, metric: str, values: Sequence[float | None]) -> Resampled:
        """Scale the deviations of a thinned split to all of its rows: sd / sqrt(thinning)."""
        value, *rest = values
        scale = 1 / math.sqrt(self.thinning)
        scaled = (None if value is None or x is None else value + (x - value) * scale for x in rest)
        return Resampled(metric, value, tuple(scaled), self.n_units * self.thinning, self.by_group)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
