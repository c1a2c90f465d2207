"""What a user asks of a sweep, and what a person who watches it hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mtl.comparison.processes.pool import Report
from mtl.recipe.keys.recipe import Recipe


@dataclass(frozen=True)
class Asked:
    """What a user asks of a sweep.

    Args:
        recipe: the recipe with `tune`.
        trials: how many trials the study has in the end, those of earlier commands and other processes included.
        storage: the URL of Optuna's storage; None: a file of SQLite in the folder.
        jobs: trials at the same time; None: as many as there are cores, at most eight.
        out: the folder; None: `runs/<recipe>/tune-<digest>`.
        plugins: plug-ins that were loaded.
        on: `ray` or `ray://HOST:PORT`, whose machines make the trials; None: this machine does.
    """

    recipe: Recipe
    trials: int
    storage: str | None = None
    jobs: int | None = None
    out: Path | None = None
    plugins: Sequence[str] = ()
    on: str | None = None


@dataclass(frozen=True)
class Announced:
    """A sweep that is about to begin, or to go on.

    Args:
        asked: the request.
        folder: its folder.
        study: the name of its study.
        storage: the storage, without a password.
        metric: the validation metric that chooses.
        higher: whether more of it is better.
        n_done: trials that have ended, or run in other processes.
        jobs: trials at the same time.
        threads: of each trial.
        notices: facts about the data.
        where: the machines in words; empty for this one.
    """

    asked: Asked
    folder: Path
    study: str
    storage: str
    metric: str
    higher: bool
    n_done: int
    jobs: int
    threads: int
    notices: Sequence[str]
    where: str = ""


class Watcher(Protocol):
    """A person who watches a sweep."""

    def begins(self, announced: Announced) -> None:
        """Trials are about to begin."""

    def reports(self, report: Report) -> None:
        """A trial is at some step, or has ended."""

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
