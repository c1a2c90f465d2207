"""A run that goes on from a checkpoint, to the same bits as if it had never stopped."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.errors import UserError
from mtl.experiment.changes import require_same
from mtl.experiment.run import Result, digests_of, prepare, result_of, train, warm_start
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe, to_yaml
from mtl.runs import checkpoint, retention, state
from mtl.runs.folder import RunFolder, environment, recipe_of
from mtl.training import devices
from mtl.training.events import Listener, Stream, Warned
from mtl.training.trainer import Trainer

_STEP = re.compile(r"step-([0-9]{8})")


def resume(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    recipe: Recipe | None = None,
    plugins: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    extend_schedule: bool = False,
    allow_nonfinite: bool = False,
    require_bitwise: bool = False,
) -> Result:
    """Go on with a run from its newest checkpoint that is whole.

    Args:
        path: the run folder; or one of its checkpoints, which must then be whole.
        overrides: keys that may change are train.epochs and train.max_steps, which may grow, train.checkpoint,
            train.device, train.threads and description; any other is refused by name.
        recipe: likewise, in place of the run's own recipe with overrides.
        plugins: the plug-ins that were loaded; all that the run began with must be among them.
        listeners: who is told what happens, after it was written down; by default nobody.
        extend_schedule: stretch the schedule of the learning rate over the new number of steps; else it stays as
            the run began with it, and holds its last value.
        allow_nonfinite: go on from a checkpoint with infinite or NaN weights.
        require_bitwise: refuse another version or machine, on which the bits may differ, instead of saying so.

    Raises:
        UserError: there is no run or no usable checkpoint, or the data or the recipe changed.
    """
    stream = Stream(listeners)
    asked = _asked(path, overrides, recipe, plugins, require_bitwise, stream)
    folder = asked.folder
    if asked.is_done:
        stream.on(Warned(f"{folder.path}: already finished at step {folder.record['step']}"))
        return result_of(folder)
    folder.hold()
    folder.record.update(RunFolder.open(folder.path).record)  # another process may just have let go of it
    with devices.settings(asked.recipe.train.deterministic, asked.threads):
        try:
            trainer, _ = prepare(asked.recipe)
            _require_same_data(folder, trainer)
            parent = _restore(folder, trainer, asked.step, stream, allow_nonfinite)
            if parent is None:
                warm_start(asked.recipe, trainer, stream)
            if trainer.progress.stopped and asked.grows:
                stream.on(Warned(_stopped_early(folder, trainer)))
            horizon = trainer.total_steps if extend_schedule else trainer.progress.horizon
            is_new = parent is None and asked.recipe.train.init_from is not None
            save_first = is_new or horizon != trainer.progress.horizon
            trainer.progress.horizon = horizon
            _forget_the_end(folder, trainer)
            if asked.changed:
                folder.change_recipe(to_yaml(asked.recipe), asked.changed)
        except BaseException:
            folder.release()
            raise
        folder.save_record(status="running")
        return train(trainer, folder, stream, parent, save_first)


def _stopped_early(folder: RunFolder, trainer: Trainer) -> str:
    step = trainer.progress.step
    return (
        f"{folder.path}: early stopping ended it at step {step}; nothing more is trained, whatever its epochs"
    )


def _forget_the_end(folder: RunFolder, trainer: Trainer) -> None:
    """Take out of the record what was said of an end that the run is not at any more."""
    for key in ("selected", "decisions", "stopped_early", "skipped_steps"):
        folder.record.pop(key, None)
    dataset, progress = trainer.dataset, trainer.progress
    folder.record.update(
        step=progress.step, epoch=progress.epoch, results={}, model=dataset.learned.record(dataset.header)
    )


def foretell(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    recipe: Recipe | None = None,
    plugins: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    extend_schedule: bool = False,
    allow_nonfinite: bool = False,
    require_bitwise: bool = False,
) -> list[str]:
    """What `resume` would do with the same arguments, in lines for people; nothing is written, and no lock taken.

    The data are read and the checkpoint is loaded, so that what `resume` would refuse is refused here.

    Raises:
        UserError: as `resume`.
    """
    stream = Stream(listeners)
    asked = _asked(path, overrides, recipe, plugins, require_bitwise, stream)
    folder = asked.folder
    if asked.is_done:
        return [f"{folder.path}: already finished at step {folder.record['step']}; nothing would be done"]
    folder.require_free()
    with devices.settings(asked.recipe.train.deterministic, asked.threads):
        trainer, _ = prepare(asked.recipe)
        _require_same_data(folder, trainer)
        step, _ = _load(folder, trainer, asked.step, stream, allow_nonfinite)
    later = [other for other in checkpoint.steps(folder.checkpoints) if step is not None and other > step]
    start = "the beginning, for nothing is saved" if step is None else f"step-{step:08d}"
    lines = [
        f"{folder.path}: {folder.standing()[0]}; would go on from {start}, to step {trainer.total_steps}"
    ]
    lines += [f"would set aside: {', '.join(f'step-{other:08d}' for other in later)}"] if later else []
    lines += [f"changed: {text}" for text in asked.changed]
    lines += [_stopped_early(folder, trainer)] if trainer.progress.stopped and asked.grows else []
    if extend_schedule or trainer.progress.horizon != trainer.total_steps:
        horizon = trainer.total_steps if extend_schedule else trainer.progress.horizon
        lines.append(f"the learning rate's schedule would have {horizon} steps")
    return lines


@dataclass(frozen=True)
class _Asked:
    """What is to go on: the run, its recipe with what changed in it, threads, and the step of a named checkpoint."""

    folder: RunFolder
    step: int | None
    recipe: Recipe
    changed: list[str]
    threads: int

    @property
    def grows(self) -> bool:
        return any(text.startswith(("train.epochs ", "train.max_steps ")) for text in self.changed)

    @property
    def is_done(self) -> bool:
        return self.folder.record["status"] == "finished" and self.step is None and not self.grows


def _asked(
    path: str | os.PathLike[str],
    overrides: Sequence[str],
    recipe: Recipe | None,
    plugins: Sequence[str],
    require_bitwise: bool,
    stream: Stream,
) -> _Asked:
    """All that can be told, and refused, before the run is held and its data are read."""
    folder, step = _opened(Path(path))
    for warning in _plugin_changes(folder, plugins):
        stream.on(Warned(warning))
    before = load_recipe(recipe_of(folder))
    recipe = recipe or (load_recipe(recipe_of(folder), overrides) if overrides else before)
    asked = _Asked(
        folder,
        step,
        recipe,
        require_same(str(folder.path), before, recipe),
        recipe.train.threads or folder.record["threads"],
    )
    if not asked.is_done:
        with recipe.at("train", "device"):
            device = devices.resolve(recipe.train.device)
        settings = {"device": str(device), "threads": asked.threads}
        for line in _other_machine(folder, settings, require_bitwise):
            stream.on(Warned(line))
    return asked


def _opened(path: Path) -> tuple[RunFolder, int | None]:
    """The run, and the step of the checkpoint if the path is one.

    Raises:
        UserError: it is neither.
    """
    step = _STEP.fullmatch(path.name)
    if step is None or path.parent.name != "checkpoints":
        return RunFolder.open(path), None
    if not path.is_dir() or path.is_symlink():
        raise UserError(str(path), "no checkpoint found")
    return RunFolder.open(path.parent.parent), int(step[1])


def _plugin_changes(folder: RunFolder, plugins: Sequence[str]) -> Iterator[str]:
    """Refuse to go on without a plug-in of the run; tell of each file that is not what it was.

    A file may have moved: it is known by its name.
    """
    given = {Path(name).name: name for name in plugins}
    missing = [name for name in folder.record["plugins"] if Path(name).name not in given]
    if missing:
        flags = " ".join(f"--plugin {name}" for name in missing)
        raise UserError(str(folder.path), f"the run began with plug-ins that are not loaded; add {flags}")
    for name, digest in folder.record.get("plugin_sha256", {}).items():
        now = given[Path(name).name]
        if digests_of([now]).get(now) != digest:
            yield f"{now}: the plug-in changed since this run began"


def _other_machine(folder: RunFolder, settings: Mapping[str, Any], required: bool) -> list[str]:
    """What of versions and machine is not as the run began, if anything.

    Raises:
        UserError: something is, and the same bits are required.
    """
    record = folder.record
    was = {**record["environment"], "device": record["device"], "threads": record["threads"]}
    now = {**environment(), **settings}
    names = ("mtl", "torch", "numpy", "python", "cpu_capability", "device", "threads")
    other = [f"{name} {was[name]} -> {now[name]}" for name in names if name in was and was[name] != now[name]]
    if other and required:
        raise UserError(str(folder.path), f"not bitwise: {'; '.join(other)}", "leave out --require-bitwise")
    return [f"not bitwise: {'; '.join(other)}"] if other else []


def _require_same_data(folder: RunFolder, trainer: Trainer) -> None:
    now, was = trainer.dataset.fingerprint, folder.record["data"]["sha256"]
    if now != was:
        raise UserError(
            str(folder.path), f"data changed since this run began (sha256 {now[:12]}..., was {was[:12]}...)",
            "bring the old data back, or start a new run",
        )  # fmt: skip


def _restore(
    folder: RunFolder, trainer: Trainer, step: int | None, stream: Stream, allow_nonfinite: bool
) -> int | None:
    """Put the trainer and the logs where a checkpoint was; the step of it, None if there was none yet."""
    retention.clean(folder.checkpoints)
    step, offsets = _load(folder, trainer, step, stream, allow_nonfinite)
    if step is not None:
        retention.set_aside(folder.checkpoints, step)  # those after it: damaged, or not asked for
    folder.cut_logs(offsets, trainer.progress.epoch)
    return step


def _load(
    folder: RunFolder, trainer: Trainer, step: int | None, stream: Stream, allow_nonfinite: bool
) -> tuple[int | None, dict[str, int]]:
    """Put the trainer where a checkpoint was; its step, None if there is none yet, and how long the logs were then.

    The folder stays as it is.
    """
    if step is not None:
        path = folder.checkpoints / f"step-{step:08d}"
        try:
            files = _verified(folder, step)
        except checkpoint.Damaged as reason:
            raise UserError(
                str(path), f"is damaged ({reason})", "resume the run to use an older one"
            ) from None
        _require_best(folder, path, step, files)
    elif checkpoint.steps(folder.checkpoints):
        step, files = _newest(folder, stream)
    else:
        stream.on(Warned(f"{folder.path}: no checkpoint found; starting from the beginning"))
        return None, {}
    try:
        offsets = state.restore(trainer, files, allow_nonfinite)
    except UserError as error:
        place = folder.checkpoints / f"step-{step:08d}" / str(error.place)
        raise UserError(str(place), error.what, error.todo) from None
    folder.require_logs(offsets)
    return step, offsets


def _verified(folder: RunFolder, step: int) -> dict[str, Path]:
    """The files of one checkpoint of the run, each found to be what its manifest says."""
    return checkpoint.verified(folder.checkpoints / f"step-{step:08d}", folder.record["id"])


def _require_best(folder: RunFolder, path: Path, step: int, files: Mapping[str, Path]) -> None:
    """The end of the run needs the weights of the best epoch so far.

    Raises:
        UserError: they are not there.
    """
    best = state.best_step(files)
    if best not in (None, step):
        try:
            _verified(folder, best)
        except checkpoint.Damaged as reason:
            raise UserError(
                str(path), f"its best by validation, step-{best:08d}, is damaged ({reason})",
                "go back to another one",
            ) from None  # fmt: skip


def _newest(folder: RunFolder, stream: Stream) -> tuple[int, dict[str, Path]]:
    """The newest checkpoint that is whole; and so must be the best one, whose weights the end of the run needs.

    Raises:
        UserError: there is none.
    """
    step, files, warnings = checkpoint.newest(folder.checkpoints, folder.record["id"])
    for warning in warnings:
        stream.on(Warned(warning))
    while (best := state.best_step(files)) not in (None, step):
        assert best is not None
        try:
            _verified(folder, best)
            break
        except checkpoint.Damaged as reason:
            text = f"step-{best:08d}, the best by validation, is damaged ({reason})"
        step, files = _before(folder, best, text)
        stream.on(Warned(f"{text}; using step-{step:08d}"))
    return step, files


def _before(folder: RunFolder, best: int, text: str) -> tuple[int, dict[str, Path]]:
    """The newest whole checkpoint before a step."""
    for step in reversed([step for step in checkpoint.steps(folder.checkpoints) if step < best]):
        with suppress(checkpoint.Damaged):
            return step, _verified(folder, step)
    raise UserError(
        str(folder.path), f"{text}, and no older checkpoint is whole", f"see mtl checkpoints {folder.path}"
    )
