"""The training loop: one plain generator that yields what was measured, epoch by epoch.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any

from mtl import stages
from mtl.evaluation.evaluate import evaluate
from mtl.evaluation.meter import Meter, Values
from mtl.model.layers import derived_seed
from mtl.training import devices
from mtl.training.progress import Progress
from mtl.training.selection import select
from mtl.training.step import train_step
from mtl.training.trainer import Trainer


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
    is_best = any(row["split"] == "validation" and select(trainer, row) for row in rows)
    return Evaluation(rows, perf_counter() - began, is_best)


def evaluate_split(trainer: Trainer, split: str) -> Values:
    """Metrics of the model as it is on one split."""
    built, dataset = trainer.built, trainer.dataset
    stages.reached("evaluate")
    # for what a user's part may draw: an evaluation that is done again after a resume must draw the same
    devices.seed(
        trainer.device, derived_seed(trainer.recipe.seeds.order, f"evaluate/{split}", trainer.progress.step)
    )
    rows, tasks = dataset.splits[split], trainer.recipe.tasks
    return evaluate(built.model, tasks, dataset, rows, split, trainer.between)


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
    trainer.meter = trainer.meter or Meter(trainer.modules, recipe.tasks, trainer.device)
    trainer.built.model.train()
    while progress.step_in_epoch < n_steps and not progress.stopped:
        if progress.step_in_epoch and trainer.evaluation_is_due():
            yield _evaluate(trainer)
            continue
        train_step(trainer, list(islice(parts, train.accumulate)), trainer.meter)
        progress.step += 1
        progress.step_in_epoch += 1
        trainer.on_step(progress.epoch, progress.step_in_epoch, n_steps)
