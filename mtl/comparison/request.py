"""What a user asks of a comparison, and what a person who watches it hears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mtl.comparison.arms.arm import Arm
from mtl.comparison.plan import PlannedRun, Settings
from mtl.comparison.processes.pool import Report
from mtl.recipe.keys.recipe import Recipe


@dataclass(frozen=True)
class Asked:
    """What a user asks of a comparison.

    Args:
        recipe: the compared recipe.
        arms: names of arms; empty for the default ones.
        seeds: what varies; the first one adds 0 to the recipe's own seeds.
        jobs: runs at the same time; None: as many as there are cores, at most eight.
        budget: seconds after which no further run begins; None: no limit.
        at_most: the number of seeds at which this comparison ends at the latest, said before it is looked at.
        resample: whether each seed splits the rows anew.
        confirm: whether the leading arm is run again on fresh seeds.
        predictions: name -> the file of predictions from elsewhere.
        common: overrides of every arm.
        few: a task whose labels were thinned out, so that each batch is sure to have some of them.
        out: the folder; None: `runs/<recipe>/compare-<digest>`.
        plugins: plug-ins that were loaded.
        on: `ray` or `ray://HOST:PORT`, whose machines make the runs; None: this machine does.
    """

    recipe: Recipe
    arms: Sequence[str] = ()
    seeds: Sequence[int] = tuple(range(5))
    jobs: int | None = None
    budget: float | None = None
    at_most: int | None = None
    resample: bool = False
    confirm: bool = False
    predictions: Mapping[str, str] = field(default_factory=dict)
    common: tuple[str, ...] = ()
    few: str | None = None
    out: Path | None = None
    plugins: Sequence[str] = ()
    on: str | None = None


@dataclass(frozen=True)
class Announced:
    """A comparison that is about to begin.

    Args:
        folder: its folder.
        arms: its arms.
        runs: all its runs.
        n_done: how many of them are finished already.
        seconds: the expected seconds of the others.
        jobs: runs at the same time.
        asked: the request.
        settings: what the runs have in common.
        notices: facts about the data.
        n_others: references that are made beside the runs.
        trials: whether these runs only choose the settings of the arms.
        where: the machines in words; empty for this one.
    """

    folder: Path
    arms: Sequence[Arm]
    runs: Sequence[PlannedRun]
    n_done: int
    seconds: float
    jobs: int
    asked: Asked
    settings: Settings
    notices: Sequence[str]
    n_others: int = 0
    trials: bool = False
    where: str = ""


class Watcher(Protocol):
    """A person who watches a comparison."""

    def begins(self, announced: Announced) -> None:
        """Runs are about to begin."""

    def reports(self, report: Report) -> None:
        """A run is at some step, or has ended."""

    def says(self, line: str) -> None:
        """A fact that the person should know."""


class Silent:
    """A watcher that says nothing."""

    def begins(self, announced: Announced) -> None:
        """Ignore the beginning."""

    def reports(self, report: Report) -> None:
        """Ignore a report."""

    def says(self, line: str) -> None:
        """Ignore a fact."""
