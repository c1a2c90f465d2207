"""The training loop is one plain generator, which yields each event of the training.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from time import perf_counter
from typing import Any

from mtl import stages
from mtl.evaluation.evaluate import evaluate
from mtl.evaluation.meter import Values
from mtl.model.layers import derived_seed
from mtl.training import devices
from mtl.training.events import EpochEnded, Evaluated, Stepped
from mtl.training.progress import Progress
from mtl.training.selection import select, selected_alone
from mtl.training.step import train_step
from mtl.training.trainer import Trainer


def fit(
    trainer: Trainer, between: Callable[[], None] = lambda: None
) -> Iterator[Stepped | Evaluated | EpochEnded]:
    """Train from `trainer.progress` to the end, and yield after each step, evaluation and epoch.

    The loop evaluates the validation split, if there is one; this split also selects the best step and stops early.
    With `monitor: test` the loop also evaluates the test split, which selects nothing. At each yield the state of the
    run is complete: the caller may save it, and may leave the training for good.

    Args:
        trainer: a new trainer, or one that was restored from a checkpoint.
        between: called between the batches of an evaluation; an exception of it ends the evaluation.

    Raises:
        NotFinite: a loss or gradient is infinite or NaN and the recipe says to stop.
    """
    progress = trainer.progress
    while not trainer.finished:
        began, first_step, evaluating, n_rows = perf_counter(), progress.step, 0.0, 0
        for event in _train_epoch(trainer, between):
            evaluating += event.seconds if isinstance(event, Evaluated) else 0.0
            n_rows += event.n_rows if isinstance(event, Stepped) else 0
            yield event
        assert trainer.meter is not None
        rows = [row_of(progress, "train", trainer.meter.values("train"), progress.epoch + 1)]
        trained = perf_counter() - began - evaluating
        is_last = progress.stopped or progress.epoch + 1 == trainer.epochs
        due = trainer.evaluation_is_due(ends_epoch=True, is_last=is_last)
        at_end = _evaluate(trainer, between) if due else Evaluated([], 0.0, False)
        trainer.weighting.after_epoch(*trainer.meter.losses())
        progress.epoch, progress.step_in_epoch, trainer.meter = progress.epoch + 1, 0, None
        yield EpochEnded(
            rows + at_end.rows,
            progress.step - first_step,
            n_rows,
            {"train": trained, "evaluate": evaluating + at_end.seconds},
            at_end.is_best,
            is_last or progress.stopped,
        )


def _evaluate(trainer: Trainer, between: Callable[[], None]) -> Evaluated:
    """Evaluate the current model. An interrupted evaluation changes nothing, so it can be repeated."""
    progress, began = trainer.progress, perf_counter()
    rows = [
        row_of(progress, split, evaluate_split(trainer, split, between), progress.epoch + 1)
        for split in trainer.watched
    ]
    progress.evaluated = progress.step
    stopping = trainer.recipe.train.early_stopping
    patience = None if stopping is None else stopping.patience
    is_best = any(
        row["split"] == "validation"
        and select(progress, row, trainer.selecting, patience, selected_alone(trainer.recipe))
        for row in rows
    )
    return Evaluated(rows, perf_counter() - began, is_best)


def evaluate_split(trainer: Trainer, split: str, between: Callable[[], None] = lambda: None) -> Values:
    """Metrics of the current model on one split; `between` is called between the batches."""
    built, dataset = trainer.built, trainer.dataset
    stages.reached("evaluate")
    # a user's part may draw random numbers, and an evaluation that is repeated after a resume must draw the same ones
    devices.seed(
        trainer.device, derived_seed(trainer.recipe.seeds.order, f"evaluate/{split}", trainer.progress.step)
    )
    rows, tasks = dataset.splits[split], trainer.recipe.tasks
    return evaluate(built.model, tasks, dataset, rows, split, between=between, ranks=trainer.ranks)


def row_of(progress: Progress, split: str, values: Values, epoch: int | None = None) -> dict[str, Any]:
    """One line of metrics.jsonl; `epoch` replaces that of the progress if it is given."""
    return {
        "split": split,
        "epoch": progress.epoch if epoch is None else epoch,
        "step": progress.step,
        **values,
    }


def _train_epoch(trainer: Trainer, between: Callable[[], None]) -> Iterator[Stepped | Evaluated]:
    """Train an epoch from `progress.step_in_epoch` on, and yield each step and each evaluation within it."""
    progress, train = trainer.progress, trainer.recipe.train
    parts = trainer.sampler.batches(progress.epoch, start=progress.step_in_epoch * train.accumulate)
    parts = trainer.dataset.rows.ahead(parts, train.accumulate)
    before = progress.step - progress.step_in_epoch
    n_steps = min(trainer.steps_per_epoch, trainer.total_steps - before)
    trainer.meter = trainer.meter or trainer.new_meter()
    trainer.built.model.train()
    while progress.step_in_epoch < n_steps and not progress.stopped:
        if progress.step_in_epoch and trainer.evaluation_is_due():
            yield _evaluate(trainer, between)
            continue
        rows = list(islice(parts, train.accumulate))
        train_step(trainer, rows, trainer.meter)
        progress.step += 1
        progress.step_in_epoch += 1
        yield Stepped(progress.epoch, progress.step_in_epoch, n_steps, sum(map(len, rows)))
