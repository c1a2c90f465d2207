"""The end of a run evaluates the selected weights once on the test split, and writes the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mtl import stages
from mtl.errors import UserError
from mtl.evaluation.baseline import baselines
from mtl.evaluation.bootstrap import Resampled, resampled
from mtl.evaluation.decisions import apply, fit_decisions
from mtl.evaluation.derived import derived_baselines
from mtl.evaluation.details import test_details
from mtl.evaluation.meter import Values
from mtl.experiment.facts import model_record
from mtl.experiment.recorder import Recorder
from mtl.runs import checkpoint, state
from mtl.runs.folder import RunFolder
from mtl.runs.logs import METRICS
from mtl.runs.record import Selected, TaskResult
from mtl.runs.results.bootstrap import write_bootstrap
from mtl.runs.results.details import write_test_details
from mtl.training.events import Listener, Noted, Warned
from mtl.training.loop import evaluate_split, row_of
from mtl.training.progress import Progress
from mtl.training.trainer import Trainer

FEWEST_LABELS = 200
"""With fewer labels in validation, a task's best step is chosen by chance, and the last one is taken instead."""


def finish(
    trainer: Trainer, folder: RunFolder, recorder: Recorder, listener: Listener, between: Callable[[], None]
) -> None:
    """Evaluate the step that validation selected, or otherwise the last one, and record the results beside baselines.

    Args:
        trainer: the trainer, whose training has ended.
        folder: the run, which this process holds.
        recorder: the recorder of this run.
        listener: is told what differs in the baselines from a fit of all rows.
        between: called between the batches of an evaluation; an exception of it ends this function.

    Raises:
        UserError: the checkpoint of the selected step is damaged.
    """
    stages.reached("finish")
    recorder.log_again()
    chosen = selected_of(trainer)
    weights = _Weights(trainer, folder)
    found: dict[str, Resampled] = {}
    details: dict[str, dict[str, Any]] = {}
    if trainer.recipe.train.select == "best_of_each":
        folder.record.task_results = _each_task(weights, found, details, between)
    weights.load(chosen.step)
    decided = _decide(trainer, folder)
    rows = {row["split"]: row for row in recorder.rows if row["step"] == chosen.step}
    if "test" not in rows or decided:
        rows["test"] = _evaluate_test(trainer, chosen, between)
        recorder.log(METRICS, [rows["test"]])
        recorder.rows.append(rows["test"])
    folder.logs.write_csv(recorder.rows)
    if decided:  # the logged metrics of validation do not include thresholds and temperatures
        values = evaluate_split(trainer, "validation", between)
        rows["validation"] = row_of(trainer.progress, "validation", values)
    if not found:
        found = _resampled(trainer, list(trainer.recipe.tasks), between)
    write_bootstrap(folder.path, found)
    _write_results(trainer.progress, folder, chosen, rows)
    try:
        _write_details(trainer, folder, chosen, details, between)
    except UserError as error:
        listener.on(Warned(str(error)))
    # after the results, so that a fault of a plug-in's loss costs the run nothing but its baselines
    recipe, built, dataset = trainer.recipe, trainer.built, trainer.dataset
    values, told = baselines(recipe, built.groups, dataset, "test", between)
    folder.record.baselines = {**values, **derived_baselines(recipe, built, dataset, "test", between)}
    folder.save_record()
    for line in told:
        listener.on(Noted(line))


def selected_of(trainer: Trainer) -> Selected:
    """The step whose weights are the result of the run: the best one by validation, otherwise the last one."""
    progress, last = trainer.progress, Selected(step=trainer.progress.step, epoch=trainer.progress.epoch)
    if trainer.recipe.train.select == "last" or progress.best_step is None:
        return last
    assert progress.best_epoch is not None
    return Selected(step=progress.best_step, epoch=progress.best_epoch)


class _Weights:
    """The weights of any step that the end of a run needs; the network begins with those of the last step."""

    def __init__(self, trainer: Trainer, folder: RunFolder) -> None:
        self.trainer, self.folder, self.step = trainer, folder, trainer.progress.step

    def load(self, step: int) -> None:
        """Put the weights of a step into the network.

        Raises:
            UserError: its checkpoint is damaged.
        """
        if step == self.step:
            return
        path = self.folder.checkpoints / f"step-{step:08d}"
        try:
            state.load_weights(self.trainer.built.model, checkpoint.verified(path, self.folder.record.id))
        except checkpoint.Damaged as reason:
            which = "the last one" if step == self.trainer.progress.step else "the best by validation"
            raise UserError(
                str(path), f"{which} {reason.told}",
                f"mtl run --resume {self.folder.path} trains it again from an older one",
            ) from None  # fmt: skip
        self.step = step


def _each_task(
    weights: _Weights,
    found: dict[str, Resampled],
    details: dict[str, dict[str, Any]],
    between: Callable[[], None],
) -> dict[str, TaskResult]:
    """The results of each task at its own step; `found` gets the resampled metrics there, `details` the counts."""
    trainer, results = weights.trainer, {}
    chosen = {task: _own_step(trainer, task) for task in trainer.recipe.tasks}
    for step in sorted({own.step for own in chosen.values()}):
        tasks = [task for task, own in chosen.items() if own.step == step]
        weights.load(step)
        apply(trainer.built, fit_decisions(trainer.recipe, trainer.built, trainer.dataset))
        values = {
            split: evaluate_split(trainer, split, between) if split in trainer.dataset.splits else {}
            for split in ("validation", "test")
        }
        for task in tasks:
            own = {split: _of_task(values[split], split, task) for split in values}
            results[task] = TaskResult(step=step, epoch=chosen[task].epoch, **own)
        found |= _resampled(trainer, tasks, between)
        counts = _details(trainer, between)
        details |= {task: counts[task] for task in tasks if task in counts}
    return {task: results[task] for task in trainer.recipe.tasks}


def _own_step(trainer: Trainer, task: str) -> Selected:
    """The step of one task: its best by validation, or the last one if validation has too few of its labels."""
    best = trainer.progress.bests.get(task)
    if best is None or trainer.n_labels("validation", task) < FEWEST_LABELS:
        return Selected(step=trainer.progress.step, epoch=trainer.progress.epoch)
    return Selected(step=best["step"], epoch=best["epoch"])


def _of_task(values: Values, split: str, task: str) -> dict[str, float | None]:
    """Metric -> value, for one task of one split."""
    start = f"{split}/{task}/"
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}


def _resampled(trainer: Trainer, tasks: list[str], between: Callable[[], None]) -> dict[str, Resampled]:
    return resampled(trainer.built.model, trainer.recipe.tasks, trainer.dataset, "test", tasks, between)


def _decide(trainer: Trainer, folder: RunFolder) -> bool:
    """Fit the thresholds and temperatures that tasks ask for, and return whether there are any."""
    decisions = fit_decisions(trainer.recipe, trainer.built, trainer.dataset)
    if not decisions:
        return False
    apply(trainer.built, decisions)
    trainer.dataset = replace(trainer.dataset, learned=trainer.dataset.learned.decided(decisions))
    folder.record.model = model_record(trainer)
    folder.record.decisions = {
        task: {name: list(values) for name, values in fitted.items()} for task, fitted in decisions.items()
    }
    folder.save_record()
    return True


def _evaluate_test(trainer: Trainer, chosen: Selected, between: Callable[[], None]) -> dict[str, Any]:
    row = row_of(trainer.progress, "test", evaluate_split(trainer, "test", between), chosen.epoch)
    return {**row, "step": chosen.step}


def _details(trainer: Trainer, between: Callable[[], None]) -> dict[str, dict[str, Any]]:
    """Task -> what its pictures need of the test rows, with the weights that the network has now."""
    rows = trainer.dataset.splits["test"]
    return test_details(trainer.built.model, trainer.recipe.tasks, trainer.dataset, rows, between)


def _write_details(
    trainer: Trainer,
    folder: RunFolder,
    chosen: Selected,
    details: Mapping[str, dict[str, Any]],
    between: Callable[[], None],
) -> None:
    """Write what the pictures of a report need of the test rows; it follows the results, which do not depend on it.

    `details` has the tasks whose result is that of a step of their own.
    """
    recipe = trainer.recipe
    headlines = {
        task: {
            "kind": spec.kind,
            "metric": spec.headline,
            "higher_is_better": spec.higher_is_better,
            "unit": spec.label_unit,
        }
        for task, spec in recipe.tasks.items()
    }
    own = folder.record.task_results or {}
    found = dict(details) if own else _details(trainer, between)
    ordered = {task: found[task] for task in recipe.tasks if task in found}
    steps = {task: result.step for task, result in own.items()}
    write_test_details(folder.path, chosen.step, headlines, ordered, steps)


def _write_results(
    progress: Progress, folder: RunFolder, chosen: Selected, rows: dict[str, dict[str, Any]]
) -> None:
    record = folder.record
    record.status, record.selected = "finished", chosen
    record.stopped_early, record.skipped_steps = progress.stopped, progress.skipped
    record.results = {
        name: value
        for split in ("train", "validation", "test")
        for name, value in rows.get(split, {}).items()
        if "/" in name
    }
    folder.save_record()
