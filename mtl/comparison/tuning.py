"""A small grid of settings, `tune:` in the recipe, is tried for every arm alike, and validation chooses."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl.comparison.arms.arm import Arm, changed
from mtl.comparison.plan import PlannedRun, Settings, Steps, planned
from mtl.comparison.results import collect
from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.keys.tune import grid_of

SEED = 1000
"""Added to the recipe's seeds in trials, so that no compared run repeats one of them."""


@dataclass(frozen=True)
class Trial:
    """One setting of one arm.

    Args:
        arm: the arm with this setting; its name is that of the arm and the number of the trial.
        of: the name of the arm.
        changes: the overrides of the setting.
    """

    arm: Arm
    of: str
    changes: tuple[str, ...]


def trials_of(recipe: Recipe, arms: Sequence[Arm]) -> list[Trial]:
    """Every setting of the grid for every network; a key that an arm does not have is left out for it.

    So an arm without a key has fewer different settings, and no arm has more tries than the grid has.

    Raises:
        UserError: no arm has a key of the grid.
    """
    found: list[Trial] = []
    used: set[str] = set()
    grid = grid_of(recipe.tune)
    for arm in arms:
        if not arm.is_network:
            continue
        own = {key: values for key, values in grid.items() if _has(recipe, arm, key, values[0])}
        used |= own.keys()
        grids = [[f"{key}={json.dumps(value)}" for value in values] for key, values in own.items()]
        for i, changes in enumerate(itertools.product(*grids)):
            made = replace(
                arm,
                name=f"{arm.name} trial {i + 1}",
                what=", ".join(changes) or "the settings of the recipe",
                changes=(*arm.changes, *changes),
            )
            found.append(Trial(made, arm.name, changes))
    for key in grid:
        if key not in used:
            with recipe.at("tune", key):
                raise UserError("", "is a key of no arm", "name a key as on the command line: optimizer.lr")
    return found


def _has(recipe: Recipe, arm: Arm, key: str, value: Any) -> bool:
    """Whether the recipe of an arm takes a key."""
    try:
        for changes in arm.parts().values():
            changed(arm.recipe or recipe, (*changes, f"{key}={json.dumps(value)}"))
    except UserError:
        return False
    return True


def trial_runs(
    recipe: Recipe, trials: Sequence[Trial], settings: Settings, steps: Steps, folder: Path
) -> list[PlannedRun]:
    """The runs of all trials, one seed each."""
    return planned(recipe, [trial.arm for trial in trials], [SEED], settings, steps, folder / "tuning")


def tuned(
    recipe: Recipe, arms: Sequence[Arm], trials: Sequence[Trial], runs: Sequence[PlannedRun], folder: Path
) -> tuple[list[Arm], dict[str, list[dict[str, Any]]]]:
    """Each arm with the setting that is best on validation, and the history of its trials.

    The best setting has the highest mean over tasks of (v - m) / s, with v the headline metric on validation, oriented
    so that more is better, and m and s its mean and standard deviation over the trials of the arm.
    """
    found = collect(recipe, [trial.arm for trial in trials], runs, [SEED], folder)
    history: dict[str, list[dict[str, Any]]] = {}
    chosen: dict[str, Trial] = {}
    for name in dict.fromkeys(trial.of for trial in trials):
        own = [trial for trial in trials if trial.of == name]
        values = [{task: v[0] for task, v in found.arms[trial.arm.name].validation.items()} for trial in own]
        best = max(range(len(own)), key=lambda i: _scores(recipe, values)[i])
        chosen[name] = own[best]
        history[name] = [
            {"changes": list(trial.changes), "validation": values[i], "chosen": i == best}
            for i, trial in enumerate(own)
        ]
    return [
        replace(arm, changes=(*arm.changes, *chosen[arm.name].changes)) if arm.name in chosen else arm
        for arm in arms
    ], history


def _scores(recipe: Recipe, values: Sequence[Mapping[str, float | None]]) -> list[float]:
    """The mean over tasks of the standardized values; a trial without a value of a task comes last."""
    scores = [0.0] * len(values)
    for task in values[0]:
        sign = 1.0 if recipe.tasks[task].higher_is_better else -1.0
        column = [own[task] for own in values]
        known = [sign * value for value in column if value is not None]
        middle = statistics.fmean(known) if known else 0.0
        spread = statistics.pstdev(known) if known else 0.0
        for i, value in enumerate(column):
            if value is None:
                scores[i] = float("-inf")
            elif spread > 0:
                scores[i] += (sign * value - middle) / spread
    return scores
