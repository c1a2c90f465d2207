"""One comparison, from a recipe to a verdict: its arms are planned, run, read and judged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import torch

from mtl.build import build
from mtl.compare.arms import Arm, Facts, arms_of, changed, default_arms
from mtl.compare.memory import Confirmation, Memory, read_memory
from mtl.compare.outcome import outcome_of, write_outcome
from mtl.compare.plan import PlannedRun, Settings, Steps, planned, require_comparable, selection_of
from mtl.compare.references.make import read_reference
from mtl.compare.results import collect, standing, whole_seeds
from mtl.compare.workers import Job, Report, Workers
from mtl.errors import UserError, quoted
from mtl.experiment.run import prepare
from mtl.recipe.keys.recipe import Recipe
from mtl.runs.disk import make_folder
from mtl.signals import undoing
from mtl.training import devices
from mtl.training.step import train_step
from mtl.training.trainer import Trainer

MOST_JOBS = 8
"""Processes that run at once unless the user asks for more."""
TIMED = 3
"""Steps that are timed for the estimate of a comparison's length."""


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
        out: the folder; None: `runs/<recipe>/compare-<digest>`.
        plugins: plug-ins that were loaded.
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
    out: Path | None = None
    plugins: Sequence[str] = ()


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


def conduct(asked: Asked, watcher: Watcher | None = None) -> tuple[Path, dict[str, Any]]:
    """Make a comparison, or go on with it, and return its folder and the content of its compare.json.

    A finished run is not made again, and one that was broken off goes on. So the same request after a stop, a kill or
    a crash ends with the same compare.json.

    Raises:
        UserError: the recipe, an arm or the data are at fault, or a run was refused.
    """
    watcher = watcher or Silent()
    require_comparable(asked.recipe)
    with devices.settings(asked.recipe.train.deterministic, asked.recipe.train.threads):
        trainer, device = prepare(changed(asked.recipe, asked.common))
    folder = asked.out or Path("runs", asked.recipe.name, f"compare-{_sha256(asked)[:8]}")
    facts = facts_of(trainer)
    arms = arms_of(asked.recipe, asked.arms or default_arms(asked.recipe, facts), facts)
    arms += [_outside(name, path, arms) for name, path in asked.predictions.items()]
    jobs = asked.jobs or (1 if device.type != "cpu" else min(MOST_JOBS, cores()))
    memory = _memory(asked, folder, max(1, cores() // jobs))
    steps = Steps(trainer.total_steps, trainer.steps_per_epoch)
    selection = selection_of(asked.recipe, "validation" in trainer.dataset.splits, steps.total)
    settings = Settings(selection, memory.threads, asked.resample, asked.common)
    made = _Comparison(asked, folder, arms, settings, steps, jobs, memory, watcher)
    per_step, notices = _seconds_per_step(trainer), trainer.notices
    del trainer  # its rows and weights take memory that the runs need
    return folder, made.conduct(per_step, notices)


def _sha256(asked: Asked) -> str:
    """The digest of what all runs of a comparison have in common; a folder holds one such comparison."""
    resampled = "resampled split" if asked.resample else ""
    return hashlib.sha256((changed(asked.recipe, asked.common).sha256() + resampled).encode()).hexdigest()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts_of(trainer: Trainer) -> Facts:
    """The facts on which arms depend."""
    dataset, header = trainer.dataset, trainer.dataset.header

    def count(recipe: Recipe) -> int:
        with torch.device("meta"):
            built = build(recipe, header, dataset.learned)
        return sum(parameter.numel() for parameter in built.model.parameters())

    return Facts(
        n_labels={task: trainer.n_labels("train", task) for task in trainer.recipe.tasks},
        n_rows=len(dataset.splits["train"]),
        n_parameters=count,
        is_vector=len(header.input_shape) == 1,
    )


def _outside(name: str, path: str, arms: Sequence[Arm]) -> Arm:
    if any(arm.name == name for arm in arms):
        raise UserError("--predictions", f"there is an arm {quoted(name)} already", "give them another name")
    return Arm(name, f"predictions from elsewhere: {path}", "reference")


def _memory(asked: Asked, folder: Path, threads: int) -> Memory:
    """What the folder remembers, or the beginning of it.

    Raises:
        UserError: the folder holds another comparison.
    """
    sha256 = _sha256(asked)
    memory = read_memory(folder)
    if memory is None:
        return Memory(recipe_sha256=sha256, threads=threads, at_most=asked.at_most)
    if memory.recipe_sha256 != sha256:
        raise UserError(str(folder), "holds the comparison of another recipe", "give another --out")
    if asked.at_most is not None and memory.at_most != asked.at_most and memory.looks:
        raise UserError("--at-most", "is set before the first look at a comparison", "leave it out")
    return memory


def _seconds_per_step(trainer: Trainer) -> float:
    """The seconds of a training step of the compared recipe on this machine, as it is now."""
    trainer.built.model.train()
    rows = [trainer.dataset.splits["train"][: trainer.recipe.train.batch_size].copy()]
    meter = trainer.new_meter()
    with devices.settings(trainer.recipe.train.deterministic, 1):
        began = monotonic()
        for _ in range(TIMED):
            train_step(trainer, rows, meter)
        return (monotonic() - began) / TIMED


@dataclass
class _Comparison:
    """The state of one comparison while it is conducted."""

    asked: Asked
    folder: Path
    arms: list[Arm]
    settings: Settings
    steps: Steps
    jobs: int
    memory: Memory
    watcher: Watcher

    def conduct(self, per_step: float, notices: Sequence[str]) -> dict[str, Any]:
        """Make all runs, judge them, and confirm the leading arm if that was asked for."""
        make_folder(self.folder)
        self.memory.save(self.folder)
        seeds = self._made(self.arms, self.asked.seeds, per_step, notices)
        outcome = self._judged(seeds)
        if self.asked.confirm and outcome["leading"] is not None:
            outcome = self._confirmed(outcome, seeds, per_step)
        write_outcome(self.folder, outcome)
        return outcome

    def _made(
        self, arms: Sequence[Arm], seeds: Sequence[int], per_step: float, notices: Sequence[str]
    ) -> list[int]:
        """Make the open runs of some arms, and return the seeds of which all runs have ended."""
        runs = planned(self.asked.recipe, arms, seeds, self.settings, self.steps, self.folder)
        standings = {run.name: standing(run) for run in runs}
        jobs = [self._job(run) for run in runs if standings[run.name] == "open"] + self._references(arms)
        seconds = per_step * self.steps.total * len(jobs) / self.jobs
        n_done = len(runs) - sum(value == "open" for value in standings.values())
        self.watcher.begins(
            Announced(self.folder, arms, runs, n_done, seconds, self.jobs, self.asked, self.settings, notices)
        )
        self._do(jobs)
        whole = whole_seeds(runs, {run.name: standing(run) for run in runs}, seeds)
        if not whole:
            raise UserError(
                "--budget", "is over before every arm has one run", "give more time; finished runs stay"
            )
        if len(whole) < len(seeds):
            self.watcher.says(
                f"the budget is over: {len(whole)} of {len(seeds)} seeds are whole and are compared"
            )
        return whole

    def _job(self, run: PlannedRun) -> Job:
        return Job(run.name, {"do": "run", "recipe": run.recipe.plain(), "out": str(run.folder)})

    def _references(self, arms: Sequence[Arm]) -> list[Job]:
        """The references that were not made yet; each is made once."""
        recipe = changed(self.asked.recipe, self.asked.common).plain()
        jobs = []
        for arm in arms:
            folder = self.folder / "runs" / arm.folder
            if not arm.is_network and read_reference(folder) is None:
                order = {
                    "do": "reference", "recipe": recipe, "out": str(folder), "threads": self.settings.threads,
                    "predictions": self.asked.predictions.get(arm.name),
                }  # fmt: skip
                jobs.append(Job(arm.name, order))
        return jobs

    def _do(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        began, done = monotonic(), [0]

        def on(report: Report) -> None:
            done[0] += report.ended is not None
            self.watcher.reports(report)

        def may_begin() -> bool:
            if self.asked.budget is None:
                return True
            spent = monotonic() - began
            return spent * (1 + 1 / max(done[0], 1) * (done[0] > 0)) <= self.asked.budget

        with (
            undoing(),
            Workers(min(self.jobs, len(jobs)), self.settings.threads, self.asked.plugins, self.folder) as w,
        ):
            w.do(jobs, on, may_begin)

    def _judged(self, seeds: Sequence[int]) -> dict[str, Any]:
        runs = planned(self.asked.recipe, self.arms, seeds, self.settings, self.steps, self.folder)
        found = collect(self.asked.recipe, self.arms, runs, seeds, self.folder)
        self.memory.looked([arm.name for arm in self.arms], list(seeds))
        self.memory.save(self.folder)
        return outcome_of(self.asked.recipe, found, seeds, self.settings, self.memory)

    def _confirmed(self, outcome: Mapping[str, Any], seeds: Sequence[int], per_step: float) -> dict[str, Any]:
        """Run the leading arm, what it must beat and its control on as many fresh seeds, and judge by these."""
        lead = outcome["leading"]["arm"]
        needed = {lead, *outcome["baseline"].values()}
        arms = [arm for arm in self.arms if arm.name in needed or arm.role == "control"]
        first = max(self.asked.seeds) + 1
        fresh = list(range(first, first + len(seeds)))
        self.memory.confirmation = Confirmation(arm=lead, seeds=fresh)
        whole = self._made(arms, fresh, per_step, ())
        runs = planned(self.asked.recipe, arms, whole, self.settings, self.steps, self.folder)
        confirmed = collect(self.asked.recipe, arms, runs, whole, self.folder)
        old = planned(self.asked.recipe, self.arms, seeds, self.settings, self.steps, self.folder)
        found = collect(self.asked.recipe, self.arms, old, seeds, self.folder)
        self.memory.save(self.folder)
        return outcome_of(self.asked.recipe, found, seeds, self.settings, self.memory, confirmed, whole)
