"""One optimizer step.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtl import stages
from mtl.data.types import Rows
from mtl.errors import NotFinite, quoted
from mtl.evaluation.meter import Meter
from mtl.model.layers import derived_seed
from mtl.training import devices
from mtl.training.trainer import Trainer

MAX_SKIPS = 10
"""Steps in a row that `on_nonfinite: skip` leaves out before it gives up."""


def train_step(trainer: Trainer, parts: list[Rows], meter: Meter) -> None:
    """One optimizer step on the mean gradient of `parts`, which are the batches of this step."""
    recipe, step, optimizer = trainer.recipe, trainer.progress.step, trainer.optimizer
    # random draws (dropout) are a pure function of seed and step: there is no generator state to resume
    devices.seed(trainer.device, derived_seed(recipe.seeds.order, "step", step))
    horizon = trainer.progress.horizon
    factor = recipe.schedule.factor(min(step, horizon - 1), horizon)
    for group in optimizer.param_groups:
        group["lr"] = recipe.optimizer.lr * group["lr_scale"] * factor
    optimizer.zero_grad(set_to_none=True)
    skips = recipe.train.on_nonfinite == "skip"
    buffers = [*trainer.built.model.buffers(), *trainer.weighting.buffers()] if skips else []
    before = [buffer.clone() for buffer in buffers]
    losses: list[Tensor] = []
    seen: list[Seen] = []
    for part in parts:
        stages.reached("forward")
        losses_N = _losses(trainer, part, seen)
        stages.reached("backward")
        (trainer.weighting(losses_N) / len(parts)).backward()
        losses.append(losses_N.detach())
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not _all_finite(trainer, torch.stack(losses), norm, parts):
        with (
            torch.no_grad()
        ):  # running statistics of norms, and what a weighting remembers, have seen the batch
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        return
    for batch in seen:
        meter.update(*batch)
    stages.reached("step")
    if recipe.train.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, recipe.train.clip_norm, norm)
    optimizer.step()


Seen = tuple[str, Tensor, Tensor, Tensor, Tensor, Tensor]
"""What `Meter.update` takes."""


def _losses(trainer: Trainer, part: Rows, seen: list[Seen]) -> Tensor:
    """(N,) the loss of each task on one batch, in the order of results; adds what was seen to `seen`."""
    index = torch.from_numpy(part).to(trainer.device)
    dataset, precision = trainer.dataset, trainer.recipe.train.precision
    with torch.autocast(trainer.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = trainer.built.model.forward_groups(dataset.inputs[index])
    losses = []
    for group in trainer.built.groups:
        logits_BTO = logits[group.name].float()
        target, present = dataset.targets(group.name, index), dataset.present[group.name][index]
        weight = dataset.weights(group.name, index)
        loss_T = group.spec.losses(logits_BTO, target, weight, group.constants)
        seen.append((group.name, logits_BTO.detach(), target, present, loss_T.detach(), weight.sum(0)))
        losses.append(loss_T)
    return torch.cat(losses).index_select(0, trainer._to_results)


def _all_finite(trainer: Trainer, losses_PN: Tensor, norm: Tensor, parts: Sequence[Rows]) -> bool:
    """Whether the step may be taken; raises or counts as `on_nonfinite` says."""
    if bool(torch.isfinite(losses_PN.sum() + norm)):
        trainer.progress.skipped_in_a_row = 0
        return True
    progress, train = trainer.progress, trainer.recipe.train
    lr, rows = trainer.optimizer.param_groups[0]["lr"], np.concatenate(parts).tolist()
    shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    where = f"at step {progress.step} (epoch {progress.epoch + 1}, lr {lr:g}, batch of rows {shown})"
    bad = [
        f"task {quoted(task)}: loss is {loss:g}"
        for task, loss in zip(trainer.recipe.tasks, losses_PN.sum(0).tolist(), strict=True)
        if not math.isfinite(loss)
    ]
    what = "; ".join(bad) or f"the gradient's norm is {norm.item():g}"
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    if train.on_nonfinite == "stop" or progress.skipped_in_a_row > MAX_SKIPS:
        fault = NotFinite(
            "", f"{what} {where}", "lower optimizer.lr, set train.clip_norm, or check the inputs"
        )
        losses = dict(zip(trainer.recipe.tasks, map(str, losses_PN.sum(0).tolist()), strict=True))
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
