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
from mtl.console import complain, number, say, table
from mtl.errors import UserError

if TYPE_CHECKING:
    from mtl.inference.predict import TrainedModel
    from mtl.runs.checkpoint import Listed
    from mtl.runs.folder import RunFolder

SHOWN_BROKEN = 5
"""Most broken run folders that `mtl runs` names one by one."""


@click.command("eval")
@run_argument
@click.option("--split", default="test", show_default=True, help="train, validation or test.")
@click.option(
    "--data", metavar="FILE", help="Another table with labels, all of its rows, instead of a split."
)
@trained_device_option
@plugin_option
@debug_option
def evaluate(
    run_folder: str, split: str, data: str | None, device: str, plugins: tuple[str, ...], debug: bool
) -> None:
    """Evaluate the selected weights of RUN again."""
    load_plugins(plugins)
    model = _loaded(run_folder, device)
    metrics = model.evaluate(split, data)
    from mtl.commands.results import say_results

    record = model.folder.record
    trained = {name: value for name, value in record.results.items() if name.startswith("train/")}
    if data is not None:
        say_results(model.recipe.tasks, {**trained, **metrics}, {}, "test")
    else:
        say_results(model.recipe.tasks, {**trained, **metrics}, record.baselines or {}, split)


@click.command()
@run_argument
@click.option("--input", "data", required=True, metavar="FILE", help="CSV, Parquet or npz; needs no labels.")
@click.option("--output", required=True, metavar="FILE", help="CSV, Parquet or npz, by its suffix.")
@click.option("--keep", multiple=True, metavar="COLUMN", help="A column of the input to carry through.")
@trained_device_option
@plugin_option
@debug_option
def predict(
    run_folder: str,
    data: str,
    output: str,
    keep: tuple[str, ...],
    device: str,
    plugins: tuple[str, ...],
    debug: bool,
) -> None:
    """Predict for every row of a file: a column per task, and probabilities beside it."""
    load_plugins(plugins)
    model = _loaded(run_folder, device)
    from mtl.inference.writing import write_predictions

    n_rows = write_predictions(model, data, output, keep)
    say(f"{output}: {n_rows:,} rows")


def _loaded(run_folder: str, device: str) -> TrainedModel:
    """The run as a predictor; if the run is not finished, a line on stderr says which weights are used."""
    require_torch()
    from mtl.inference.predict import load

    model = load(run_folder, device)
    if model.notice is not None:
        complain(f"warning: {model.notice}")
    return model


@click.command()
@click.argument("root", required=False)
@debug_option
def runs(root: str | None, debug: bool) -> None:
    """List the runs below ROOT (default: runs) with their status and mean result, the newest last."""
    from mtl.runs.listing import list_runs

    if root is not None and not Path(root).is_dir():
        raise UserError(root, "is not a folder" if Path(root).exists() else "no such folder")
    broken: list[UserError] = []
    found = list_runs(Path(root or "runs"), broken.append)
    if found:
        head = ["run", "recipe", "status", "step", "test mean"]
        say(table(head, [_row_of(run) for run in found], left=3))
    elif not broken:
        say(f"no runs below {root or 'runs'}")
    for error in broken[:SHOWN_BROKEN]:
        complain(f"warning: {error}")
    if len(broken) > SHOWN_BROKEN:
        complain(f"warning: {len(broken) - SHOWN_BROKEN} more run folders cannot be read")


def _row_of(run: RunFolder) -> list[str]:
    status, step = run.standing()
    means = [
        f"{name.split('/')[-1]} {number(value)}"
        for name, value in run.record.results.items()
        if name.startswith("test/mean/")
    ]
    return [str(run.path), run.record.name, status, str(step), ", ".join(means)]


@click.command()
@run_argument
@debug_option
def checkpoints(run_folder: str, debug: bool) -> None:
    """List the checkpoints of RUN and read every byte of them: which are whole?"""
    from mtl.runs.checkpoint import listed
    from mtl.runs.folder import RunFolder

    run = RunFolder.open(Path(run_folder))
    found = listed(run.checkpoints)
    if found:
        selected = run.record.selected.step if run.record.selected is not None else None
        rows = [
            [
                f"step-{one.step:08d}",
                _state_of(one, selected, run.record.id),
                one.created,
                f"{one.size / 2**20:,.2f}",
            ]
            for one in found
        ]
        say(table(["checkpoint", "state", "made", "MB"], rows, left=3))
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
        yield f"{path.name} was set aside ({size / 2**20:,.2f} MB): nothing reads it, delete it when you like"
