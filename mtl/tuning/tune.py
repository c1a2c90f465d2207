"""`mtl.tune`: a sweep from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.tuning.conduct import conduct
from mtl.tuning.outcome import Outcome
from mtl.tuning.request import Asked


def tune(
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    trials: int = 40,
    storage: str | None = None,
    jobs: int | None = None,
    out: str | os.PathLike[str] | None = None,
    plugins: Sequence[str] = (),
    on: str | None = None,
) -> Outcome:
    """Try the settings below `tune` of a recipe, and write the best recipe; docs/tuning.md explains it.

    Args:
        recipe: a checked recipe, a path, the name of a built-in recipe, or a mapping.
        overrides: `key.sub=value`, as on the command line; not with a checked recipe.
        trials: how many there are in the end, those of earlier calls and other processes included.
        storage: the URL of Optuna's storage; by default a file of SQLite in the folder.
        jobs: trials at the same time, each in a process of its own; by default one for each core, at most eight.
        out: the folder; by default `runs/<recipe>/tune-<digest>`. The same request goes on with what is there.
        plugins: the plug-in files that each process loads.
        on: `ray` or `ray://HOST:PORT`: the machines of a Ray cluster make the trials, and share the folder.

    Raises:
        UserError: the recipe, a setting or the data are at fault, or no trial has a result.
    """
    made = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    place = None if out is None else Path(out)
    return conduct(Asked(made, trials, storage, jobs, place, tuple(plugins), on))
