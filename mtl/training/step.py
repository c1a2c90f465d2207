"""One optimizer step.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mtl import stages
from mtl.data.types import Rows
from mtl.dataset.batch import Batch, Targets
from mtl.errors import NotFinite, quoted
from mtl.evaluation.meter import Meter
from mtl.model.layers import derived_seed
from mtl.model.weighting import Weighting
from mtl.training import devices
from mtl.training.trainer import Trainer

MAX_SKIPS = 10
"""`on_nonfinite: skip` skips at most this many steps in a row; the next one raises `NotFinite`."""


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
    updates: list[tuple[str, Tensor, Targets, Tensor, Tensor]] = field(default_factory=list)


def train_step(trainer: Trainer, parts: list[Rows], meter: Meter) -> None:
    """Take one optimizer step on `parts`, batches that count as one: each loss is divided by its total over them."""
    recipe, step, optimizer = trainer.recipe, trainer.progress.step, trainer.optimizer
    # random draws (dropout) are a pure function of seed and step, so a checkpoint holds no generator state
    devices.seed(trainer.device, derived_seed(recipe.seeds.order, "step", step))
    horizon = trainer.progress.horizon
    factor = recipe.schedule.factor(min(step, horizon - 1), horizon)
    for group in optimizer.param_groups:
        group["lr"] = recipe.optimizer.lr * group["lr_scale"] * factor
        for parameter in group["params"]:
            parameter.grad = None
    skips = recipe.train.on_nonfinite == "skip"
    buffers = [*trainer.built.model.buffers(), *trainer.weighting.buffers()] if skips else []
    before = [buffer.clone() for buffer in buffers]
    parts = _independent(parts, trainer.weighting.batches)
    whole = trainer.dataset.rows.batch(parts[0]) if len(parts) == 1 else None
    labels = [whole] if whole is not None else [trainer.dataset.rows.targets(part) for part in parts]
    totals = totals_of(trainer, labels)
    measured = Measured(torch.zeros_like(totals.counted_N))
    batches = [whole] if whole is not None else (trainer.dataset.rows.batch(part) for part in parts)
    if trainer.weighting.needs == "gradients":
        weights_N = _backward_by_task(trainer, batches, len(parts), totals, measured)
    else:
        weights_N = _backward(trainer, batches, totals, measured)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = _norm([p.grad for p in parameters if p.grad is not None])
    if not _all_finite(trainer, measured.losses_N, norm, parts):
        with (
            torch.no_grad()
        ):  # the batch has already changed the norms' statistics and the weighting's buffers
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        return
    for update in measured.updates:
        meter.update(*update)
    meter.weigh(weights_N, totals.seen_N)
    stages.reached("step")
    if recipe.train.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, recipe.train.clip_norm, norm)
    _optimizer_step(trainer, totals)
    _after_step(trainer, whole, totals, measured)


def _norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, as torch.nn.utils.get_total_norm; that also sorts them by their devices."""
    if not gradients:
        return torch.tensor(0.0)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def _independent(parts: list[Rows], n_batches: int) -> list[Rows]:
    """The parts of a step, cut so that they make up `n_batches` equal batches, in turn; as they are if one is small."""
    if len(parts) % n_batches == 0 or min(map(len, parts)) < 2 * n_batches:  # batch norm needs two rows
        return parts
    return [piece for part in parts for piece in np.array_split(part, n_batches)]


def _optimizer_step(trainer: Trainer, totals: Totals) -> None:
    """A step of the optimizer, after which the numbers that a weighting has for unseen tasks are what they were.

    A zero gradient would move them all the same, by the optimizer's memory and decay.
    """
    own = [p for p in trainer.weighting.parameters() if p.shape == totals.seen_N.shape]
    state = trainer.optimizer.state
    tensors = [
        t for p in own for t in (p, *state.get(p, {}).values()) if getattr(t, "shape", None) == p.shape
    ]
    before = [tensor.detach().clone() for tensor in tensors]
    trainer.optimizer.step()
    with torch.no_grad():
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(torch.where(totals.seen_N, tensor, value))


def _after_step(trainer: Trainer, batch: Batch | None, totals: Totals, measured: Measured) -> None:
    """Let a weighting that asks for it see the losses of the same rows at the new parameters."""
    weighting = trainer.weighting
    if batch is None or type(weighting).after_step is Weighting.after_step:
        return
    losses_N = measured.losses_N.clone()

    def losses_of() -> Tensor:
        devices.seed(trainer.device, derived_seed(trainer.recipe.seeds.order, "step", trainer.progress.step))
        buffers = [(buffer, buffer.clone()) for buffer in trainer.built.model.buffers()]
        with torch.no_grad():
            again_N = _losses(trainer, batch, totals, Measured(torch.zeros_like(losses_N)))
            for buffer, value in buffers:
                buffer.copy_(value)
        return again_N

    weighting.after_step(losses_N, totals.seen_N, losses_of)


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


def _backward(trainer: Trainer, batches: Iterable[Batch], totals: Totals, measured: Measured) -> Tensor:
    """Write the gradient of the step into the parameters, and return the weights (N,) of the losses."""
    weighting = trainer.weighting
    _backward_of_penalty(trainer)
    if isinstance(batches, list):
        losses_N = _losses(trainer, batches[0], totals, measured)
        weights_N, own = weighting.derivatives(losses_N, totals.seen_N)
        stages.reached("backward")
        # the same gradient as losses_N.backward(weights_N), which would load sympy for a second
        torch.dot(losses_N, weights_N).backward()
    else:  # the objective is linear, so its weights do not depend on the losses
        weights_N, own = weighting.derivatives(measured.losses_N, totals.seen_N)
        for batch in batches:
            losses_N = _losses(trainer, batch, totals, measured)
            stages.reached("backward")
            torch.dot(losses_N, weights_N).backward()
        if own:
            _, own = weighting.derivatives(measured.losses_N, totals.seen_N)
    for parameter, gradient in zip(weighting.parameters(), own, strict=True):
        parameter.grad = gradient
    return weights_N


def _backward_by_task(
    trainer: Trainer, batches: Iterable[Batch], n_parts: int, totals: Totals, measured: Measured
) -> Tensor:
    """As `_backward`, for a weighting that combines the gradients of the tasks.

    What the tasks share takes the combined gradient. All else takes the weighted sum of the tasks' gradients.
    """
    weighting, shared = trainer.weighting, trainer.shared
    assert shared is not None
    _backward_of_penalty(trainer)
    seen = totals.seen_N.nonzero().squeeze(1)
    n_batches = weighting.batches if n_parts % weighting.batches == 0 else 1
    jacobians: list[Tensor] = []  # (S, P) of each independent batch; their sum is that of the step
    for i, batch in enumerate(batches):
        with shared.passing():
            losses_N = _losses(trainer, batch, totals, measured)
        stages.reached("backward")
        if len(seen):
            rows, of = shared.jacobian(losses_N[seen].unbind()), i * n_batches // n_parts
            jacobians[of:] = [jacobians[of] + rows if of < len(jacobians) else rows]
        shared.backward(losses_N, weighting.task_weights * totals.seen_N)
    weights_N = torch.where(totals.seen_N, weighting.task_weights, 0.0)
    if jacobians:
        own_P = weighting.task_weights[seen] @ sum(jacobians[1:], jacobians[0])
        parts = [shared.shared_part(rows) for rows in jacobians]
        if weighting.batches == 1:
            gradient, weights_S = weighting.combine(parts[0], measured.losses_N[seen], totals.seen_N)
        elif n_batches > 1:
            together = torch.stack(parts) * n_batches
            gradient, weights_S = weighting.combine(together, measured.losses_N[seen], totals.seen_N)
        else:
            gradient, weights_S = weighting.task_weights[seen] @ parts[0], None
        shared.add(gradient, own_P)
        if weights_S is not None:
            weights_N = weights_N.index_copy(0, seen, weights_S.to(weights_N.dtype))
    return weights_N


def _backward_of_penalty(trainer: Trainer) -> None:
    """Add the gradient of the trunk's penalty, if it has one."""
    penalty = trainer.built.model.trunk.penalty()
    if penalty is not None:
        penalty.backward()


def _losses(trainer: Trainer, batch: Batch, totals: Totals, measured: Measured) -> Tensor:
    """(N,) the share of a part in the loss of each task: the part's sum of losses divided by the step's total."""
    stages.reached("forward")
    half = trainer.recipe.train.precision == "bfloat16"
    present = {group: batch.present[group] for group in trainer.incomplete}
    with torch.autocast(trainer.device.type, torch.bfloat16) if half else nullcontext():
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


def _all_finite(trainer: Trainer, losses_N: Tensor, norm: Tensor, parts: Sequence[Rows]) -> bool:
    """Whether losses and gradient are finite; if not, `on_nonfinite` decides whether this raises or counts a skip."""
    if math.isfinite((losses_N.sum() + norm).item()):
        trainer.progress.skipped_in_a_row = 0
        return True
    progress, train = trainer.progress, trainer.recipe.train
    lr, rows = trainer.optimizer.param_groups[0]["lr"], np.concatenate(parts).tolist()
    shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    where = f"at step {progress.step} (epoch {progress.epoch + 1}, lr {lr:g}, batch of rows {shown})"
    bad = [
        f"task {quoted(task)}: loss is {loss:g}"
        for task, loss in zip(trainer.recipe.tasks, losses_N.tolist(), strict=True)
        if not math.isfinite(loss)
    ]
    what = "; ".join(bad) or f"the gradient's norm is {norm.item():g}"
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    if train.on_nonfinite == "stop" or progress.skipped_in_a_row > MAX_SKIPS:
        fault = NotFinite(
            "", f"{what} {where}", "lower optimizer.lr, set train.clip_norm, or check the inputs"
        )
        losses = dict(zip(trainer.recipe.tasks, map(str, losses_N.tolist()), strict=True))
        fault.facts = {
            "step": progress.step,
            "epoch": progress.epoch + 1,
            "lr": lr,
            "losses": losses,
            "gradient_norm": str(norm.item()),
            "rows": rows,
            "skipped_in_a_row": progress.skipped_in_a_row - 1,
        }
        raise fault
    return False
