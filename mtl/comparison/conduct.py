"""One comparison, from a recipe to a verdict: its arms are planned, run, read and judged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from mtl.build import build
from mtl.comparison.arms.arm import Arm, Facts, changed
from mtl.comparison.arms.named import arms_of, default_arms, require_predictions
from mtl.comparison.files import write_outcome
from mtl.comparison.folder import digest, folder_of, remembered
from mtl.comparison.memory import Memory
from mtl.comparison.outcome import outcome_of
from mtl.comparison.plan import PlannedRun, Settings, Steps, planned, require_comparable, selection_of
from mtl.comparison.processes.machines import Machines, machines_of, usual_jobs
from mtl.comparison.processes.pool import Job, Report
from mtl.comparison.references.make import read_reference
from mtl.comparison.references.outside import outside_predictions
from mtl.comparison.request import Announced, Asked, Silent, Watcher
from mtl.comparison.results import Found, collect, standing, whole_seeds
from mtl.comparison.tuning import trial_runs, trials_of, tuned
from mtl.errors import NotFinite, UserError, raise_all
from mtl.experiment.run import prepare
from mtl.recipe.keys.recipe import Recipe
from mtl.runs.disk import make_folder
from mtl.signals import undoing
from mtl.task_groups import task_groups
from mtl.training import devices
from mtl.training.step import train_step
from mtl.training.trainer import Trainer

MOST_LABELLED = 32
"""Rows of a batch that are sure to have a label of the task whose labels were thinned out."""
START = 8.0
"""Seconds until a process has loaded what it needs; each process starts once."""
BESIDE_STEPS = 2.0
"""Seconds of a run beside its steps: reading the data, evaluations, saves."""
TIMED = 3
"""Steps that are timed for the estimate of a comparison's length."""


def conduct(asked: Asked, watcher: Watcher | None = None) -> tuple[Path, dict[str, Any]]:
    """Make a comparison, or go on with it, and return its folder and the content of its compare.json.

    A finished run is not made again, and one that was broken off goes on. So the same request after a stop, a kill or
    a crash ends with the same compare.json.

    Raises:
        UserError: the recipe, an arm or the data are at fault, or a run was refused.
    """
    watcher = watcher or Silent()
    require_comparable(asked.recipe)
    folder = folder_of(asked)
    memory = remembered(asked, folder)
    with machines_of(asked.on) as machines:
        made, per_run, notices = _planned(asked, folder, memory, machines, watcher)
        return folder, made.conduct(per_run, notices)


def _planned(
    asked: Asked, folder: Path, memory: Memory | None, machines: Machines, watcher: Watcher
) -> tuple[_Comparison, float, Sequence[str]]:
    """A comparison that can begin, the seconds of a run here, and facts about the data, whose rows are let go."""
    looked_at = machines.looked_at(asked.recipe)
    with devices.settings(asked.recipe.train.deterministic):
        trainer, device = prepare(changed(looked_at, asked.common))
        threads = torch.get_num_threads()
    has_validation = "validation" in trainer.dataset.splits
    if asked.recipe.tune and not has_validation:
        with asked.recipe.at("tune"):
            what = "validation chooses the settings, and no rows are held out for it"
            raise UserError("", what, "set data.split.validation")
    facts = facts_of(trainer)
    labelled = _labelled(asked, facts)
    if labelled:  # an epoch whose batches must have labels has another number of steps
        with devices.settings(asked.recipe.train.deterministic):
            trainer, device = prepare(changed(looked_at, (*asked.common, *labelled)))
    arms = arms_of(asked.recipe, asked.arms or default_arms(asked.recipe, facts), facts)
    arms += _outside(asked, trainer, arms)
    here = (None if asked.on else asked.jobs) or usual_jobs(device.type)
    if memory is None:
        threads = machines.threads(asked.recipe, threads, here)
        memory = Memory(recipe_sha256=digest(asked), threads=threads, at_most=asked.at_most)
    jobs = asked.jobs or machines.at_once(asked.recipe, memory.threads, here)
    steps = Steps(trainer.total_steps, trainer.steps_per_epoch)
    selection = selection_of(asked.recipe, has_validation, steps.total)
    settings = Settings(selection, memory.threads, asked.resample, (*asked.common, *labelled))
    made = _Comparison(asked, folder, arms, settings, steps, jobs, memory, watcher, machines)
    return made, _seconds_per_step(trainer) * steps.total + BESIDE_STEPS, trainer.notices


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


def _outside(asked: Asked, trainer: Trainer, arms: Sequence[Arm]) -> list[Arm]:
    """The arms of predictions from elsewhere, whose files are read and checked before anything is trained.

    Raises:
        UserError: a name is taken, or a file is not what can be compared.
    """
    require_predictions(asked.predictions, [arm.name for arm in arms])
    recipe = changed(asked.recipe, asked.common)
    groups = task_groups(recipe, trainer.dataset.learned)
    for name, path in asked.predictions.items():
        try:
            outside_predictions(path, recipe, trainer.dataset, groups)
        except UserError as error:
            raise_all([type(each)(f"--predictions {name}", str(each)) for each in error.errors])
    return [
        Arm(name, f"predictions from elsewhere: {path}", "reference")
        for name, path in asked.predictions.items()
    ]


def _labelled(asked: Asked, facts: Facts) -> tuple[str, ...]:
    """The override by which every batch has some labels of the thinned out task, in all arms alike."""
    train = asked.recipe.train
    if asked.few is None or train.batches.min_labelled:
        return ()
    n = max(1, min(MOST_LABELLED, train.batch_size // 4, facts.n_labels[asked.few]))
    return (f"train.batches.min_labelled={json.dumps({asked.few: n})}",)


def _seconds_per_step(trainer: Trainer) -> float:
    """The seconds of a training step of the compared recipe on this machine, as it is now."""
    trainer.built.model.train()
    rows = [trainer.dataset.splits["train"][: trainer.recipe.train.batch_size].copy()]
    meter = trainer.new_meter()
    with devices.settings(trainer.recipe.train.deterministic, 1):
        began, done = monotonic(), 0
        with suppress(NotFinite):  # the runs will say so, each for itself
            while done < TIMED:
                train_step(trainer, rows, meter)
                done += 1
        return (monotonic() - began) / max(done, 1)


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
    machines: Machines
    trials: dict[str, list[dict[str, Any]]] | None = None

    def conduct(self, per_run: float, notices: Sequence[str]) -> dict[str, Any]:
        """Make all runs, judge them, and confirm the leading arm if that was asked for."""
        make_folder(self.folder)
        self.memory.save(self.folder)
        self._tune(per_run, notices)
        seeds, found = self._made(self.arms, self.asked.seeds, per_run, notices)
        self.memory.looked([arm.name for arm in self.arms], seeds)
        self.memory.save(self.folder)
        outcome = outcome_of(self.asked.recipe, found, seeds, self.settings, self.memory)
        if self.asked.confirm and outcome["leading"] is not None:
            outcome = self._confirmed(outcome, seeds, found, per_run)
        elif self.asked.confirm:
            self.watcher.says(
                "--confirm has nothing to confirm: nobody chose the arm among several candidates"
            )
        outcome["tuning"] = self.trials
        fault = write_outcome(self.folder, outcome)
        if fault is not None:
            self.watcher.says(fault)
        return outcome

    def _tune(self, per_run: float, notices: Sequence[str]) -> None:
        """Try the settings of the recipe's grid for every arm, and keep the best one of each by validation."""
        recipe = self.asked.recipe
        if not recipe.tune:
            return
        trials = trials_of(recipe, self.arms)
        runs = trial_runs(recipe, trials, self.settings, self.steps, self.folder)
        self._run(runs, [], [trial.arm for trial in trials], per_run, notices, trials=True)
        open_ = [run.name for run in runs if standing(run) == "open"]
        if open_:
            raise UserError(
                "--budget", f"is over before the trials of {open_[0]}", "give more time; finished runs stay"
            )
        self.arms, self.trials = tuned(recipe, self.arms, trials, runs, self.folder)

    def _made(
        self, arms: Sequence[Arm], seeds: Sequence[int], per_run: float, notices: Sequence[str]
    ) -> tuple[list[int], Found]:
        """Make the open runs of some arms, and return the seeds of which all runs have ended, with their results.

        Raises:
            UserError: the budget was too small, or no run has a result.
        """
        runs = planned(self.asked.recipe, arms, seeds, self.settings, self.steps, self.folder)
        self._run(runs, self._references(arms), arms, per_run, notices)
        whole = whole_seeds(runs, {run.name: standing(run) for run in runs}, seeds)
        if not whole:
            raise UserError(
                "--budget", "is over before every arm has one run", "give more time; finished runs stay"
            )
        if len(whole) < len(seeds):
            n = f"{len(whole)} of {len(seeds)}"
            self.watcher.says(f"the budget is over: {n} seeds are whole and are compared")
        found = collect(self.asked.recipe, arms, runs, whole, self.folder)
        if found.record is None:
            what = "no run has a result: a loss of each was infinite or NaN"
            raise UserError(str(self.folder), what, "lower optimizer.lr, or set train.clip_norm")
        return whole, found

    def _run(
        self,
        runs: Sequence[PlannedRun],
        others: Sequence[Job],
        arms: Sequence[Arm],
        per_run: float,
        notices: Sequence[str],
        trials: bool = False,
    ) -> None:
        """Make those of the runs that are open, and other jobs, and tell the watcher before."""
        jobs = [self._job(run) for run in runs if standing(run) == "open"]
        n_done = len(runs) - len(jobs)
        seconds = START + per_run * math.ceil((len(jobs) + len(others)) / self.jobs)
        told = (self.folder, arms, runs, n_done, seconds, self.jobs, self.asked, self.settings, notices)
        self.watcher.begins(Announced(*told, len(others), trials, self.machines.told))
        self._do([*jobs, *others])

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
            one_run = spent * self.jobs / done[0] if done[0] else 0.0
            return spent + one_run <= self.asked.budget

        n, threads = min(self.jobs, len(jobs)), self.settings.threads
        made_by = self.machines.workers(n, threads, self.asked.plugins, self.folder, self.watcher.says)
        with undoing(), made_by as workers:
            workers.do(jobs, on, may_begin)

    def _confirmed(
        self, outcome: Mapping[str, Any], seeds: Sequence[int], found: Found, per_run: float
    ) -> dict[str, Any]:
        """Run the leading arm, what it must beat and its control on as many fresh seeds, and judge by these."""
        needed = {outcome["leading"]["arm"], *outcome["baseline"].values()}
        arms = [arm for arm in self.arms if arm.name in needed or arm.role == "control"]
        first = max(self.asked.seeds) + 1
        fresh, confirmed = self._made(arms, range(first, first + len(seeds)), per_run, ())
        return outcome_of(self.asked.recipe, found, seeds, self.settings, self.memory, confirmed, fresh)
