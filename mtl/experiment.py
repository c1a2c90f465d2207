"""One recipe to one run folder: the verb `run`, for the command line and for Python alike."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch

from mtl.build import build, build_on_meta
from mtl.errors import KeyPath, NotFinite, UserError, dotted, quoted
from mtl.evaluation.decisions import fit_decisions, with_decisions
from mtl.evaluation.predict import check_columns, load
from mtl.recipe.load import load_recipe
from mtl.recipe.schema import Recipe
from mtl.report.plots import plot_run
from mtl.training import checkpoint, devices, state
from mtl.training.dataset import load_dataset
from mtl.training.fit import Epoch, Trainer, evaluate_split, fit, row_of
from mtl.training.rehearsal import rehearse
from mtl.training.runs import RESOLVED, TIMINGS, RunFolder, environment, recipe_of


class Console(Protocol):
    """What a run tells the person who watches it."""

    def started(self, trainer: Trainer, run: RunFolder, notices: Sequence[str]) -> None: ...

    def stepped(self, epoch: int, step: int, n_steps: int) -> None: ...

    def epoch(self, trainer: Trainer, epoch: Epoch) -> None: ...

    def finished(self, result: Result) -> None: ...

    def warn(self, text: str) -> None: ...


class Silent:
    """Says nothing; what `mtl.run` uses in Python unless told otherwise."""

    def started(self, trainer: Trainer, run: RunFolder, notices: Sequence[str]) -> None: ...

    def stepped(self, epoch: int, step: int, n_steps: int) -> None: ...

    def epoch(self, trainer: Trainer, epoch: Epoch) -> None: ...

    def finished(self, result: Result) -> None: ...

    def warn(self, text: str) -> None: ...


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
    console: Console | None = None,
) -> Result:
    """Train a recipe and write its run folder.

    Args:
        recipe: a checked recipe, a path, the name of a built-in recipe, or a mapping.
        overrides: `key.sub=value`, as on the command line; not with a checked recipe.
        out: the run folder; default `runs/<recipe>/<utc>-<suffix>`.
        plugins: the plug-ins that were loaded, for the record.
        console: who is told what happens; by default nobody.

    Raises:
        UserError: the recipe or the data are at fault; before anything was written.
        NotFinite: a loss or gradient became infinite or NaN.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise ValueError("overrides are applied while a recipe is loaded: give them to load_recipe")
    with devices.settings(recipe.train.deterministic, recipe.train.threads):
        trainer, device = prepare(recipe)
        facts = _facts(recipe, trainer, device, plugins)
        folder = RunFolder.create(Path(out) if out is not None else None, recipe, facts)
        return _train(trainer, folder, console or Silent())


def resume(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    recipe: Recipe | None = None,
    plugins: Sequence[str] = (),
    console: Console | None = None,
) -> Result:
    """Go on with a run from its newest checkpoint that is whole, to the same bits as if never stopped.

    Args:
        path: the run folder.
        overrides: a key that changes is refused by name.
        recipe: likewise, in place of the run's own recipe with overrides.
        plugins: the plug-ins that were loaded; all that the run began with must be among them.

    Raises:
        UserError: there is no run or no usable checkpoint, or the data changed.
    """
    console = console or Silent()
    folder = RunFolder.open(Path(path))
    for warning in _require_plugins(folder, plugins):
        console.warn(warning)
    recipe = recipe or load_recipe(recipe_of(folder), overrides)
    _require_same_recipe(folder, recipe)
    if folder.record["status"] == "finished":
        console.warn(f"{folder.path}: already finished at step {folder.record['step']}")
        return _result(folder)
    with devices.settings(recipe.train.deterministic, folder.record["threads"]):
        trainer, _ = prepare(recipe)
        if trainer.dataset.fingerprint != folder.record["data"]["sha256"]:
            raise UserError(
                str(folder.path),
                f"data changed since this run began (sha256 {trainer.dataset.fingerprint[:12]}..., "
                f"was {folder.record['data']['sha256'][:12]}...)",
            )
        folder.hold()
        try:
            checkpoint.clean(folder.checkpoints)
            if checkpoint.steps(folder.checkpoints):
                _, files, warnings = checkpoint.newest(folder.checkpoints)
                for warning in warnings:
                    console.warn(warning)
                offsets = state.restore(trainer, files)
            else:
                console.warn(f"{folder.path}: no checkpoint found; starting from the beginning")
                offsets = {}
            folder.cut_logs(offsets, trainer.progress.epoch)
        except BaseException:
            folder.release()
            raise
        folder.save_record(status="running")
        return _train(trainer, folder, console)


def _require_plugins(folder: RunFolder, plugins: Sequence[str]) -> Iterator[str]:
    """Refuse to go on without a plug-in of the run; warn of each file that is not what it was.

    A file may have moved: it is known by its name.
    """
    given = {Path(name).name: name for name in plugins}
    missing = [name for name in folder.record["plugins"] if Path(name).name not in given]
    if missing:
        flags = " ".join(f"--plugin {name}" for name in missing)
        raise UserError(str(folder.path), f"the run began with plug-ins that are not loaded; add {flags}")
    for name, digest in folder.record.get("plugin_sha256", {}).items():
        now = given[Path(name).name]
        if _digests([now]).get(now) != digest:
            yield f"{now}: the plug-in changed since this run began"


def _digests(plugins: Sequence[str]) -> dict[str, str]:
    """Plug-in file -> its sha256; an installed plug-in has none."""
    files = [name for name in plugins if Path(name).suffix == ".py" and Path(name).is_file()]
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}


def _require_same_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse to go on with another recipe, naming the keys that changed."""
    if recipe.sha256() == folder.record["recipe_sha256"]:
        return
    before, now = dict(_leaves(load_recipe(recipe_of(folder)).plain())), dict(_leaves(recipe.plain()))
    changed = [
        f"{dotted(path)} {quoted(before.get(path))} -> {quoted(now.get(path))}"
        for path in dict.fromkeys([*before, *now])
        if before.get(path) != now.get(path)
    ]
    what = "; ".join(changed[:5]) or f"{RESOLVED} is not as the run wrote it"
    raise UserError(str(folder.path), f"cannot resume: these keys changed: {what}", "start a new run")


def _leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    else:
        yield path, value


def prepare(recipe: Recipe) -> tuple[Trainer, torch.device]:
    """Check a recipe, read its data, and build what trains it.

    Raises:
        UserError: shapes, device or data are at fault.
    """
    with recipe.at("train", "device"):
        device = devices.resolve(recipe.train.device)
    _, header = build_on_meta(recipe)
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
        "plugin_sha256": _digests(plugins),
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


def _label_counts(trainer: Trainer) -> dict[str, dict[str, int]]:
    """Task -> split -> labels that are there, of tasks in which some may be missing."""
    dataset, counts = trainer.dataset, {}
    for group in trainer.built.groups:
        present = dataset.present[group.name].cpu().numpy()
        for t, task in enumerate(group.tasks):
            if trainer.recipe.tasks[task].missing == "mask":
                counts[task] = {split: int(present[rows, t].sum()) for split, rows in dataset.splits.items()}
    return {task: counts[task] for task in trainer.recipe.tasks if task in counts}


def _train(trainer: Trainer, folder: RunFolder, console: Console) -> Result:
    """The loop around `fit`: logs, checkpoints, the record, and the last look at the test split."""
    folder.hold()
    trainer.on_step = console.stepped
    every = trainer.recipe.train.checkpoint.every.epochs
    try:
        console.started(trainer, folder, trainer.dataset.notices)
        if trainer.progress.epoch == 0:
            folder.log("alpha.jsonl", _alpha_rows(trainer))
        for epoch in fit(trainer):
            folder.log("metrics.jsonl", epoch.rows)
            folder.log("alpha.jsonl", _alpha_rows(trainer))
            began = perf_counter()
            if epoch.is_best or epoch.is_last or trainer.progress.epoch % every == 0:
                _save(trainer, folder, console)
            folder.log(TIMINGS, [_timing(trainer, epoch, perf_counter() - began)])
            folder.save_record(step=trainer.progress.step, epoch=trainer.progress.epoch)
            console.epoch(trainer, epoch)
        _finish(trainer, folder)
        plot_run(folder)
    except NotFinite:
        folder.save_record(status="diverged")
        raise
    except KeyboardInterrupt:
        folder.save_record(status="interrupted")
        saved = checkpoint.steps(folder.checkpoints)
        kept = f"step {saved[-1]} is saved" if saved else "nothing is saved yet"
        console.warn(
            f"stopped at step {trainer.progress.step}; {kept}; `mtl run --resume {folder.path}` goes on"
        )
        raise
    finally:
        folder.release()
    result = _result(folder)
    console.finished(result)
    return result


def _alpha_rows(trainer: Trainer) -> list[dict[str, Any]]:
    """Every site's alpha now, as one line."""
    alphas = trainer.built.model.alphas()
    if not alphas:
        return []
    values = {site: alpha.tolist() for site, alpha in alphas.items()}
    return [{"epoch": trainer.progress.epoch, "step": trainer.progress.step, "alpha": values}]


def _save(trainer: Trainer, folder: RunFolder, console: Console) -> None:
    files = state.capture(trainer, folder.offsets())
    checkpoint.commit(folder.checkpoints, trainer.progress.step, files, folder.record["id"])
    best = trainer.progress.best_step
    warning = checkpoint.retain(
        folder.checkpoints, trainer.recipe.train.checkpoint.keep, [best] if best is not None else []
    )
    if warning:
        console.warn(warning)


def _timing(trainer: Trainer, epoch: Epoch, saving: float) -> dict[str, Any]:
    seconds = {**epoch.seconds, "save": saving}
    train = trainer.recipe.train
    n_rows = min(len(trainer.dataset.splits["train"]), epoch.steps * train.batch_size * train.accumulate)
    return {
        "epoch": trainer.progress.epoch,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "rows_per_second": round(n_rows / epoch.seconds["train"], 1),
        "steps_per_second": round(epoch.steps / epoch.seconds["train"], 3),
    }


def _finish(trainer: Trainer, folder: RunFolder) -> None:
    """Evaluate the test split once, with the epoch that validation chose or else the last one."""
    progress = trainer.progress
    selected = progress.best_step if progress.best_step is not None else progress.step
    if selected != progress.step:
        files = checkpoint.read(folder.checkpoints / f"step-{selected:08d}")
        state.load_weights(trainer.built.model, files)
    decisions = fit_decisions(trainer.recipe, trainer.built, trainer.dataset)
    if decisions:
        groups = with_decisions(trainer.built.groups, decisions)
        trainer.built = replace(trainer.built, groups=groups)
        learned = trainer.dataset.learned.decided(decisions)
        folder.save_record(model=learned.record(trainer.dataset.header), decisions=decisions)
    rows = folder.rows()
    seen = [row for row in rows if row["split"] == "test" and row["step"] == selected]
    if not seen or decisions:
        row = row_of(progress, "test", evaluate_split(trainer, "test"))
        row["epoch"] = progress.best_epoch if selected != progress.step else progress.epoch
        row["step"] = selected
        folder.log("metrics.jsonl", [row])
        rows.append(row)
        seen = [row]
    folder.write_csv()
    last_of = {row["split"]: row for row in rows if row["step"] == selected}
    if decisions:  # what was logged of validation knew nothing of thresholds and temperatures
        last_of["validation"] = row_of(progress, "validation", evaluate_split(trainer, "validation"))
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


def _result(folder: RunFolder) -> Result:
    return Result(folder.path, dict(folder.record["results"]), dict(folder.record))


def evaluate_run(
    path: str | os.PathLike[str], split: str = "test", data: str | os.PathLike[str] | None = None
) -> dict[str, float | None]:
    """Metrics of a run's selected weights on one split of its data, or on another file with labels.

    Raises:
        UserError: there is no such run, split or file.
    """
    return load(path).evaluate(split, data)
