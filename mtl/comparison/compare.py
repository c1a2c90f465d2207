"""`mtl.compare`: a comparison from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.comparison.conduct import conduct
from mtl.comparison.request import Asked
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Args:
        path: its folder.
        outcome: the content of its compare.json.
    """

    path: Path
    outcome: Mapping[str, Any]

    @property
    def summary(self) -> list[str]:
        """The answer, in sentences."""
        return list(self.outcome["summary"])

    @property
    def verdicts(self) -> dict[str, str]:
        """Task -> `better`, `ahead`, `worse`, `equivalent`, `identical` or `cannot tell`."""
        return {task: own["verdict"] for task, own in self.outcome["tasks_verdict"].items()}


def compare(
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    arms: Sequence[str] = (),
    seeds: int = 5,
    jobs: int | None = None,
    budget: float | None = None,
    confirm: bool = False,
    predictions: Mapping[str, str] | None = None,
    out: str | os.PathLike[str] | None = None,
    plugins: Sequence[str] = (),
    on: str | None = None,
) -> Comparison:
    """Train arms of a recipe with several seeds, and judge whether sharing helps; docs/comparing.md explains it.

    Args:
        recipe: a checked recipe, a path, the name of a built-in recipe, or a mapping.
        overrides: `key.sub=value`, as on the command line; not with a checked recipe.
        arms: the arms, as in `--arms`; by default single, hard, sharing, and sterile of the scarcest task.
        seeds: how many.
        jobs: runs at the same time, each in a process of its own; by default one for each core, at most eight.
        budget: seconds after which no further run begins.
        confirm: run the leading arm again on fresh seeds, and judge by these.
        predictions: name -> a file with predictions of another program.
        out: the folder; by default `runs/<recipe>/compare-<digest>`. The same request goes on with what is there.
        plugins: the plug-in files that each process loads.
        on: `ray` or `ray://HOST:PORT`: the runs are made on a Ray cluster; docs/clusters.md explains it.

    Raises:
        UserError: the recipe, an arm or the data are at fault, or a run was refused.
    """
    made = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    asked = Asked(
        made,
        tuple(arms),
        tuple(range(seeds)),
        jobs,
        budget,
        confirm=confirm,
        predictions=dict(predictions or {}),
        out=None if out is None else Path(out),
        plugins=tuple(plugins),
        on=on,
    )
    folder, outcome = conduct(asked)
    return Comparison(folder, outcome)
