"""The backward pass of a step: the gradient of its objective, from one batch or from several that count as one.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtl import stages
from mtl.data.types import Rows
from mtl.dataset.batch import Batch, Targets
from mtl.distributed.shares import Update, sizes_of_shares
from mtl.model.parts import part_of_batch
from mtl.training.trainer import Trainer


@dataclass(frozen=True)
class Totals:
    """Numbers of a step that are known before its first forward pass.

    Args:
        counted_N: the divisor of each task's sum of losses: the number of rows that count times their mean weight.
        seen_N: bool, whether a task takes part: a row counts for it and its weight in the recipe is positive.
    """

    counted_N: Tensor
    seen_N: Tensor


@dataclass
class Measured:
    """Results of a step's forward passes: the loss of each task, and the updates that a finite step gives the meter."""

    losses_N: Tensor
    updates: list[Update] = field(default_factory=list)


def totals_of(trainer: Trainer, labels: Sequence[Targets]) -> Totals:
    """The totals of a step, which need only the labels of its parts."""
    n_T: list[Tensor] = []
    mean_T: list[Tensor] = []
    for name, module in trainer.modules.items():
        counts = [module.counted(part.target[name], part.weight[name]) for part in labels]
        n_T.append(counts[0] if len(counts) == 1 else torch.stack(counts).sum(0))
        mean_T.append(module.mean_weight)
    counted_N = trainer.in_order(n_T) * trainer.in_order(mean_T)
    return Totals(counted_N, (counted_N > 0) & (trainer.weighting.task_weights > 0))


def backward(
    trainer: Trainer,
    batches: Iterable[Batch | None],
    parts: list[Rows],
    totals: Totals,
    measured: Measured,
) -> Tensor:
    """Write the gradient of the step into the parameters, and return the weights (N,) of the losses."""
    weighting, ranks = trainer.weighting, trainer.ranks
    _backward_of_penalty(trainer)
    if len(parts) == 1:
        (batch,) = batches
        losses_N = None if batch is None else losses(trainer, batch, totals, measured)
        measured.losses_N = ranks.sum(measured.losses_N)
        ranks.draw_alike(sizes_of_shares(ranks, len(parts[0])))  # a weighting may draw
        weights_N, own = weighting.derivatives(measured.losses_N, totals.seen_N)
        stages.reached("backward")
        if losses_N is not None:
            # the same gradient as losses_N.backward(weights_N), which would load sympy for a second
            torch.dot(losses_N, weights_N).backward()
    else:  # the objective is linear, so its weights do not depend on the losses
        weights_N, own = weighting.derivatives(measured.losses_N, totals.seen_N)
        for batch in batches:
            if batch is not None:
                losses_N = losses(trainer, batch, totals, measured)
                stages.reached("backward")
                torch.dot(losses_N, weights_N).backward()
        measured.losses_N = ranks.sum(measured.losses_N)
        if own:
            _, own = weighting.derivatives(measured.losses_N, totals.seen_N)
    _sum_gradients(trainer, parts)
    for parameter, gradient in zip(weighting.parameters(), own, strict=True):
        parameter.grad = gradient
    return weights_N


def backward_by_task(
    trainer: Trainer,
    batches: Iterable[Batch | None],
    parts: list[Rows],
    totals: Totals,
    measured: Measured,
) -> Tensor:
    """As `_backward`, for a weighting that combines the gradients of the tasks.

    What the tasks share takes the combined gradient. All else takes the weighted sum of the tasks' gradients.
    """
    weighting, shared, ranks = trainer.weighting, trainer.shared, trainer.ranks
    assert shared is not None
    _backward_of_penalty(trainer)
    seen = totals.seen_N.nonzero().squeeze(1)
    n_batches = weighting.batches if len(parts) % weighting.batches == 0 else 1
    jacobians: list[Tensor] = []  # (S, P) of each independent batch; their sum is that of the step
    for i, batch in enumerate(batches):
        losses_N = None
        if batch is not None:
            with shared.passing():
                losses_N = losses(trainer, batch, totals, measured)
        stages.reached("backward")
        if len(seen):
            of = i * n_batches // len(parts)
            if losses_N is None:  # other ranks have all rows of this batch
                rows = totals.counted_N.new_zeros(len(seen), shared.width(0), dtype=torch.float32)
            else:
                rows = shared.jacobian(losses_N[seen].unbind())
            jacobians[of:] = [jacobians[of] + rows if of < len(jacobians) else rows]
        if losses_N is not None:
            shared.backward(losses_N, weighting.task_weights * totals.seen_N)
    for part in parts:
        ranks.draw_alike(sizes_of_shares(ranks, len(part)))  # the weighting may draw
    jacobians = [ranks.sum(rows) for rows in jacobians]
    measured.losses_N = ranks.sum(measured.losses_N)
    _sum_gradients(trainer, parts)
    weights_N = torch.where(totals.seen_N, weighting.task_weights, 0.0)
    if jacobians:
        own_P = weighting.task_weights[seen] @ sum(jacobians[1:], jacobians[0])
        columns = [shared.shared_part(rows) for rows in jacobians]
        if weighting.batches == 1:
            gradient, weights_S = weighting.combine(columns[0], measured.losses_N[seen], totals.seen_N)
        elif n_batches > 1:
            together = torch.stack(columns) * n_batches
            gradient, weights_S = weighting.combine(together, measured.losses_N[seen], totals.seen_N)
        else:
            gradient, weights_S = weighting.task_weights[seen] @ columns[0], None
        shared.add(gradient, own_P)
        if weights_S is not None:
            weights_N = weights_N.index_copy(0, seen, weights_S.to(weights_N.dtype))
    return weights_N


def _sum_gradients(trainer: Trainer, parts: Sequence[Rows]) -> None:
    ranks = trainer.ranks
    n_own = sum(sizes_of_shares(ranks, len(part))[ranks.rank] for part in parts)
    ranks.sum_gradients(trainer.built.model, n_own, sum(map(len, parts)))


def _backward_of_penalty(trainer: Trainer) -> None:
    """Add the gradient of the trunk's penalty, if it has one; the sum over ranks has it once."""
    penalty = trainer.built.model.trunk.penalty()
    if penalty is not None and trainer.ranks.rank == 0:
        penalty.backward()


def losses(trainer: Trainer, batch: Batch, totals: Totals, measured: Measured) -> Tensor:
    """(N,) the share of a part in the loss of each task: the part's sum of losses divided by the step's total."""
    stages.reached("forward")
    half = trainer.recipe.train.precision == "bfloat16"
    present = {group: batch.present[group] for group in trainer.incomplete}
    half_precision = torch.autocast(trainer.device.type, torch.bfloat16) if half else nullcontext()
    with half_precision, part_of_batch(batch.part):
        logits = trainer.network(batch.inputs, present)
    sums = []
    labels = Targets(batch.target, batch.present, batch.weight)  # not the inputs: parts would add up
    for name, module in trainer.modules.items():
        logits_BTO = logits.groups[name].float()
        sum_T, weight_T = module.loss(logits_BTO, batch.target[name], batch.weight[name])
        measured.updates.append((name, logits_BTO.detach(), labels, sum_T.detach(), weight_T))
        sums.append(sum_T)
    losses_N: Tensor = trainer.in_order(sums) / torch.where(totals.counted_N > 0, totals.counted_N, 1.0)
    measured.losses_N = measured.losses_N + losses_N.detach()
    return losses_N
