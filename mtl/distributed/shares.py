"""The share of one rank in a step and in an evaluation, and how the shares become the whole.

Shapes: B rows, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mtl.data.types import Rows
from mtl.dataset.batch import Batch, ResidentRows, Targets
from mtl.distributed.alone import Ranks
from mtl.model.tasks.module import TaskModule

Update = tuple[str, Tensor, Targets, Tensor, Tensor]
"""What `Meter.update` takes: the task group, its logits, the labels, and the sums of losses and of weights."""


def own_batches(ranks: Ranks, rows: ResidentRows, parts: Sequence[Rows]) -> Iterator[Batch | None]:
    """Yield this rank's share of each part of a step; None where it has no row of it."""
    for part in parts:
        own = part if ranks.n == 1 else part[ranks.share(len(part))]
        yield replace(rows.batch(own), part=ranks.part(len(part))) if len(own) else None


def gathered_updates(
    ranks: Ranks,
    modules: Mapping[str, TaskModule],
    sizes: Sequence[Sequence[int]],
    labels: Sequence[Targets],
    own: Sequence[Update],
) -> Iterator[Update]:
    """Yield the updates of whole batches, each made of those of all ranks, in the order of the rows.

    So each rank measures what one process would, and only the forward passes are shared.

    Args:
        ranks: the processes.
        modules: task group -> its module.
        sizes: for each batch the number of rows of each rank.
        labels: those of each whole batch.
        own: the updates of this rank: each group of its first batch that has rows, of its second one, ...
    """
    waiting, tensors = iter(own), []
    device = next(iter(labels[0].present.values())).device
    shapes: list[list[tuple[int, ...]]] = [[] for _ in range(ranks.n)]
    for of_ranks in sizes:
        for module in modules.values():
            n_tasks, n_outputs = len(module.tasks), module.head.n_outputs
            for rank, n_rows in enumerate(of_ranks):
                shapes[rank] += [(n_rows, n_tasks, n_outputs), (n_tasks,), (n_tasks,)]
            if of_ranks[ranks.rank]:
                _, logits_BTO, _, sum_T, weight_T = next(waiting)
                tensors += [logits_BTO, sum_T, weight_T]
            else:
                tensors += [torch.zeros(shape, device=device) for shape in shapes[ranks.rank][-3:]]
    everyone, at = ranks.gather(shapes, tensors), 0
    for whole in labels:
        for name in modules:
            logits, sums, weights = ([each[at + i] for each in everyone] for i in range(3))
            yield (
                name,
                torch.cat(logits).float(),
                whole,
                torch.stack(sums).sum(0),
                torch.stack(weights).sum(0),
            )
            at += 3


def sizes_of_shares(ranks: Ranks, n_rows: int) -> list[int]:
    """How many rows of a batch each rank has."""
    bounds = ranks.bounds(n_rows)
    return [bounds[rank + 1] - bounds[rank] for rank in range(ranks.n)]
