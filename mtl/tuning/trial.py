"""One trial: its settings are drawn, validation judges its run, and the run ends before it reads the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mtl.data.memory import is_out_of_memory
from mtl.errors import EnvironmentFault, NotFinite, UserError
from mtl.experiment.resume import resume
from mtl.experiment.run import prepare, run
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.tuned import with_settings
from mtl.runs.folder import RECORD, RunFolder
from mtl.training import devices
from mtl.training.events import Halted, Listener
from mtl.tuning.folder import run_folder
from mtl.tuning.judge import Judge
from mtl.tuning.space import drawn, overrides_of
from mtl.tuning.study import FAILURES, SAME, SURPLUS, WHY, first_number, own_trials, repeat

KEPT = 2
"""Checkpoints of a trial that goes on; afterwards it keeps the last one and its best ones."""
SAVED_EVERY = 2.0
"""Minutes after which a trial saves; most are over before."""
ELSEWHERE = "elsewhere"
TAKEN = "its process gave no sign of life for so long that another one repeats it"


class Unfit(Exception):
    """The settings of a trial give no result, for a reason that other settings do not share."""


class Elsewhere(BaseException):
    """Another process makes this very trial; Optuna, which catches every Exception, must not hear of it.

    SQLite has no locks of rows, so that two processes may take the same waiting trial.
    """


@dataclass
class Work:
    """The trials of one process.

    Args:
        recipe: the recipe with `tune`.
        study: the study, which this process has joined.
        folder: the folder of the sweep.
        metric: the validation metric that chooses.
        trials: how many trials the study shall have.
        threads: of each trial.
        plugins: the plug-ins that were loaded.
    """

    recipe: Recipe
    study: optuna.Study
    folder: Path
    metric: str
    trials: int
    threads: int
    plugins: Sequence[str] = ()

    def one(self, listener_of: Callable[[int], Listener]) -> dict[str, Any]:
        """Make the next trial, and say how it ended.

        Args:
            listener_of: gives a further listener for the trial of a number.

        Raises:
            UserError: something is at fault that every trial needs.
        """
        made = _Trial(self, listener_of)
        try:
            self.study.optimize(made.objective, n_trials=1, catch=(NotFinite, Unfit))
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            if not made.was_taken:  # else Optuna refuses the result, since the trial counts as failed
                raise
        except Elsewhere:
            return {"ended": ELSEWHERE, "trial": made.number}
        assert made.number is not None
        ended = self.study.get_trials(deepcopy=False)[made.number]
        why = TAKEN if made.was_taken else ended.user_attrs.get(WHY)
        words = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
        return {
            "ended": words.get(ended.state, "unfit"),
            "trial": made.number,
            "settings": ended.params,
            "value": ended.value,
            "same": ended.user_attrs.get(SAME),
            **({} if why is None else {"why": why}),
        }


@dataclass
class _Trial:
    """The trial under way."""

    work: Work
    listener_of: Callable[[int], Listener]
    number: int | None = None
    was_taken: bool = False
    judge: Judge = field(init=False)

    def objective(self, trial: optuna.Trial) -> float:
        """Draw settings, train with them, and return the value by which the trial is compared."""
        try:
            return self._judged(trial)
        finally:
            with suppress(*FAILURES):  # the first fault is told
                self.was_taken = self._is_taken(trial)

    def _is_taken(self, trial: optuna.Trial) -> bool:
        """Whether another process took this one for dead, as after the sleep of a machine, and repeats the trial."""
        return self.work.study.get_trials(deepcopy=False)[trial.number].state != TrialState.RUNNING

    def _judged(self, trial: optuna.Trial) -> float:
        study, self.number = self.work.study, trial.number
        self.judge = Judge(trial, self.work.metric)
        place = sum(other.number < trial.number for other in own_trials(study))
        if place >= self.work.trials:
            trial.set_user_attr(SURPLUS, True)
            raise self._unfit(trial, "another process began the last trial at the same moment")
        drawn(trial, self.work.recipe.tune)
        same = _twin(study, trial)
        if same is not None:
            return self._again(trial, same)
        try:
            return self._trained(trial)
        except (NotFinite, Unfit, optuna.TrialPruned) as end:
            if isinstance(end, NotFinite):
                trial.set_user_attr(WHY, str(end))
            raise
        except UserError as error:
            if self.judge.trainer is None and self._is_held(trial):
                raise Elsewhere from None
            if (whole := self._concerns_all(error)) is not None:
                repeat(study, trial)
                raise whole from None
            raise self._unfit(trial, "; ".join(map(str, error.errors))) from None
        except BaseException:
            with suppress(*FAILURES):
                if not self._is_taken(trial):
                    repeat(study, trial)
            raise

    def _trained(self, trial: optuna.Trial) -> float:
        """Begin the run of the trial, or go on with that of an earlier attempt, and return its value.

        Raises:
            TrialPruned: the run was halted, since others were better after as many evaluations.
            Unfit: validation gives no value.
            UserError: the recipe does not take the settings, or the data or the machine are at fault.
        """
        fixed = (
            f"train.threads={self.work.threads}",
            f"train.checkpoint={{every: {{minutes: {SAVED_EVERY}}}, keep: {KEPT}}}",
        )
        recipe = with_settings(self.work.recipe, (*overrides_of(trial.params), *fixed), without=("trackers",))
        listeners, plugins = (self.listener_of(trial.number), self.judge), self.work.plugins
        path = self._place(trial)
        try:
            if (path / RECORD).exists():
                resume(path, recipe=recipe, plugins=plugins, listeners=listeners, report=False)
            else:
                run(recipe, out=path, plugins=plugins, listeners=listeners, report=False)
        except Halted:
            self.judge.release(path)
        if self.judge.pruned:
            raise optuna.TrialPruned
        if self.judge.value is None:
            raise self._unfit(trial, f"{self.work.metric} has no value in any evaluation")
        return self.judge.value

    def _is_held(self, trial: optuna.Trial) -> bool:
        """Whether another process trains in the run folder of this trial."""
        path = run_folder(self.work.folder, first_number(trial))
        return (path / RECORD).exists() and RunFolder.open(path).standing()[0] == "running"

    def _place(self, trial: optuna.Trial) -> Path:
        """The run folder: that of the first attempt, unless a process that counts as dead still holds it."""
        number = trial.number if self._is_held(trial) else first_number(trial)
        return run_folder(self.work.folder, number)

    def _again(self, trial: optuna.Trial, same: FrozenTrial) -> float:
        """The result of an earlier trial of the same settings, which would have the same bits."""
        trial.set_user_attr(SAME, same.number)
        if same.state == TrialState.PRUNED:
            raise optuna.TrialPruned
        if same.value is None:
            raise self._unfit(trial, f"its settings are those of trial {same.number}, which failed")
        return same.value

    def _unfit(self, trial: optuna.Trial, why: str) -> Unfit:
        trial.set_user_attr(WHY, why)
        return Unfit(why)

    def _concerns_all(self, error: UserError) -> UserError | None:
        """The error that every trial would meet, or None: it comes from the settings.

        The recipe itself has been accepted before. If it still is, the settings are at fault, unless the machine failed
        for another reason than memory, within the run or while its folder was made.
        """
        in_run = self.judge.trainer is not None
        is_memory = error.__cause__ is not None and is_out_of_memory(error.__cause__)
        is_disk = isinstance(error.__cause__, OSError)
        if isinstance(error, EnvironmentFault) and (in_run or is_disk) and not is_memory:
            return error
        own = with_settings(self.work.recipe)
        try:
            with devices.settings(own.train.deterministic):
                prepare(own)
        except UserError as whole:
            return whole
        return None


def _twin(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial | None:
    """An earlier trial of the same settings that has ended."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return next(
        (
            other
            for other in own_trials(study)
            if other.state in ended and other.number < trial.number and other.params == trial.params
        ),
        None,
    )
