"""The training loop: one plain generator that yields what was measured, epoch by epoch.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl.build import Built, parameter_groups
from mtl.data.rows.sampling import Sampler
from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.errors import NotFinite, UserError, quoted
from mtl.evaluation.evaluate import evaluate
from mtl.evaluation.meter import Meter, Values
from mtl.model.layers import derived_seed
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import mean_metric
from mtl.task_groups import TaskGroup
from mtl.training import devices, failpoints

MAX_STEPS = 10**8
"""Names of checkpoints have eight digits."""
MAX_SKIPS = 10
"""Steps in a row that `on_nonfinite: skip` leaves out before it gives up."""


@dataclass
class Progress:
    """Where a run is; everything that a checkpoint needs beside tensors.

    Args:
        epoch: epochs done.
        step_in_epoch: steps done of the next one.
        step: optimizer steps done.
        horizon: the number of steps that the schedule was made for; 0: that of the recipe.
        best: the best value of the selecting metric so far.
        best_epoch, best_step: when that was.
        stale: evaluations since.
        evaluated: the step of the last evaluation.
        skipped: steps left out because something was not finite.
        skipped_in_a_row: how many of them were the last ones.
        stopped: whether early stopping ended the run.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    horizon: int = 0
    best: float | None = None
    best_epoch: int | None = None
    best_step: int | None = None
    stale: int = 0
    evaluated: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What was measured within an epoch: rows of metrics, seconds, and whether the step is the best so far."""

    rows: list[dict[str, Any]]
    seconds: float
    is_best: bool


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: rows of metrics, optimizer steps, seconds, and whether its end is the best so far.

    Steps and seconds count from where a resumed run went on.
    """

    rows: list[dict[str, Any]]
    steps: int
    seconds: dict[str, float]
    is_best: bool
    is_last: bool


@dataclass
class Trainer:
    """Everything that one run trains with.

    Args:
        recipe: the checked recipe.
        built: the model and its task groups, on the device.
        dataset: the rows, on the device.
        weighting: losses of N tasks -> one scalar.
        optimizer: over `parameter_groups`.
        progress: where the run is.
        on_step: called after each optimizer step with (epoch, step in the epoch, steps of the epoch).
        between: called between the batches of an evaluation, whose results a caller may still throw away.
        meter: what has been measured of the epoch under way, if one is.
    """

    recipe: Recipe
    built: Built
    dataset: Dataset
    weighting: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress = field(default_factory=Progress)
    on_step: Callable[[int, int, int], None] = lambda epoch, step, n_steps: None
    between: Callable[[], None] = lambda: None
    meter: Meter | None = None

    def __post_init__(self) -> None:
        train = self.recipe.train
        with self.recipe.at():
            self.sampler = sampler_of(self.recipe, self.built.groups, self.dataset)
        self.steps_per_epoch = math.ceil(self.sampler.n_batches / train.accumulate)
        self.total_steps = train.max_steps or self.steps_per_epoch * (train.epochs or 0)
        if self.total_steps >= MAX_STEPS:
            what = (
                f"{train.epochs} epochs of {self.steps_per_epoch} steps; at most {MAX_STEPS - 1} steps in all"
            )
            with self.recipe.at("train", "epochs"):
                raise UserError("", what, "lower it, or raise train.batch_size")
        self.progress.horizon = self.progress.horizon or self.total_steps
        with self.recipe.at("schedule"):
            self.recipe.schedule.check(self.total_steps)
        self.device = next(self.built.model.parameters()).device
        self._order = (-1, "")
        order_of_results = list(self.recipe.tasks)
        grouped = [task for group in self.built.groups for task in group.tasks]
        self._to_results = torch.tensor([grouped.index(t) for t in order_of_results], device=self.device)

    @property
    def epochs(self) -> int:
        """Those done and those left; `max_steps` may cut one short, also one before the last if it was raised."""
        done = self.progress.step - self.progress.step_in_epoch
        return self.progress.epoch + math.ceil((self.total_steps - done) / self.steps_per_epoch)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train; an epoch that early stopping cut short still has to be closed."""
        progress = self.progress
        return progress.epoch >= self.epochs or (progress.stopped and progress.step_in_epoch == 0)

    @property
    def watched(self) -> list[str]:
        """The splits that are evaluated while training."""
        splits = ["validation", *(["test"] if self.recipe.train.monitor == "test" else [])]
        return [split for split in splits if split in self.dataset.splits]

    def evaluation_is_due(self, *, ends_epoch: bool = False, is_last: bool = False) -> bool:
        """Whether the model as it is at this step is to be evaluated, and has not been."""
        progress, every = self.progress, self.recipe.train.evaluate_every
        by_steps = every.steps is not None and progress.step % every.steps == 0
        by_epochs = ends_epoch and every.epochs is not None and (progress.epoch + 1) % every.epochs == 0
        return (
            bool(self.watched) and (by_steps or by_epochs or is_last) and progress.evaluated != progress.step
        )

    def order_sha256(self, epoch: int) -> str:
        """sha256 of the first batches of an epoch: no other numpy may deal other rows to a resumed run."""
        if self._order[0] != epoch:
            digest = hashlib.sha256()
            for rows in islice(self.sampler.batches(epoch), 2):
                digest.update(rows.astype("<i8").tobytes())
            self._order = (epoch, digest.hexdigest())
        return self._order[1]

    @classmethod
    def create(cls, recipe: Recipe, built: Built, dataset: Dataset) -> Trainer:
        """A trainer at the start of a run."""
        weights = tuple(task.weight for task in recipe.tasks.values())
        device = next(built.model.parameters()).device
        weighting = recipe.weighting.build(weights).to(device)
        groups = parameter_groups(recipe, built.model, weighting)
        return cls(recipe, built, dataset, weighting, recipe.optimizer.build(groups))


def sampler_of(recipe: Recipe, groups: Sequence[TaskGroup], dataset: Dataset) -> Sampler:
    """What makes up each batch of a recipe.

    Raises:
        UserError: no batch comes out, or a task has too few labels for what is asked.
    """
    train, rows = recipe.train, dataset.splits["train"]
    asked, found = train.batches.min_labelled, {}
    for group in groups:
        for t, task in enumerate(group.tasks):
            if task in asked:
                found[task] = rows[dataset.present[group.name][:, t].cpu().numpy()[rows]]
    streams = {}
    if train.batches.temperature is not None:
        for name, own in dataset.streams.items():
            mine = rows[(rows >= own.start) & (rows < own.stop)]
            if len(mine):  # a source may be for testing only
                streams[name] = mine
    return Sampler(
        rows,
        train.batch_size,
        train.drop_last,
        recipe.seeds.order,
        min_labelled={task: (found[task], asked[task]) for task in recipe.tasks if task in asked},
        streams=streams,
        temperature=train.batches.temperature,
    )


def fit(trainer: Trainer) -> Iterator[Epoch | Evaluation]:
    """Train to the end from where `trainer.progress` is; yields after each epoch, and each evaluation within one.

    Evaluates `validation` (if there is one, which also selects the best step and stops early) and, with
    `monitor: test`, the test split, which selects nothing.

    Raises:
        NotFinite: a loss or gradient is infinite or NaN and the recipe says to stop.
    """
    progress = trainer.progress
    while not trainer.finished:
        began, first_step, evaluating = perf_counter(), progress.step, 0.0
        for evaluation in _train_epoch(trainer):
            evaluating += evaluation.seconds
            yield evaluation
        assert trainer.meter is not None
        rows = [row_of(progress, "train", trainer.meter.values("train"), progress.epoch + 1)]
        trained = perf_counter() - began - evaluating
        is_last = progress.stopped or progress.epoch + 1 == trainer.epochs
        due = trainer.evaluation_is_due(ends_epoch=True, is_last=is_last)
        at_end = _evaluate(trainer) if due else Evaluation([], 0.0, False)
        progress.epoch, progress.step_in_epoch, trainer.meter = progress.epoch + 1, 0, None
        yield Epoch(
            rows + at_end.rows,
            progress.step - first_step,
            {"train": trained, "evaluate": evaluating + at_end.seconds},
            at_end.is_best,
            is_last or progress.stopped,
        )


def _evaluate(trainer: Trainer) -> Evaluation:
    """Evaluate the model as it is. Until the end this can be broken off and done again; only then it counts."""
    progress, began = trainer.progress, perf_counter()
    rows = [
        row_of(progress, split, evaluate_split(trainer, split), progress.epoch + 1)
        for split in trainer.watched
    ]
    progress.evaluated = progress.step
    is_best = any(row["split"] == "validation" and _select(trainer, row) for row in rows)
    return Evaluation(rows, perf_counter() - began, is_best)


def evaluate_split(trainer: Trainer, split: str) -> Values:
    """Metrics of the model as it is on one split."""
    built, dataset = trainer.built, trainer.dataset
    failpoints.hit("evaluate")
    # for what a user's part may draw: an evaluation that is done again after a resume must draw the same
    devices.seed(
        trainer.device, derived_seed(trainer.recipe.seeds.order, f"evaluate/{split}", trainer.progress.step)
    )
    rows, tasks = dataset.splits[split], trainer.recipe.tasks
    return evaluate(built.model, built.groups, tasks, dataset, rows, split, trainer.between)


def row_of(progress: Progress, split: str, values: Values, epoch: int | None = None) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    return {
        "split": split,
        "epoch": progress.epoch if epoch is None else epoch,
        "step": progress.step,
        **values,
    }


def _train_epoch(trainer: Trainer) -> Iterator[Evaluation]:
    """Train the rest of an epoch, from `progress.step_in_epoch` on, and yield each evaluation within it."""
    recipe, progress, train = trainer.recipe, trainer.progress, trainer.recipe.train
    parts = trainer.sampler.batches(progress.epoch, start=progress.step_in_epoch * train.accumulate)
    before = progress.step - progress.step_in_epoch
    n_steps = min(trainer.steps_per_epoch, trainer.total_steps - before)
    trainer.meter = trainer.meter or Meter(trainer.built.groups, recipe.tasks, trainer.device)
    trainer.built.model.train()
    while progress.step_in_epoch < n_steps and not progress.stopped:
        if progress.step_in_epoch and trainer.evaluation_is_due():
            yield _evaluate(trainer)
            continue
        _train_step(trainer, list(islice(parts, train.accumulate)), trainer.meter)
        progress.step += 1
        progress.step_in_epoch += 1
        trainer.on_step(progress.epoch, progress.step_in_epoch, n_steps)


def _train_step(trainer: Trainer, parts: list[Rows], meter: Meter) -> None:
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
        poisoned = failpoints.hit("forward")
        losses_N = _losses(trainer, part, seen)
        losses_N = losses_N * math.nan if poisoned else losses_N
        failpoints.hit("backward")
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
    failpoints.hit("step")
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


def selecting_metric(recipe: Recipe) -> tuple[str, bool]:
    """The validation metric that chooses a step, and whether higher is better."""
    stopping = recipe.train.early_stopping
    named = stopping.metric if stopping is not None else None
    name = named or f"validation/mean/{mean_metric(recipe.tasks)}"
    _, task, metric = name.split("/")
    spec = recipe.tasks.get(task, next(iter(recipe.tasks.values())))
    return name, metric != "loss" and bool(spec.known_metrics[metric])


def _select(trainer: Trainer, row: dict[str, Any]) -> bool:
    """Take note of a validation row; whether it is the best so far."""
    recipe, progress = trainer.recipe, trainer.progress
    metric, higher = selecting_metric(recipe)
    value = row[metric]
    better = value is not None and (
        progress.best is None or (value > progress.best if higher else value < progress.best)
    )
    if better:
        progress.best, progress.best_epoch, progress.best_step = value, row["epoch"], progress.step
        progress.stale = 0
    else:
        progress.stale += 1
        stopping = recipe.train.early_stopping
        progress.stopped = stopping is not None and progress.stale >= stopping.patience
    return better
