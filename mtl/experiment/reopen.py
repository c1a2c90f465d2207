"""The request to resume a run, and the checks whether the run, the recipe and the machine allow it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtl.errors import UserError
from mtl.experiment.changes import require_same
from mtl.experiment.facts import digests_of, environment
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.runs.folder import RunFolder
from mtl.training import devices
from mtl.training.events import Stream, Warned
from mtl.training.trainer import Trainer

_STEP = re.compile(r"step-([0-9]{8})")


@dataclass(frozen=True)
class Resumption:
    """The request to resume a run; `mtl.resume` explains each argument.

    Args:
        path: the run folder, or one of its checkpoints.
        overrides: the keys of the recipe that change.
        recipe: a whole recipe in place of overrides.
        plugins: the plug-ins that were loaded.
        extend_schedule: stretch the learning rate's schedule over the new number of steps.
        allow_nonfinite: accept infinite and NaN weights.
        require_bitwise: refuse another version or machine.
        report: write `report.html` at the end.
    """

    path: Path
    overrides: Sequence[str] = ()
    recipe: Recipe | None = None
    plugins: Sequence[str] = ()
    extend_schedule: bool = False
    allow_nonfinite: bool = False
    require_bitwise: bool = False
    report: bool = True


@dataclass(frozen=True)
class Reopened:
    """A run that may be resumed.

    Args:
        folder: the run, which this process does not hold yet.
        step: the step of the requested checkpoint; None: no checkpoint was named.
        recipe: the recipe of the resumed run.
        changed: the changes in the recipe, in words.
        threads: the number of threads for torch.
    """

    folder: RunFolder
    step: int | None
    recipe: Recipe
    changed: list[str]
    threads: int

    @property
    def grows(self) -> bool:
        """Whether the request adds epochs or steps."""
        return any(text.startswith(("train.epochs ", "train.max_steps ")) for text in self.changed)

    @property
    def is_done(self) -> bool:
        """Whether the run is finished and the request adds nothing."""
        return self.folder.record.status == "finished" and self.step is None and not self.grows


def reopen(asked: Resumption, stream: Stream, processes: int = 1) -> Reopened:
    """Open a run and make every check that needs neither its lock nor its data.

    Args:
        asked: the request.
        stream: the listeners that hear of differences from the run's beginning.
        processes: how many train together.

    Raises:
        UserError: there is no such run, or it may not be resumed with this request.
    """
    folder, step = _opened(asked.path)
    for warning in _plugin_changes(folder, asked.plugins):
        stream.on(Warned(warning))
    before = load_recipe(folder.recipe())
    recipe = asked.recipe or (load_recipe(folder.recipe(), asked.overrides) if asked.overrides else before)
    changed = require_same(str(folder.path), before, recipe)
    threads = folder.record.threads if recipe.train.threads == "auto" else recipe.train.threads
    reopened = Reopened(folder, step, recipe, changed, threads)
    if not reopened.is_done:
        for line in _other_machine(reopened, asked.require_bitwise, processes):
            stream.on(Warned(line))
    return reopened


def _opened(path: Path) -> tuple[RunFolder, int | None]:
    """The run, and the step of the checkpoint if the path is a checkpoint.

    Raises:
        UserError: the path is neither a run nor a checkpoint.
    """
    step = _STEP.fullmatch(path.name)
    if step is None or path.parent.name != "checkpoints":
        return RunFolder.open(path), None
    if not path.is_dir() or path.is_symlink():
        raise UserError(str(path), "no checkpoint found")
    return RunFolder.open(path.parent.parent), int(step[1])


def _plugin_changes(folder: RunFolder, plugins: Sequence[str]) -> Iterator[str]:
    """Refuse a request without all plug-ins of the run, and yield a text for each plug-in file that has changed.

    A file is recognized by its name, so it may have moved.
    """
    given = {Path(name).name: name for name in plugins}
    missing = [name for name in folder.record.plugins if Path(name).name not in given]
    if missing:
        flags = " ".join(f"--plugin {name}" for name in missing)
        raise UserError(str(folder.path), f"the run began with plug-ins that are not loaded; add {flags}")
    for name, digest in folder.record.plugin_sha256.items():
        now = given[Path(name).name]
        if digests_of([now]).get(now) != digest:
            yield f"{now}: the plug-in changed since this run began"


def _other_machine(run: Reopened, required: bool, processes: int) -> list[str]:
    """The differences in versions and machine since the run began, in words.

    Raises:
        UserError: there is a difference and the request requires the same bits; or the device does not exist.
    """
    record = run.folder.record
    with run.recipe.at("train", "device"):
        device = devices.resolve(run.recipe.train.device, 0 if processes > 1 else None)
    was = {**record.environment, "device": record.device, "threads": record.threads}
    was["processes"] = record.processes or 1
    now = {**environment(), "device": str(device), "threads": run.threads, "processes": processes}
    names = ("mtl", "torch", "numpy", "python", "cpu_capability", "device", "threads", "processes")
    other = [f"{name} {was[name]} -> {now[name]}" for name in names if name in was and was[name] != now[name]]
    if other and required:
        what = f"not bitwise: {'; '.join(other)}"
        raise UserError(str(run.folder.path), what, "leave out --require-bitwise")
    return [f"not bitwise: {'; '.join(other)}"] if other else []


def require_same_data(folder: RunFolder, trainer: Trainer) -> None:
    """Require that the data are the same as at the run's beginning.

    Raises:
        UserError: the data differ.
    """
    now, was = trainer.dataset.fingerprint, folder.record.data.sha256
    if now != was:
        raise UserError(
            str(folder.path), f"data changed since this run began (sha256 {now[:12]}..., was {was[:12]}...)",
            "bring the old data back, or start a new run",
        )  # fmt: skip
