"""What a sweep found: its trials, the best recipe, and how much each setting counts, as files and for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.console import counted, number
from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import to_yaml
from mtl.recipe.tuned import with_settings
from mtl.runs.disk import write_whole
from mtl.tuning.folder import run_folder
from mtl.tuning.space import decoded, overrides_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

BEST, FOUND, TABLE = "best.yaml", "tune.json", "trials.csv"
STATES = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
ASIDE = ("repeated", "surplus")
"""States of trials that do not count."""
DIED = "its process died"


@dataclass(frozen=True)
class Trial:
    """One trial.

    Args:
        number: in the study, from 0.
        state: `complete`, `pruned`, `failed`, `running` or `waiting`; or `repeated` (it was broken off, and another
            trial has its settings) or `surplus` (two processes began the last one), which do not count.
        value: the metric that chooses, at the best evaluation; of a pruned trial at its last one.
        settings: key -> value.
        evaluations: how many its run has had.
        run: its run folder, where this machine has it.
        why: the reason of a failure, or what else is to be said.
    """

    number: int
    state: str
    value: float | None
    settings: dict[str, Any]
    evaluations: int
    run: str | None
    why: str = ""


@dataclass(frozen=True)
class Outcome:
    """The content of tune.json.

    Args:
        path: the folder of the sweep.
        study: the name of the study.
        metric: the validation metric that chose.
        higher_is_better: whether more of it is better.
        best: the number of the best trial.
        value: its value.
        settings: its settings as overrides.
        importances: key -> its share of the differences between trials; empty while too few trials are complete.
        trials: all trials.
    """

    path: Path
    study: str
    metric: str
    higher_is_better: bool
    best: int
    value: float
    settings: tuple[str, ...]
    importances: Mapping[str, float]
    trials: tuple[Trial, ...]

    @property
    def recipe(self) -> Path:
        """The file of the best recipe."""
        return self.path / BEST

    def counts(self) -> dict[str, int]:
        """State -> how many of the trials that count are in it."""
        states = [trial.state for trial in self.trials if trial.state not in ASIDE]
        return {state: states.count(state) for state in STATES.values() if state in states}


def outcome_of(recipe: Recipe, study: optuna.Study, metric: str, higher: bool, folder: Path) -> Outcome:
    """The outcome of a study.

    Raises:
        UserError: no trial is complete.
    """
    from mtl.tuning.study import own_trials

    own = {trial.number for trial in own_trials(study)}
    trials = tuple(_trial(trial, trial.number in own, folder) for trial in study.get_trials(deepcopy=False))
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    if not complete:
        reasons = [trial.why for trial in trials if trial.why]
        first = f"; the first failed: {reasons[0]}" if reasons else ""
        what = f"none of {counted(len(own), 'trial')} has a result{first}"
        raise UserError(str(folder), what, "narrow the ranges in tune, or add trials")
    sign = -1 if higher else 1
    best = min(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))
    assert best.value is not None
    settings = overrides_of(study.get_trials(deepcopy=False)[best.number].params)
    return Outcome(
        folder,
        study.study_name,
        metric,
        higher,
        best.number,
        best.value,
        settings,
        _importances(study),
        trials,
    )


def _trial(trial: FrozenTrial, counts: bool, folder: Path) -> Trial:
    from mtl.tuning.study import SAME, SURPLUS, WHY, first_number

    attributes = trial.user_attrs
    state = STATES[trial.state.name] if counts else ASIDE[SURPLUS in attributes]
    why = attributes.get(WHY, DIED if state == "failed" else "")
    if SAME in attributes:
        why = f"the settings of trial {attributes[SAME]}"
    run = run_folder(folder, first_number(trial))
    return Trial(
        trial.number,
        state,
        trial.value,
        {key: decoded(value) for key, value in trial.params.items()},
        len(trial.intermediate_values),
        str(run) if run.is_dir() else None,
        why,
    )


def _importances(study: optuna.Study) -> dict[str, float]:
    """Key -> its share of the differences between complete trials (PED-ANOVA, Watanabe et al. 2023, IJCAI)."""
    import optuna

    if len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))) < 2:
        return {}
    try:
        return optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):  # all values are equal, or a setting has only one
        return {}


def write_outcome(recipe: Recipe, outcome: Outcome) -> None:
    """Write best.yaml, tune.json and trials.csv.

    Raises:
        EnvironmentFault: the disk refused.
    """
    write_whole(outcome.path / BEST, best_text(recipe, outcome).encode())
    content = asdict(outcome) | {"path": str(outcome.path)}
    write_whole(outcome.path / FOUND, (json.dumps(content, allow_nan=False, indent=1) + "\n").encode())
    write_whole(outcome.path / TABLE, _table(recipe, outcome).encode())


def best_text(recipe: Recipe, outcome: Outcome) -> str:
    """The best recipe as YAML that runs, with a head that says where it comes from."""
    direction = "higher" if outcome.higher_is_better else "lower"
    n = counted(sum(outcome.counts().values()), "trial")
    head = [
        f"Trial {outcome.best} of study {outcome.study}, the best of {n}: "
        f"{outcome.metric} {number(outcome.value)} ({direction} is better).",
        f"Its settings: {' '.join(outcome.settings)}",
        "Validation chose it, so that it looks a little better there than it is; the test split was not read.",
    ]
    lines = "".join(f"# {line}\n" for line in head)
    return lines + to_yaml(with_settings(recipe, outcome.settings))


def _table(recipe: Recipe, outcome: Outcome) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "value", *recipe.tune, "evaluations", "why"])
    for trial in outcome.trials:
        values = [json.dumps(trial.settings[key]) if key in trial.settings else "" for key in recipe.tune]
        value = "" if trial.value is None else repr(trial.value)
        writer.writerow([trial.number, trial.state, value, *values, trial.evaluations, trial.why])
    return text.getvalue()
