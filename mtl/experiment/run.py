"""One recipe to one run folder: the verb `run`, for the command line and for Python alike."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mtl.build import build
from mtl.dataset.assemble import load_dataset
from mtl.errors import EnvironmentFault, NotFinite, UserError
from mtl.evaluation.decisions import fit_decisions, with_decisions
from mtl.experiment.recorder import Recorder
from mtl.experiment.rehearsal import rehearse
from mtl.experiment.trial import build_and_try
from mtl.experiment.warm_start import take_weights
from mtl.inference.predict import check_columns, load
from mtl.model.layers import derived_seed
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.report.plots import plot_run
from mtl.runs import checkpoint, state
from mtl.runs.folder import RunFolder, environment
from mtl.signals import StopAsked, StopSignals
from mtl.training import devices, failpoints
from mtl.training.events import Ended, Listener, Noted, Started, Stream, Warned
from mtl.training.loop import evaluate_split, fit, row_of
from mtl.training.trainer import Trainer


@dataclass(frozen=True)
class Result:
    """A finished run.

    Args:
        path: its folder.
        metrics: the last row of each split: `test/garment/accuracy` -> value.
        record: the content of run.json.
    """

    path: Path
    metrics: dict[str, float | None]
    record: dict[str, Any]


def run(
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    plugins: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
) -> Result:
    """Train a recipe and write its run folder.

    Args:
        recipe: a checked recipe, a path, the name of a built-in recipe, or a mapping.
        overrides: `key.sub=value`, as on the command line; not with a checked recipe.
        out: the run folder; default `runs/<recipe>/<utc>-<suffix>`.
        plugins: the plug-ins that were loaded, for the record.
        listeners: who is told what happens, after it was written down; by default nobody.

    Raises:
        UserError: the recipe or the data are at fault; before anything was written.
        NotFinite: a loss or gradient became infinite or NaN.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise ValueError("overrides are applied while a recipe is loaded: give them to load_recipe")
    stream = Stream(listeners)
    with devices.settings(recipe.train.deterministic, recipe.train.threads):
        trainer, device = prepare(recipe)
        warm_start(recipe, trainer, stream)
        facts = _facts(recipe, trainer, device, plugins)
        with StopSignals():  # one that comes while the folder is made is obeyed once it is whole
            folder = RunFolder.create(Path(out) if out is not None else None, recipe, facts)
            return train(trainer, folder, stream, save_first=recipe.train.init_from is not None)


def warm_start(recipe: Recipe, trainer: Trainer, stream: Stream) -> None:
    """The weights that `train.init_from` names, in place of those drawn."""
    given = recipe.train.init_from
    if given is None:
        return
    with recipe.at("train", "init_from"):
        paths = {"": given} if isinstance(given, str) else given
        matched = take_weights(trainer.built, {name: load(path).built for name, path in paths.items()})
    for line in matched.lines():
        stream.on(Noted(f"init_from: {line}"))


def prepare(recipe: Recipe) -> tuple[Trainer, torch.device]:
    """Check a recipe, read its data, and build what trains it.

    Raises:
        UserError: shapes, device or data are at fault.
    """
    failpoints.hit("load")
    devices.seed(torch.device("cpu"), derived_seed(recipe.seeds.init, "build"))  # for what a plug-in may draw
    with recipe.at("train", "device"):
        device = devices.resolve(recipe.train.device)
    _, header = build_and_try(recipe)
    dataset = load_dataset(recipe, header)
    built = build(recipe, dataset.header, dataset.learned).to(device)
    built.model.to(memory_format=devices.memory_format(device))  # type: ignore[call-overload]
    trainer = Trainer.create(recipe, built, dataset.to(device))
    rehearse(trainer)
    check_columns(recipe, built)
    return trainer, device


def _facts(recipe: Recipe, trainer: Trainer, device: torch.device, plugins: Sequence[str]) -> dict[str, Any]:
    """What run.json records beside identity and status."""
    dataset = trainer.dataset
    return {
        "description": recipe.description,
        "seeds": recipe.seeds.model_dump(),
        "plugins": list(plugins),
        "plugin_sha256": digests_of(plugins),
        "environment": environment(),
        "device": str(device),
        "threads": recipe.train.threads or torch.get_num_threads(),
        "data": {
            "sha256": dataset.fingerprint,
            "generated": any(source.generated_now() for source in recipe.data.by_name.values()),
            "rows": {split: len(rows) for split, rows in dataset.splits.items()},
            "labels": _label_counts(trainer),
            "best_possible_accuracy": dataset.ceiling,
        },
        "model": dataset.learned.record(dataset.header),
        "parameters": sum(p.numel() for p in trainer.built.model.parameters()),
        "classes": {task: list(dataset.learned.outputs[task]) for task in recipe.tasks},
        "towers": {tower: list(tasks) for tower, tasks in recipe.towers.items()},
        "step": 0,
        "results": {},
    }


def digests_of(plugins: Sequence[str]) -> dict[str, str]:
    """Plug-in file -> its sha256; an installed plug-in has none."""
    files = [name for name in plugins if Path(name).suffix == ".py" and Path(name).is_file()]
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}


def _label_counts(trainer: Trainer) -> dict[str, dict[str, int]]:
    """Task -> split -> labels that are there, of tasks in which some may be missing."""
    dataset, counts = trainer.dataset, {}
    for group in trainer.built.groups:
        present = dataset.present[group.name].cpu().numpy()
        for t, task in enumerate(group.tasks):
            if trainer.recipe.tasks[task].missing == "mask":
                counts[task] = {split: int(present[rows, t].sum()) for split, rows in dataset.splits.items()}
    return {task: counts[task] for task in trainer.recipe.tasks if task in counts}


def train(
    trainer: Trainer,
    folder: RunFolder,
    stream: Stream,
    parent: int | None = None,
    save_first: bool = False,
) -> Result:
    """The loop around `fit`: logs, checkpoints, the record, and the last look at the test split.

    A stop signal (SIGINT, SIGTERM, SIGHUP) is obeyed at the next edge of a step, after a checkpoint.

    Args:
        trainer: at the beginning, or where a checkpoint was.
        folder: the run.
        stream: who is told.
        parent: the step that the run goes on from, if it does.
        save_first: commit a checkpoint before the first step, of what the recipe alone would not give again.
    """
    folder.hold()
    try:
        with StopSignals() as stop:
            recorder = Recorder(trainer, folder, stream, parent, save_first)
            everyone = Stream((recorder, stream))
            try:
                everyone.on(Started(trainer, folder.path))
                for notice in trainer.dataset.notices:
                    everyone.on(Warned(notice))
                stop.check()
                for event in fit(trainer, stop.check):
                    everyone.on(event)
                    stop.check()
                _finish(trainer, folder, recorder, stop.check)
                failpoints.hit("plot")
                plot_run(folder, {spec.headline for spec in trainer.recipe.tasks.values()})
                stop.check()
            except StopAsked as asked:
                recorder.stopped()
                raise asked.as_interrupt() from None
            except NotFinite as fault:
                recorder.diverged(fault)
                raise
            except KeyboardInterrupt:
                recorder.broken_off()
                raise
            except (MemoryError, RuntimeError) as error:
                if out_of_memory(error):
                    raise _memory_fault(trainer, error) from error
                raise
    finally:
        folder.release()
    result = result_of(folder)
    selected = result.record["selected"]
    stream.on(Ended(result.metrics, selected["epoch"], selected["step"]))
    return result


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is not enough; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _memory_fault(trainer: Trainer, error: BaseException) -> EnvironmentFault:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    if trainer.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(trainer.device) / 2**20
    size = trainer.recipe.train.batch_size
    return EnvironmentFault(
        "",
        f"not enough memory at step {trainer.progress.step} with batches of {size} rows (peak {peak:,.0f} MB)",
        "lower train.batch_size and raise train.accumulate; the last checkpoint stands",
    )


def _finish(trainer: Trainer, folder: RunFolder, recorder: Recorder, between: Callable[[], None]) -> None:
    """Evaluate the test split once, with the epoch that validation chose or else the last one."""
    failpoints.hit("finish")
    recorder.log_again()
    progress = trainer.progress
    selected = progress.best_step if progress.best_step is not None else progress.step
    if selected != progress.step:
        path = folder.checkpoints / f"step-{selected:08d}"
        try:
            state.load_weights(trainer.built.model, checkpoint.verified(path, folder.record["id"]))
        except checkpoint.Damaged as reason:
            raise UserError(
                str(path), f"the best by validation is damaged ({reason})",
                f"mtl run --resume {folder.path} trains it again from an older one",
            ) from None  # fmt: skip
    decisions = fit_decisions(trainer.recipe, trainer.built, trainer.dataset)
    if decisions:
        groups = with_decisions(trainer.built.groups, decisions)
        trainer.built = replace(trainer.built, groups=groups)
        learned = trainer.dataset.learned.decided(decisions)
        folder.save_record(model=learned.record(trainer.dataset.header), decisions=decisions)
    rows = recorder.rows
    seen = [row for row in rows if row["split"] == "test" and row["step"] == selected]
    if not seen or decisions:
        row = row_of(progress, "test", evaluate_split(trainer, "test", between))
        row["epoch"] = progress.best_epoch if selected != progress.step else progress.epoch
        row["step"] = selected
        recorder.log("metrics.jsonl", [row])
        rows.append(row)
        seen = [row]
    folder.write_csv(rows)
    last_of = {row["split"]: row for row in rows if row["step"] == selected}
    if decisions:  # what was logged of validation knew nothing of thresholds and temperatures
        last_of["validation"] = row_of(progress, "validation", evaluate_split(trainer, "validation", between))
    results = {
        name: value
        for split in ("train", "validation", "test")
        for name, value in last_of.get(split, {}).items()
        if "/" in name
    }
    folder.save_record(
        status="finished",
        selected={"step": selected, "epoch": seen[0]["epoch"]},
        stopped_early=progress.stopped,
        skipped_steps=progress.skipped,
        results=results,
    )


def result_of(folder: RunFolder) -> Result:
    return Result(folder.path, dict(folder.record["results"]), dict(folder.record))
