"""A resumed run goes on from a checkpoint, and ends with the same bits as an uninterrupted run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtl.console import counted
from mtl.distributed.alone import Ranks
from mtl.distributed.join import joined
from mtl.experiment.facts import model_record
from mtl.experiment.follow import follow, require_fit_for_ranks
from mtl.experiment.reopen import Reopened, Resumption, reopen, require_same_data
from mtl.experiment.restore import load_checkpoint, restore
from mtl.experiment.run import Result, prepare, result_of, train
from mtl.experiment.warm_start import warm_start
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
    report: bool = True,
) -> Result:
    """Resume a run from its newest whole checkpoint.

    Args:
        path: the run folder, or one of its checkpoints, which must then be whole.
        overrides: changes of the recipe. train.epochs and train.max_steps may grow; train.checkpoint, train.device,
            train.threads, trackers and description may change; any other key is refused by name.
        recipe: a whole recipe in place of the run's recipe with overrides; the same keys may change.
        plugins: the plug-ins that were loaded; they must include all plug-ins of the run.
        listeners: the listeners that receive each event after it was written down; by default none.
        extend_schedule: stretch the schedule of the learning rate over the new number of steps; otherwise the schedule
            stays the same, and the steps after its end use its last value.
        allow_nonfinite: accept a checkpoint with infinite or NaN weights.
        require_bitwise: refuse another version or machine, on which the bits may differ; otherwise a warning tells it.
        report: whether the run writes `report.html` at its end.

    Raises:
        UserError: there is no run or no usable checkpoint, or the data or the recipe changed.
    """
    asked = Resumption(
        Path(path), overrides, recipe, plugins, extend_schedule, allow_nonfinite, require_bitwise, report
    )
    return go_on(asked, listeners)


def go_on(asked: Resumption, listeners: Sequence[Listener] = ()) -> Result:
    """As `resume`, with the request in one object."""
    with joined() as ranks:
        stream = Stream(listeners if ranks.rank == 0 else ())
        run = ranks.agreed(lambda: reopen(asked, stream, ranks.n))
        folder = run.folder
        if ranks.all_told(run.is_done)[0]:
            stream.on(Warned(_done(folder)))
            return result_of(folder)
        ranks.first(folder.hold)
        try:
            with devices.settings(run.recipe.train.deterministic, run.threads):
                return _go_on(asked, run, ranks, stream)
        finally:
            if ranks.rank == 0:
                folder.release()


def _go_on(asked: Resumption, run: Reopened, ranks: Ranks, stream: Stream) -> Result:
    folder = run.folder
    if ranks.rank == 0:
        folder.reread()  # another process may have changed it before its release
    trainer = ranks.agreed(lambda: prepare(run.recipe, run.threads, ranks, trained=_begins(folder))[0])
    require_fit_for_ranks(trainer, ranks)

    def begin() -> tuple[int | None, bool]:
        require_same_data(folder, trainer)
        parent = restore(folder, trainer, run.step, stream, asked.allow_nonfinite)
        save_first = _adjust(run, trainer, parent, asked.extend_schedule, stream)
        _write_start(run, trainer)
        return parent, save_first

    begun = ranks.first(begin)
    if begun is None:
        return Result.of_text(follow(trainer, ranks))
    return train(trainer, folder, stream, ranks, *begun, asked.report)


def _adjust(
    run: Reopened, trainer: Trainer, parent: int | None, extend_schedule: bool, stream: Stream
) -> bool:
    """Take weights of other runs if the run has no checkpoint yet, and set the schedule's horizon.

    Returns:
        Whether neither the newest checkpoint nor the recipe reproduces the state after this.
    """
    progress = trainer.progress
    warm = parent is None and run.recipe.train.init_from is not None
    if warm:
        warm_start(run.recipe, trainer, stream)
    for text in _in_vain(run, trainer):
        stream.on(Warned(text))
    before, progress.horizon = progress.horizon, _horizon(trainer, extend_schedule)
    return warm or progress.horizon != before


def _begins(folder: RunFolder) -> bool:
    """Whether the run has no checkpoint to take its weights from, so that it begins as the recipe says."""
    return not checkpoint.steps(folder.checkpoints)


def _horizon(trainer: Trainer, extend_schedule: bool) -> int:
    """The number of steps that the learning rate's schedule spans."""
    return trainer.total_steps if extend_schedule else trainer.progress.horizon


def _done(folder: RunFolder) -> str:
    """A sentence about a run that is finished."""
    early = ", where early stopping ended it" if folder.record.stopped_early else ""
    return f"{folder.path}: already finished at step {folder.record.step}{early}"


def _in_vain(run: Reopened, trainer: Trainer) -> Iterator[str]:
    """Yield a warning if the request adds steps to a run that early stopping has ended."""
    if trainer.progress.stopped and run.grows:
        yield (
            f"{run.folder.path}: early stopping ended it at step {trainer.progress.step}; "
            "nothing more is trained, whatever its epochs"
        )


def _write_start(run: Reopened, trainer: Trainer) -> None:
    """Record that the run goes on: write a changed recipe, and remove the results of an earlier end."""
    record, progress = run.folder.record, trainer.progress
    record.selected = record.decisions = record.baselines = record.task_results = None
    record.stopped_early = record.skipped_steps = None
    record.step, record.epoch, record.results = progress.step, progress.epoch, {}
    record.model = model_record(trainer)
    if run.changed:
        run.folder.change_recipe(to_yaml(run.recipe), run.changed)
    record.status = "running"
    run.folder.save_record()


def foretell(asked: Resumption, listeners: Sequence[Listener] = ()) -> list[str]:
    """The actions of `go_on` in lines for people; this function writes nothing and takes no lock.

    It reads the data and loads the checkpoint, so it refuses the same requests as `go_on`.

    Raises:
        UserError: as in `resume`.
    """
    stream = Stream(listeners)
    run = reopen(asked, stream)
    folder = run.folder
    if run.is_done:
        return [f"{_done(folder)}; nothing would be done"]
    folder.require_free()
    with devices.settings(run.recipe.train.deterministic, run.threads):
        trainer, _ = prepare(run.recipe, run.threads, trained=_begins(folder))
        require_same_data(folder, trainer)
        step, _ = load_checkpoint(folder, trainer, run.step, stream, asked.allow_nonfinite)
    for notice in trainer.notices:
        stream.on(Warned(notice))
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
        yield f"the learning rate's schedule would have {counted(_horizon(trainer, extend_schedule), 'step')}"


def _later(folder: RunFolder, step: int | None) -> list[str]:
    """The names of the checkpoints after a step."""
    steps = checkpoint.steps(folder.checkpoints)
    return [f"step-{other:08d}" for other in steps if step is not None and other > step]
