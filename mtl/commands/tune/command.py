"""`mtl tune` looks for the settings of a recipe that are best on validation."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from mtl.commands.options import (
    debug_option,
    load_plugins,
    overrides_argument,
    plugin_option,
    recipe_argument,
)
from mtl.commands.outcomes import require_torch
from mtl.console import complain, forgiving

MOST_TRIALS = 100_000


@click.command(help="Which settings are best? Try those below `tune` in RECIPE; validation judges.")
@recipe_argument
@overrides_argument
@click.option(
    "--trials",
    type=click.IntRange(1, MOST_TRIALS),
    default=40,
    show_default=True,
    help="Trials in all, those of earlier commands and other processes included.",
)
@click.option("--storage", metavar="URL", help="Optuna's storage: sqlite:///sweep.db; default in the folder.")
@click.option(
    "--jobs", type=click.IntRange(1, 256), help="Trials at once; default: one for each core, at most 8."
)
@click.option("--on", metavar="RAY", help="ray or ray://HOST:PORT: make the trials on a Ray cluster.")
@click.option("--out", metavar="DIR", help="The folder; default runs/RECIPE/tune-DIGEST.")
@click.option("--quiet", is_flag=True, help="Only the outcome.")
@plugin_option
@debug_option
def tune(
    recipe: str,
    overrides: tuple[str, ...],
    trials: int,
    storage: str | None,
    jobs: int | None,
    on: str | None,
    out: str | None,
    quiet: bool,
    plugins: tuple[str, ...],
    debug: bool,
) -> None:
    from mtl.comparison.processes.machines import require_machines
    from mtl.recipe.load import load_recipe
    from mtl.tuning.checks import require_sweep
    from mtl.tuning.request import Asked

    loaded_plugins = load_plugins(plugins)
    place = None if out is None else Path(out)
    asked = Asked(load_recipe(recipe, overrides), trials, storage, jobs, place, loaded_plugins, on)
    require_sweep(asked)
    require_machines(on)
    require_torch()  # what follows loads it, which takes seconds
    from mtl.commands.tune.console import TuneConsole
    from mtl.tuning.conduct import conduct

    console = TuneConsole(quiet)
    try:
        with forgiving([]):  # the outcome is in the folder too
            outcome = conduct(asked, console)
    except KeyboardInterrupt:
        complain("the same command goes on with this sweep; what is finished stays")
        raise
    finally:
        console.close()
    needed = "".join(f" --plugin {shlex.quote(name)}" for name in loaded_plugins)
    console.outcome(outcome, f"mtl run {shlex.quote(str(outcome.recipe))}{needed}")
