"""A run that goes on from a checkpoint, to the same bits as if it had never stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtl.experiment.facts import model_record
from mtl.experiment.reopen import Reopened, Resumption, reopen, require_same_data
from mtl.experiment.restore import load_checkpoint, restore
from mtl.experiment.run import Result, prepare, result_of, train, warm_start
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import to_yaml
from mtl.runs import checkpoint
from mtl.runs.folder import RunFolder
from mtl.training import devices
from mtl.training.events import Listener, Stream, Warned
from mtl.training.trainer import Trainer


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
    asked = Resumption(
        Path(path), overrides, recipe, plugins, extend_schedule, allow_nonfinite, require_bitwise
    )
    return go_on(asked, listeners)


def go_on(asked: Resumption, listeners: Sequence[Listener] = ()) -> Result:
    """As `resume`, with what is asked of the run in one object."""
    stream = Stream(listeners)
    run = reopen(asked, stream)
    folder = run.folder
    if run.is_done:
        stream.on(Warned(f"{folder.path}: already finished at step {folder.record.step}"))
        return result_of(folder)
    folder.hold()
    with devices.settings(run.recipe.train.deterministic, run.threads):
        try:
            folder.reread()  # another process may just have let go of it
            trainer, _ = prepare(run.recipe)
            require_same_data(folder, trainer)
            parent = restore(folder, trainer, run.step, stream, asked.allow_nonfinite)
            save_first = _adjust(run, trainer, parent, asked.extend_schedule, stream)
            _write_start(run, trainer)
        except BaseException:
            folder.release()
            raise
        return train(trainer, folder, stream, parent, save_first)


def _adjust(
    run: Reopened, trainer: Trainer, parent: int | None, extend_schedule: bool, stream: Stream
) -> bool:
    """Weights of other runs if nothing was saved yet, and the schedule's horizon.

    Returns:
        Whether the state is now one that the newest checkpoint or the recipe would not give again.
    """
    progress = trainer.progress
    warm = parent is None and run.recipe.train.init_from is not None
    if warm:
        warm_start(run.recipe, trainer, stream)
    for text in _in_vain(run, trainer):
        stream.on(Warned(text))
    before, progress.horizon = progress.horizon, _horizon(trainer, extend_schedule)
    return warm or progress.horizon != before


def _horizon(trainer: Trainer, extend_schedule: bool) -> int:
    """The number of steps that the learning rate's schedule is for."""
    return trainer.total_steps if extend_schedule else trainer.progress.horizon


def _in_vain(run: Reopened, trainer: Trainer) -> Iterator[str]:
    """A warning if more steps are asked of a run that early stopping has ended."""
    if trainer.progress.stopped and run.grows:
        yield (
            f"{run.folder.path}: early stopping ended it at step {trainer.progress.step}; "
            "nothing more is trained, whatever its epochs"
        )


def _write_start(run: Reopened, trainer: Trainer) -> None:
    """Write down that the run goes on: its recipe if that changed, and no end that the run is not at any more."""
    record, progress = run.folder.record, trainer.progress
    record.selected = record.decisions = record.stopped_early = record.skipped_steps = None
    record.step, record.epoch, record.results = progress.step, progress.epoch, {}
    record.model = model_record(trainer)
    if run.changed:
        run.folder.change_recipe(to_yaml(run.recipe), run.changed)
    record.status = "running"
    run.folder.save_record()


def foretell(asked: Resumption, listeners: Sequence[Listener] = ()) -> list[str]:
    """What `go_on` would do, in lines for people; nothing is written, and no lock taken.

    The data are read and the checkpoint is loaded, so that what `go_on` would refuse is refused here.

    Raises:
        UserError: as `resume`.
    """
    stream = Stream(listeners)
    run = reopen(asked, stream)
    folder = run.folder
    if run.is_done:
        return [f"{folder.path}: already finished at step {folder.record.step}; nothing would be done"]
    folder.require_free()
    with devices.settings(run.recipe.train.deterministic, run.threads):
        trainer, _ = prepare(run.recipe)
        require_same_data(folder, trainer)
        step, _ = load_checkpoint(folder, trainer, run.step, stream, asked.allow_nonfinite)
    return list(_foretold(run, trainer, step, asked.extend_schedule))


def _foretold(run: Reopened, trainer: Trainer, step: int | None, extend_schedule: bool) -> Iterator[str]:
    folder, total = run.folder, trainer.total_steps
    start = "the beginning, for nothing is saved" if step is None else f"step-{step:08d}"
    yield f"{folder.path}: {folder.standing()[0]}; would go on from {start}, to step {total}"
    later = _later(folder, step)
    if later:
        yield f"would set aside: {', '.join(later)}"
    yield from (f"changed: {text}" for text in run.changed)
    yield from _in_vain(run, trainer)
    if extend_schedule or trainer.progress.horizon != total:
        yield f"the learning rate's schedule would have {_horizon(trainer, extend_schedule)} steps"


def _later(folder: RunFolder, step: int | None) -> list[str]:
    """The names of the checkpoints after one."""
    steps = checkpoint.steps(folder.checkpoints)
    return [f"step-{other:08d}" for other in steps if step is not None and other > step]
