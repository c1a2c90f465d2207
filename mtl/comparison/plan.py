"""The runs of a comparison: arms times seeds, each with its recipe and its folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mtl.comparison.arms.arm import Arm, changed
from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.keys.tune import grid_of
from mtl.recipe.tuned import require_setting

Selection = Literal["last", "best_of_each"]
ENDS_AT = 0.05
"""A schedule whose last factor is at most this ends at zero: its last step is as good a choice as any."""
KEPT = 2
"""Checkpoints that a run of a comparison keeps beside its best ones."""
SAVED_EVERY = 2.0
"""Minutes after which a run of a comparison saves; most are over before."""
IN_WORDS: dict[Selection, str] = {
    "last": "last step",
    "best_of_each": "best step of each task by validation",
}


@dataclass(frozen=True)
class Steps:
    """How long the compared recipe trains, which every arm has in common.

    Args:
        total: optimizer steps.
        per_epoch: optimizer steps of one epoch.
    """

    total: int
    per_epoch: int


@dataclass(frozen=True)
class Settings:
    """What the runs of a comparison have in common.

    Args:
        selection: which step counts.
        threads: of each run.
        resample: whether each seed splits the rows anew.
        common: overrides of every arm, such as a part of the labels.
    """

    selection: Selection
    threads: int
    resample: bool = False
    common: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Args:
        arm: the name of its arm.
        part: the task whose results it gives; empty for all tasks.
        seed: what varies between the runs of an arm.
        folder: the run folder.
        recipe: what it trains.
    """

    arm: str
    part: str
    seed: int
    folder: Path
    recipe: Recipe

    @property
    def name(self) -> str:
        """What a line of progress calls it."""
        return f"{self.arm}{f' ({self.part})' if self.part else ''}, seed {self.seed}"


def selection_of(recipe: Recipe, has_validation: bool, total_steps: int) -> Selection:
    """The last step where the schedule ends at zero or no validation split can choose; else each task's best step."""
    ends_at_zero = recipe.schedule.factor(total_steps - 1, total_steps) <= ENDS_AT
    return "last" if ends_at_zero or not has_validation else "best_of_each"


def require_comparable(recipe: Recipe) -> None:
    """Refuse a recipe that a comparison cannot be fair to.

    Raises:
        UserError: the recipe looks at its test split while it trains, is a chain of runs, or tunes over a range.
    """
    if recipe.phases:
        with recipe.at("phases"):
            raise UserError(
                "", "an arm is one run, and these are several", "compare the recipe of one phase: ~phases"
            )
    if recipe.train.monitor == "test":
        with recipe.at("train", "monitor"):
            what = "a comparison reads the test split once, at the end of each run"
            raise UserError("", what, "take this key out: ~train.monitor")
    for key in recipe.tune:
        with recipe.at("tune", key):
            require_setting(key)
    for key in recipe.tune.keys() - grid_of(recipe.tune).keys():
        with recipe.at("tune", key):
            what = "a comparison tries every value for every arm, and a range has too many"
            raise UserError("", what, "list the values, or find one first: mtl tune")


def planned(
    recipe: Recipe, arms: Sequence[Arm], seeds: Sequence[int], settings: Settings, steps: Steps, folder: Path
) -> list[PlannedRun]:
    """All runs, seed by seed, so that a comparison which is broken off has whole seeds.

    Args:
        recipe: the compared recipe.
        arms: its arms.
        seeds: what varies.
        settings: what does not.
        steps: how long the recipe trains.
        folder: the folder of the comparison.
    """
    return [
        run for seed in seeds for arm in arms for run in _runs(recipe, arm, seed, settings, steps, folder)
    ]


def _runs(
    recipe: Recipe, arm: Arm, seed: int, settings: Settings, steps: Steps, folder: Path
) -> Iterator[PlannedRun]:
    if not arm.is_network:
        return
    for part, changes in arm.parts().items():
        own = (*settings.common, *changes, *_pinned(recipe, seed, settings), *_settings(recipe, settings))
        own += _same_steps(recipe, steps) if "data.drop_unlabelled=true" in changes else ()
        own += _permuted_anew(changes, seed)
        path = folder / "runs" / arm.folder / part / f"seed-{seed}"
        made = changed(arm.recipe or recipe, own)
        require_comparable(made)
        yield PlannedRun(arm.name, part, seed, path, made)


def _pinned(recipe: Recipe, seed: int, settings: Settings) -> tuple[str, ...]:
    """Initial weights, order and dropout vary; the split and generated data do not, unless they are to vary too."""
    base = recipe.seeds
    split = base.split + (seed if settings.resample else 0)
    return (
        f"seed={{init: {base.init + seed}, order: {base.order + seed}, split: {split}, labels: {base.labels}}}",
    )


def _settings(recipe: Recipe, settings: Settings) -> tuple[str, ...]:
    return (
        f"train.select={settings.selection}",
        *(("~tune",) if recipe.tune else ()),
        *(("~trackers",) if recipe.trackers else ()),  # a tracker per run would show many runs of little use
        f"train.threads={settings.threads}",
        f"train.checkpoint={{every: {{minutes: {SAVED_EVERY}}}, keep: {KEPT}}}",
    )


def _same_steps(recipe: Recipe, steps: Steps) -> tuple[str, ...]:
    """As many steps, and evaluations after as many steps, as the compared recipe has, on fewer rows."""
    every = recipe.train.evaluate_every
    between = every.steps or (every.epochs or 1) * steps.per_epoch
    return (
        *(() if recipe.train.epochs is None else ("~train.epochs",)),
        f"train.max_steps={steps.total}",
        f"train.evaluate_every={{steps: {between}}}",
        *(
            ("train.batches.min_labelled={}",) if recipe.train.batches.min_labelled else ()
        ),  # every row has the label
    )


def _permuted_anew(changes: Sequence[str], seed: int) -> tuple[str, ...]:
    """A control has another permutation for each seed, so that no single one decides."""
    if not any(change.startswith("data.permute_labels=") for change in changes):
        return ()
    return (f"data.permute_labels.seed={seed}",)
