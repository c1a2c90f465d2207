"""Losses and metrics of a model on one split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.dataset.batch import Batch
from mtl.distributed.alone import ALONE, Ranks
from mtl.distributed.shares import Update, gathered_updates
from mtl.evaluation.meter import Meter, Values
from mtl.model.stitched import Logits, StitchedMultiTower
from mtl.model.tasks.module import TaskModule
from mtl.recipe.specs import TaskSpec

BATCH = 500
"""Rows per forward pass."""


@torch.inference_mode()
def evaluate(
    model: StitchedMultiTower,
    tasks: Mapping[str, TaskSpec],
    dataset: Dataset,
    rows: Rows,
    split: str,
    between: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
) -> Values:
    """`<split>/<task>/<metric>` -> value over `rows`, measured in evaluation mode; the model's mode is restored.

    Several ranks take the batches in turn, and each measures all of them in their order, as one process does.

    Args:
        model: the network.
        tasks: task -> its spec, in the order of results.
        dataset: holds the rows and their labels.
        rows: the rows of the split.
        split: its name.
        between: called after each batch; an exception of it ends the evaluation.
        ranks: the processes that evaluate together.
    """
    modules = model.modules_of_tasks()
    meter = Meter(modules, tasks, next(model.parameters()).device, dataset.undefined[split])
    with evaluation_mode(model):
        for start in range(0, len(rows), BATCH * ranks.n):
            end = min(start + BATCH * ranks.n, len(rows))
            parts = [rows[at : min(at + BATCH, end)] for at in range(start, end, BATCH)]
            own = parts[ranks.rank : ranks.rank + 1]
            updates = [each for part in own for each in _updates(model, modules, dataset.rows.batch(part))]
            if ranks.n > 1:
                sizes = [[len(part) * (rank == i) for rank in range(ranks.n)] for i, part in enumerate(parts)]
                labels = [dataset.rows.targets(part) for part in parts]
                updates = list(gathered_updates(ranks, modules, sizes, labels, updates))
            for update in updates:
                meter.update(*update)
            between()
    return meter.values(split)


def _updates(model: StitchedMultiTower, modules: Mapping[str, TaskModule], batch: Batch) -> list[Update]:
    """What a batch gives the meter."""
    logits: Logits = model(batch.inputs)
    found: list[Update] = []
    for group, module in modules.items():
        logits_BTO = logits.groups[group]
        sums = module.loss(logits_BTO, batch.target[group], batch.weight[group])
        found.append((group, logits_BTO, batch, *sums))
    return found


def passes(model: StitchedMultiTower, dataset: Dataset, rows: Rows) -> Iterator[tuple[Batch, Logits]]:
    """Yield batches of the rows, in order, each with the model's logits."""
    for start in range(0, len(rows), BATCH):
        batch = dataset.rows.batch(rows[start : start + BATCH])
        yield batch, model(batch.inputs)


class evaluation_mode:
    """`with evaluation_mode(model)` turns dropout off; norms use their running statistics and leave them unchanged."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.were_training: list[nn.Module] = []

    def __enter__(self) -> None:
        self.were_training = [module for module in self.model.modules() if module.training]
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module in self.were_training:
            module.training = True
