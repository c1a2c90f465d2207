"""The end of a run evaluates the selected weights once on the test split, and writes the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mtl import stages
from mtl.errors import UserError
from mtl.evaluation.baseline import baselines
from mtl.evaluation.decisions import apply, fit_decisions
from mtl.evaluation.details import test_details
from mtl.experiment.facts import model_record
from mtl.experiment.recorder import Recorder
from mtl.runs import checkpoint, state
from mtl.runs.folder import RunFolder
from mtl.runs.logs import METRICS
from mtl.runs.record import Selected
from mtl.runs.results.details import write_test_details
from mtl.training.events import Listener, Noted
from mtl.training.loop import evaluate_split, row_of
from mtl.training.progress import Progress
from mtl.training.trainer import Trainer


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
    chosen = selected_of(trainer.progress)
    if chosen.step != trainer.progress.step:
        _load_weights(trainer, folder, chosen.step)
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
    _write_results(trainer.progress, folder, chosen, rows)
    _write_details(trainer, folder, chosen, between)
    # after the results, so that a fault of a plug-in's loss costs the run nothing but its baselines
    folder.record.baselines, told = baselines(
        trainer.recipe, trainer.built.groups, trainer.dataset, "test", between
    )
    folder.save_record()
    for line in told:
        listener.on(Noted(line))


def selected_of(progress: Progress) -> Selected:
    """The step whose weights are the result of the run: the best one by validation, otherwise the last one."""
    if progress.best_step is None or progress.best_step == progress.step:
        return Selected(step=progress.step, epoch=progress.epoch)
    assert progress.best_epoch is not None
    return Selected(step=progress.best_step, epoch=progress.best_epoch)


def _load_weights(trainer: Trainer, folder: RunFolder, step: int) -> None:
    path = folder.checkpoints / f"step-{step:08d}"
    try:
        state.load_weights(trainer.built.model, checkpoint.verified(path, folder.record.id))
    except checkpoint.Damaged as reason:
        raise UserError(
            str(path), f"the best by validation is damaged ({reason})",
            f"mtl run --resume {folder.path} trains it again from an older one",
        ) from None  # fmt: skip


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


def _write_details(
    trainer: Trainer, folder: RunFolder, chosen: Selected, between: Callable[[], None]
) -> None:
    """Write what the pictures of a report need of the test rows; it follows the results, which do not depend on it."""
    recipe, dataset = trainer.recipe, trainer.dataset
    headlines = {
        task: {
            "kind": spec.kind,
            "metric": spec.headline,
            "higher_is_better": spec.higher_is_better,
            "unit": spec.label_unit,
        }
        for task, spec in recipe.tasks.items()
    }
    found = test_details(trainer.built.model, recipe.tasks, dataset, dataset.splits["test"], between)
    write_test_details(folder.path, chosen.step, headlines, found)


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
