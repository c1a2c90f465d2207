"""`mtl run` trains a recipe, resumes a run, or says what it would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtl.commands.options import (
    DEVICES,
    debug_option,
    is_override,
    load_plugins,
    overrides_argument,
    plugin_option,
)
from mtl.commands.outcomes import require_torch
from mtl.console import counted, rows_of_splits, say
from mtl.distributed.alone import Ranks
from mtl.distributed.join import joined
from mtl.distributed.launch import place_of_process
from mtl.errors import UserError, quoted

if TYPE_CHECKING:
    from mtl.recipe.keys.recipe import Recipe
    from mtl.training.trainer import Trainer


@click.command(help="Train RECIPE and write a run folder.")
@click.argument("recipe", required=False)
@overrides_argument
@click.option("--out", metavar="DIR", help="The run folder itself; default runs/RECIPE/UTC-SUFFIX.")
@click.option("--resume", metavar="RUN", help="Go on with a run; 'auto' with --out: if there is one.")
@click.option(
    "--dry-run", is_flag=True, help="Make every check of a run, and say what it would do; write nothing."
)
@click.option("--device", metavar="NAME", help=DEVICES)
@click.option("--quiet", is_flag=True, help="Only warnings and the final table.")
@click.option("--extend-schedule", is_flag=True, help="With --resume and more epochs: stretch the schedule.")
@click.option("--allow-nonfinite", is_flag=True, help="With --resume: take weights that are NaN or infinite.")
@click.option("--require-bitwise", is_flag=True, help="With --resume: refuse another version or machine.")
@click.option("--no-report", is_flag=True, help="Draw no pictures and write no report.html at the end.")
@plugin_option
@debug_option
def run(
    recipe: str | None,
    overrides: tuple[str, ...],
    out: str | None,
    resume: str | None,
    dry_run: bool,
    device: str | None,
    quiet: bool,
    extend_schedule: bool,
    allow_nonfinite: bool,
    require_bitwise: bool,
    no_report: bool,
    plugins: tuple[str, ...],
    debug: bool,
) -> None:
    options = {
        "extend_schedule": extend_schedule,
        "allow_nonfinite": allow_nonfinite,
        "require_bitwise": require_bitwise,
    }
    if device is not None:
        overrides = (*overrides, f"train.device={device}")
    if recipe is not None and is_override(recipe) and resume is not None:
        overrides, recipe = (recipe, *overrides), None
    if place_of_process() is not None:
        require_torch()
    with joined() as ranks:
        loaded_plugins = ranks.agreed(lambda: load_plugins(plugins))
        folder = ranks.agreed(lambda: _run_to_resume(recipe, out, resume))
        folder = ranks.all_told(folder)[0]  # rank 0 has the folder, other machines may lack it
        if folder is None:
            ranks.agreed(lambda: _require_recipe(recipe, resume, options))
        if ranks.n > 1 and dry_run:
            raise UserError(
                "--dry-run", f"{ranks.n} processes would all say the same", "start it without torchrun"
            )
        if (
            recipe is None
            and folder is not None
            and _train_chain(folder, overrides, quiet, loaded_plugins, dry_run, not no_report, ranks)
        ):
            return
        go_on = resume == "auto"
        _train(
            recipe,
            overrides,
            out,
            folder,
            quiet,
            loaded_plugins,
            options,
            dry_run,
            not no_report,
            go_on,
            ranks,
        )


def _require_recipe(recipe: str | None, resume: str | None, options: Mapping[str, bool]) -> None:
    """Refuse a new run without a recipe, or with an option of a run that goes on.

    Raises:
        UserError: see above.
    """
    if recipe is None or is_override(recipe):
        todo = "give a path or a built-in name; mtl ls lists them"
        raise UserError("mtl run", "a recipe is missing", todo)
    if resume is None and (given := [name for name, given in options.items() if given]):
        name = given[0].replace("_", "-")
        raise UserError(f"--{name}", "is for a run that goes on", "add --resume RUN")


def _run_to_resume(recipe: str | None, out: str | None, resume: str | None) -> str | None:
    """The folder of the run that is to be resumed; None for a new run."""
    if resume == "auto":
        if out is None:
            raise UserError("--resume auto", "needs the folder of the run", "add --out DIR")
        return out if Path(out, "run.json").exists() else None
    if resume is not None and recipe is not None:
        raise UserError("--resume", "a run has its own recipe", f"leave out {quoted(recipe)}")
    if resume is not None and out is not None:
        raise UserError("--resume", "a run goes on in its own folder", f"leave out --out {quoted(out)}")
    return resume


def _train(
    recipe: str | None,
    overrides: Sequence[str],
    out: str | None,
    resume: str | None,
    quiet: bool,
    plugins: Sequence[str],
    options: Mapping[str, bool],
    dry_run: bool,
    report: bool,
    go_on: bool,
    ranks: Ranks,
) -> None:
    # text, place and columns are checked before torch is imported, so that their errors come at once
    loaded = ranks.agreed(lambda: _loaded(recipe, overrides, resume, None if go_on else out))
    require_torch()
    from mtl.commands.watch import TrainingConsole
    from mtl.experiment import resume as resuming
    from mtl.experiment import run as experiment
    from mtl.experiment.reopen import Resumption

    console = TrainingConsole(quiet)
    try:
        if resume is None:
            assert loaded is not None
            place = Path(out) if out is not None else None
            if loaded.phases:
                _require_alone(ranks)
                from mtl.phases import foretell_chain, run_chain

                if dry_run:
                    say("\n\n".join(map(_foretold, foretell_chain(loaded, place))))
                    return
                run_chain(loaded, place, plugins, (console,), report=report, go_on=go_on)
                return
            if dry_run:
                say(_foretold(experiment.foretell(loaded, out, (console,))))
                return
            experiment.run(loaded, out=out, plugins=plugins, listeners=(console,), report=report)
            return
        asked = Resumption(Path(resume), overrides, loaded, plugins, **options, report=report)
        if dry_run:
            say("\n".join(resuming.foretell(asked, (console,))))
        else:
            resuming.go_on(asked, (console,))
    finally:
        console.close()


def _loaded(
    recipe: str | None, overrides: Sequence[str], resume: str | None, out: str | None
) -> Recipe | None:
    """The recipe if one is given; where a run would begin, its place and its columns are looked at too."""
    from mtl.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides) if recipe is not None else None
    if resume is None and loaded is not None:
        from mtl.dataset.header import checked_header
        from mtl.runs.folder import require_unused

        if out is not None:
            with suppress(OSError):  # making the folder says what is wrong with its path
                require_unused(Path(out))
        checked_header(loaded)
    return loaded


def _train_chain(
    folder: str,
    overrides: Sequence[str],
    quiet: bool,
    plugins: Sequence[str],
    dry_run: bool,
    report: bool,
    ranks: Ranks,
) -> bool:
    """Go on with the phases in a folder; False if it holds none."""
    from mtl.runs.folder import is_chain

    if not is_chain(Path(folder)):
        return False
    _require_alone(ranks)
    if dry_run:
        raise UserError("--dry-run", "looks at one run, and these are the phases of a recipe", "leave it out")
    if overrides:
        raise UserError(
            "--resume", "the phases of a recipe go on as they are", f"leave out {quoted(overrides[0])}"
        )
    require_torch()
    from mtl.commands.watch import TrainingConsole
    from mtl.phases import resume_chain

    console = TrainingConsole(quiet)
    try:
        resume_chain(Path(folder), plugins, (console,), report=report)
    finally:
        console.close()
    return True


def _require_alone(ranks: Ranks) -> None:
    """Refuse several processes for a recipe with phases.

    Raises:
        UserError: there are several.
    """
    if ranks.n > 1:
        what = f"they train in one process each, and torchrun has started {ranks.n}"
        raise UserError("phases", what, "start mtl run without torchrun")


def _foretold(trainer: Trainer) -> str:
    """The summary of a run that would begin: its network, rows, steps and device."""
    import torch

    from mtl.report.summary import summarize

    rows = rows_of_splits(trainer.dataset.splits)
    steps, epochs = counted(trainer.total_steps, "step"), counted(trainer.epochs, "epoch")
    network = trainer.built.to(torch.device("meta"))
    summary = summarize(trainer.recipe, network, trainer.dataset.header)
    return f"{summary}\n\nwould train for {steps} in {epochs} on {trainer.device}; {rows}"
