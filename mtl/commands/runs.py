"""Commands about existing runs: results, predictions, lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtl.commands.options import (
    debug_option,
    load_plugins,
    plugin_option,
    run_argument,
    trained_device_option,
)
from mtl.commands.outcomes import require_torch
from mtl.console import complain, counted, file_size, number, say, table
from mtl.errors import UserError, quoted, without_paths

if TYPE_CHECKING:
    from mtl.inference.predict import TrainedModel
    from mtl.runs.folder import RunFolder
    from mtl.runs.listing import Listed

SHOWN_BROKEN = 5
"""Most broken run folders that `mtl runs` names one by one."""


@click.command("eval", help="Evaluate the selected weights of RUN again.")
@run_argument
@click.option("--split", help="train, validation or test.  [default: test]")
@click.option(
    "--data", metavar="FILE", help="Another table with labels, all of its rows, instead of a split."
)
@trained_device_option
@plugin_option
@debug_option
def evaluate(
    run_folder: str, split: str | None, data: str | None, device: str, plugins: tuple[str, ...], debug: bool
) -> None:
    load_plugins(plugins)
    if split is not None and data is not None:
        todo = f"leave out --split {quoted(split)}"
        raise UserError("--data", "all rows of the file are evaluated, so that there is no split", todo)
    model = _loaded(run_folder, device, data)
    from mtl.commands.results import say_results
    from mtl.inference.rescore import rescore

    shown = split or "test"
    metrics = rescore(model, shown, data, lambda notice: complain(f"warning: {notice}"))
    record = model.folder.record
    trained = {name: value for name, value in record.results.items() if name.startswith("train/")}
    beside = (record.baselines or {}) if data is None else {}
    heading = Path(data).name if data is not None else None
    stopped, path = bool(record.stopped_early), model.folder.path
    say_results(model.recipe.tasks, {**trained, **metrics}, beside, shown, stopped, path, heading)


@click.command(help="Predict for every row of a file: a column per task, and probabilities beside it.")
@run_argument
@click.option("--input", "data", required=True, metavar="FILE", help="CSV, Parquet or npz; needs no labels.")
@click.option("--output", required=True, metavar="FILE", help="CSV, Parquet or npz, by its suffix.")
@click.option(
    "--keep",
    multiple=True,
    metavar="A,B,...",
    help="Columns of the input to carry through; may be given several times. One that has the name of a prediction "
    "becomes NAME_given.",
)
@click.option("--force", is_flag=True, help="Overwrite.")
@click.option(
    "--spreadsheet-safe",
    is_flag=True,
    help="Put ' in front of texts of a CSV that a spreadsheet would run (=...).",
)
@trained_device_option
@plugin_option
@debug_option
def predict(
    run_folder: str,
    data: str,
    output: str,
    keep: tuple[str, ...],
    force: bool,
    spreadsheet_safe: bool,
    device: str,
    plugins: tuple[str, ...],
    debug: bool,
) -> None:
    load_plugins(plugins)
    from mtl.inference.writing import check_output, require_free, write_predictions

    target = check_output(output, data, spreadsheet_safe)
    model = _loaded(run_folder, device, data)
    require_free(target, Path(run_folder), force)
    from mtl.data.columns.unseen import notices

    unseen = model.feed.unseen()
    n_rows = write_predictions(model, data, output, keep, unseen, spreadsheet_safe)
    for notice in notices(unseen):
        complain(f"warning: {notice}")
    unknown = {name: count.n_unseen for name, count in unseen.items() if count.n_unseen}
    each = ", ".join(f"{name} {n:,}" for name, n in unknown.items())
    say(f"{output}: {counted(n_rows, 'row')}" + (f"; values not seen in training: {each}" if unknown else ""))


def _loaded(run_folder: str, device: str, data: str | None) -> TrainedModel:
    """The run as a predictor; if the run is not finished, a line on stderr says which weights are used.

    The run and the file `data` are looked for before torch is imported.
    """
    from mtl.data.files.parts import found_at
    from mtl.data.files.remote.fetch import local
    from mtl.runs.folder import RunFolder

    RunFolder.open(Path(run_folder))
    if data is not None:
        with without_paths():
            found_at(local(data))
    require_torch()
    from mtl.inference.predict import load

    model = load(run_folder, device)
    if model.notice is not None:
        complain(f"warning: {model.notice}")
    return model


@click.command(
    help="Write report.html of a run, or compare.html of a comparison, from its folder alone; prints its path."
)
@click.argument("folder", metavar="RUN|COMPARE")
@debug_option
def report(folder: str, debug: bool) -> None:
    require_torch()
    from mtl.report.page.write import write_report

    say(str(write_report(folder)))


@click.command(
    help="List the runs below ROOT (default: runs) with their status and mean result, the newest last."
)
@click.argument("root", required=False)
@debug_option
def runs(root: str | None, debug: bool) -> None:
    from mtl.runs.listing import list_runs

    if root is not None and not Path(root).is_dir():
        raise UserError(root, "is not a folder" if Path(root).exists() else "no such folder")
    broken: list[UserError] = []
    found = list_runs(Path(root or "runs"), broken.append)
    if found:
        head = ["run", "recipe", "status", "step", "test mean"]
        say(table(head, [_row_of(run) for run in found], left=3))
    elif not broken:
        say(f"no runs below {root}" if root else "no runs below runs; mtl runs DIR looks elsewhere")
    for error in broken[:SHOWN_BROKEN]:
        complain(f"warning: {error}")
    if len(broken) > SHOWN_BROKEN:
        complain(f"warning: {counted(len(broken) - SHOWN_BROKEN, 'more run folder')} cannot be read")


def _row_of(run: RunFolder) -> list[str]:
    status, step = run.standing()
    means = [
        f"{name.split('/')[-1]} {number(value)}"
        for name, value in run.record.results.items()
        if name.startswith("test/mean/")
    ]
    return [str(run.path), run.record.name, status, number(step), ", ".join(means)]


@click.command(help="List the checkpoints of RUN and read every byte of them: which are whole?")
@run_argument
@debug_option
def checkpoints(run_folder: str, debug: bool) -> None:
    from mtl.runs.folder import RunFolder
    from mtl.runs.listing import listed

    run = RunFolder.open(Path(run_folder))
    found = listed(run.checkpoints)
    if found:
        selected = run.record.selected.step if run.record.selected is not None else None
        rows = [
            [
                f"step-{one.step:08d}",
                _state_of(one, selected, run.record.id),
                one.created,
                file_size(one.size),
            ]
            for one in found
        ]
        say(table(["checkpoint", "state", "made", "size"], rows, left=3))
    else:
        say(f"no checkpoints in {run_folder}")
    for line in _remarks(run, found):
        say(line)


def _state_of(one: Listed, selected: int | None, own: str) -> str:
    other = ", of another run" if one.run_id not in ("", own) else ""
    return (one.fault or "whole") + (", selected" if one.step == selected else "") + other


def _remarks(run: RunFolder, found: list[Listed]) -> Iterator[str]:
    """Which checkpoint a resumed run starts from, and which ones only take up disk space."""
    (status, _), own = run.standing(), run.record.id
    whole = [one for one in found if not one.fault and one.run_id == own]
    if status not in ("finished", "running"):
        start = f"step-{whole[-1].step:08d} is the newest whole one" if whole else "none is whole"
        start = start if found else "nothing is saved"
        goes_on = f"; `mtl run --resume {run.path}` goes on" if whole or not found else ""
        yield f"{status}: {start}{goes_on}"
    for one in found:
        if one.run_id != own:
            yield f"step-{one.step:08d} is never deleted: it does not say that it is of this run"
    from mtl.runs.retention import set_aside_folders

    for path, size in set_aside_folders(run.checkpoints):
        yield f"{path.name} was set aside ({file_size(size)}): nothing reads it, delete it when you like"
