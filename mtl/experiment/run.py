"""The verb `run` turns one recipe into one run folder, for the command line and for Python alike."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtl import stages
from mtl.build import build
from mtl.data.files.opening import opened_once
from mtl.data.memory import is_out_of_memory
from mtl.dataset.assemble import load_dataset
from mtl.distributed.alone import ALONE, Ranks
from mtl.distributed.join import joined
from mtl.distributed.watch import RankLost
from mtl.errors import NotFinite, UserError, quoted
from mtl.experiment.facts import first_record
from mtl.experiment.finish import finish, selected_of
from mtl.experiment.follow import follow, notices_on_ranks, require_fit_for_ranks, spread, stop_of
from mtl.experiment.recorder import Recorder
from mtl.experiment.rehearsal.first_rows import rehearse
from mtl.experiment.rehearsal.plugin_globals import kept_globals
from mtl.experiment.rehearsal.short_run import has_own_parts, require_resumable, require_same_rows
from mtl.experiment.trial import build_and_try, memory_fault, require_room
from mtl.experiment.warm_start import warm_start
from mtl.inference.decoding import check_columns
from mtl.model.layers import derived_seed
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.recipe.task_spec import units_of
from mtl.registry import fault_of_plugin
from mtl.runs.folder import RunFolder, require_unused
from mtl.runs.record import RunRecord
from mtl.signals import StopAsked, StopSignals
from mtl.tracking.listener import Tracking, require_trackers
from mtl.training import devices
from mtl.training.events import Ended, Halted, Listener, Noted, Started, Stream, Warned
from mtl.training.loop import fit
from mtl.training.trainer import Trainer


@dataclass(frozen=True)
class Result:
    """A finished run.

    Args:
        path: the run folder.
        metrics: the last row of each split: `test/garment/accuracy` -> value.
        record: the content of run.json.
    """

    path: Path
    metrics: dict[str, float | None]
    record: RunRecord

    def to_text(self) -> str:
        """The result as a text for another process."""
        return f"{self.path}\n{self.record.model_dump_json()}"

    @classmethod
    def of_text(cls, text: str) -> Result:
        """The result of `to_text`."""
        path, _, record = text.rpartition("\n")
        found = RunRecord.model_validate_json(record)
        return cls(Path(path), dict(found.results), found)


@opened_once()
def run(
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    plugins: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    report: bool = True,
) -> Result:
    """Train a recipe and write its run folder.

    Args:
        recipe: a checked recipe, a path, the name of a built-in recipe, or a mapping.
        overrides: `key.sub=value`, as on the command line; not with a checked recipe.
        out: the run folder; default `runs/<recipe>/<utc>-<suffix>`.
        plugins: the plug-ins that were loaded, for the record.
        listeners: the listeners that receive each event after it was written down; by default none.
        report: whether the run draws its pictures and writes `report.html` at its end, which takes a second or two.

    Raises:
        UserError: the recipe or the data are at fault; nothing was written then.
        NotFinite: a loss or gradient became infinite or NaN.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise ValueError("overrides are applied while a recipe is loaded: give them to load_recipe")
    with joined() as ranks, devices.settings(recipe.train.deterministic):
        stream = Stream(listeners if ranks.rank == 0 else ())
        trainer = ranks.agreed(lambda: prepare(recipe, ranks=ranks)[0])
        ranks.first(lambda: warm_start(recipe, trainer, stream))
        require_fit_for_ranks(trainer, ranks)
        record = first_record(trainer, plugins, ranks)
        with StopSignals():  # a signal during the making of the folder is obeyed after it
            place = Path(out) if out is not None else None
            folder = ranks.first(lambda: RunFolder.create(place, recipe, record))
            if folder is None:
                return Result.of_text(follow(trainer, ranks))
            warm = recipe.train.init_from is not None
            return train(trainer, folder, stream, ranks, save_first=warm, report=report)


def foretell(
    recipe: Recipe, out: str | os.PathLike[str] | None = None, listeners: Sequence[Listener] = ()
) -> Trainer:
    """Everything that `run` does before it makes the run folder, with the same refusals; nothing is written.

    Args:
        recipe: a checked recipe.
        out: the run folder.
        listeners: the listeners that hear of the weights that the run would begin with, and of the data.

    Returns:
        The trainer that the run would have.

    Raises:
        UserError: as in `run`.
    """
    stream = Stream(listeners)
    with devices.settings(recipe.train.deterministic):
        trainer, _ = prepare(recipe)
        warm_start(recipe, trainer, stream)
    if out is not None:
        require_unused(Path(out))
    for notice in trainer.notices:
        stream.on(Warned(notice))
    return trainer


def prepare(
    recipe: Recipe, threads: int | None = None, ranks: Ranks = ALONE, *, trained: bool = True
) -> tuple[Trainer, torch.device]:
    """Check a recipe, read its data, and build its trainer; the second result is the device.

    It sets the threads of torch, which a `devices.settings` around it restores.

    Args:
        recipe: a checked recipe.
        threads: those of a run that goes on; without them the recipe decides.
        ranks: the processes that will train together, each with the CUDA device of its number.
        trained: whether a backbone loads trained weights that it starts from; a checkpoint has the weights,
            and rank 0 has them for all ranks.

    Raises:
        UserError: shapes, device or data are at fault.
    """
    stages.reached("load")
    forget = kept_globals()
    require_trackers(recipe)
    devices.seed(torch.device("cpu"), derived_seed(recipe.seeds.init, "build"))  # a plug-in may draw
    with recipe.at("train", "device"):
        device = devices.resolve(recipe.train.device, ranks.local_rank)
    with opened_once():
        tried, header = build_and_try(recipe)
        require_room(recipe, tried, device)
        torch.set_num_threads(threads or devices.threads_of(recipe.train, tried.model))
        dataset = load_dataset(recipe, header)
    dataset = dataset.to(device)

    def new_trainer() -> Trainer:
        built = build(recipe, dataset.header, dataset.learned, trained=trained and ranks.rank == 0).to(device)
        built.model.to(memory_format=devices.memory_format(device))  # type: ignore[call-overload]
        return Trainer.create(recipe, built, dataset)

    trainer = new_trainer()
    rehearse(trainer)
    check_columns(recipe, trainer.built)
    if has_own_parts(recipe):
        del trainer  # one at a time is in memory
        require_same_rows(recipe, dataset)
        require_resumable(new_trainer, forget)
        forget()
        trainer = new_trainer()
    return trainer, device


def train(
    trainer: Trainer,
    folder: RunFolder,
    stream: Stream,
    ranks: Ranks = ALONE,
    parent: int | None = None,
    save_first: bool = False,
    report: bool = True,
) -> Result:
    """Run `fit` with logs, checkpoints and the record, and evaluate the test split at the end.

    A stop signal (SIGINT, SIGTERM, SIGHUP) is obeyed at the end of the current step, after a checkpoint. A listener
    that raises `Halted` ends the run in the same way.

    Args:
        trainer: a new trainer, or one that was restored from a checkpoint.
        folder: the run.
        stream: the listeners.
        ranks: the processes that train together; this one is rank 0.
        parent: the step that the run was resumed from, or None.
        save_first: commit a checkpoint before the first step, since the recipe alone does not reproduce the state.
        report: draw pictures and write `report.html` at the end.
    """
    folder.hold()
    try:
        with StopSignals() as stop:
            spread(trainer, ranks, folder.path)
            check = stop_of(ranks, stop)
            tracking = Tracking(trainer.recipe, folder, stream, parent)
            recorder = Recorder(trainer, folder, stream, parent, save_first, tracking.copy)
            everyone = Stream((recorder, tracking, stream))
            with tracking, _broken_off_in_order(trainer, recorder):
                everyone.on(Started(trainer, folder.path))
                for notice in trainer.notices:
                    everyone.on(Warned(notice))
                for notice in notices_on_ranks(trainer):
                    everyone.on(Noted(notice))
                check()
                for event in fit(trainer, check):
                    everyone.on(event)
                    check()
                trainer.ranks = ALONE  # the others wait
                finish(trainer, folder, recorder, stream, stop.check)
                stages.reached("plot")
                if report:
                    from mtl.report.plots import plot_run  # matplotlib takes half a second to load

                    tasks = trainer.recipe.tasks
                    plot_run(folder, {spec.headline for spec in tasks.values()}, units_of(tasks))
                    _write_report(folder, stream)
                stop.check()
                tracking.finish(stop.check)
    finally:
        folder.release()
    result = result_of(folder)
    selected = selected_of(trainer)
    record = result.record
    plugins, baselines = tuple(record.plugins), record.baselines or {}
    stream.on(Ended(result.metrics, selected.epoch, selected.step, baselines, plugins))
    ranks.end(result.to_text())
    return result


def _write_report(folder: RunFolder, stream: Stream) -> None:
    """Write the page of a finished run; a fault of it costs nothing but the page, which can be written again."""
    from mtl.report.page.write import write_run_report

    try:
        write_run_report(folder, ("finished", folder.record.step))
    except Exception as error:  # the run is finished and recorded, and its exit code must say so
        what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {quoted(str(error))}"
        text = f"no report is drawn: {what}; `mtl report {folder.path}` tries again"
        stream.on(Warned(text))


@contextmanager
def _broken_off_in_order(trainer: Trainer, recorder: Recorder) -> Iterator[None]:
    """Record an exception that ends the training early, and raise it in the form that the caller expects."""
    try:
        yield
    except StopAsked as asked:
        recorder.stopped()
        raise asked.as_interrupt() from None
    except Halted:
        recorder.stopped()
        raise
    except NotFinite as fault:
        recorder.diverged(fault)
        raise
    except RankLost as lost:
        raise RankLost("", lost.what, recorder.lost()) from None
    except KeyboardInterrupt as interrupt:
        if fault_of_plugin(interrupt) is None:
            recorder.broken_off()
        else:
            recorder.failed()
        raise
    except BaseException as error:
        recorder.failed()
        if is_out_of_memory(error) and not (isinstance(error, MemoryError) and fault_of_plugin(error)):
            raise memory_fault(trainer, error) from error
        raise


def result_of(folder: RunFolder) -> Result:
    """The result of a finished run."""
    return Result(folder.path, dict(folder.record.results), folder.record.model_copy(deep=True))
