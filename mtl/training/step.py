"""One optimizer step.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from mtl import stages
from mtl.data.types import Rows
from mtl.dataset.batch import Batch, Targets
from mtl.distributed.shares import Update, gathered_updates, own_batches, sizes_of_shares
from mtl.errors import NotFinite, quoted
from mtl.evaluation.meter import Meter
from mtl.model.layers import derived_seed
from mtl.model.weighting import Weighting
from mtl.training import devices
from mtl.training.backward import Measured, Totals, backward, backward_by_task, losses, totals_of
from mtl.training.trainer import Trainer

MAX_SKIPS = 10
"""`on_nonfinite: skip` skips at most this many steps in a row; the next one raises `NotFinite`."""


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
    whole = trainer.dataset.rows.batch(parts[0]) if len(parts) == 1 and trainer.ranks.n == 1 else None
    labels = [whole] if whole is not None else [trainer.dataset.rows.targets(part) for part in parts]
    totals = totals_of(trainer, labels)
    measured = Measured(torch.zeros_like(totals.counted_N))
    batches = [whole] if whole is not None else own_batches(trainer.ranks, trainer.dataset.rows, parts)
    if trainer.weighting.needs == "gradients":
        weights_N = backward_by_task(trainer, batches, parts, totals, measured)
    else:
        weights_N = backward(trainer, batches, parts, totals, measured)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = _norm([p.grad for p in parameters if p.grad is not None])
    if not _all_finite(trainer, measured.losses_N, norm, parts):
        # the batch has already changed the norms' statistics and the weighting's buffers
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        return
    for update in (
        measured.updates if trainer.ranks.n == 1 else _of_all_ranks(trainer, parts, labels, measured)
    ):
        meter.update(*update)
    meter.weigh(weights_N, totals.seen_N)
    stages.reached("step")
    if recipe.train.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, recipe.train.clip_norm, norm)
    _optimizer_step(trainer, totals)
    if len(parts) == 1:
        _after_step(trainer, whole, parts, totals, measured)


def _of_all_ranks(
    trainer: Trainer, parts: list[Rows], labels: Sequence[Targets], measured: Measured
) -> Iterator[Update]:
    """The updates of the whole parts, from those of each rank's shares."""
    sizes = [sizes_of_shares(trainer.ranks, len(part)) for part in parts]
    return gathered_updates(trainer.ranks, trainer.modules, sizes, labels, measured.updates)


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


def _after_step(
    trainer: Trainer, whole: Batch | None, parts: list[Rows], totals: Totals, measured: Measured
) -> None:
    """Let a weighting that asks for it see the losses of the same rows at the new parameters."""
    weighting = trainer.weighting
    if type(weighting).after_step is Weighting.after_step:
        return
    losses_N = measured.losses_N.clone()

    def losses_of() -> Tensor:
        devices.seed(trainer.device, derived_seed(trainer.recipe.seeds.order, "step", trainer.progress.step))
        buffers = [(buffer, buffer.clone()) for buffer in trainer.built.model.buffers()]
        again = Measured(torch.zeros_like(losses_N))
        with torch.no_grad():
            shares = own_batches(trainer.ranks, trainer.dataset.rows, parts) if whole is None else (whole,)
            for batch in shares:
                if batch is not None:
                    losses(trainer, batch, totals, again)
            for buffer, value in buffers:
                buffer.copy_(value)
        return trainer.ranks.sum(again.losses_N)

    weighting.after_step(losses_N, totals.seen_N, losses_of)


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
