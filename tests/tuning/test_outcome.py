"""What a sweep found, from studies of made-up trials."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from mtl.errors import UserError
from mtl.recipe.load import load_recipe
from mtl.tuning.folder import run_folder
from mtl.tuning.outcome import outcome_of, write_outcome
from mtl.tuning.study import REPEATS, SAME, SURPLUS, WHY
from tests.support.recipes import recipe

RECIPE = recipe(tune={"optimizer.lr": {"log_uniform": [1e-3, 1]}, "train.batch_size": [4, 8]})
SPACE = {
    "optimizer.lr": optuna.distributions.FloatDistribution(1e-3, 1, log=True),
    "train.batch_size": optuna.distributions.CategoricalDistribution(["4", "8"]),
}


def study_of(*trials: optuna.trial.FrozenTrial, direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(direction=direction)
    study.add_trials(trials)
    return study


def trial(
    lr: float, state: TrialState, value: float | None = None, **attributes: object
) -> optuna.trial.FrozenTrial:
    params = {"optimizer.lr": lr, "train.batch_size": "4"}
    return create_trial(state=state, value=value, params=params, distributions=SPACE, user_attrs=attributes)


FAIL, COMPLETE, PRUNED = TrialState.FAIL, TrialState.COMPLETE, TrialState.PRUNED


def test_each_trial_has_its_state_and_its_reason(tmp_path: Path) -> None:
    run_folder(tmp_path, 1).mkdir(parents=True)
    study = study_of(
        trial(0.1, COMPLETE, 0.5),
        trial(0.2, FAIL),
        trial(0.2, COMPLETE, 0.4, **{REPEATS: [1]}),
        trial(0.3, PRUNED, 0.1),
        trial(0.4, FAIL, **{WHY: "too large"}),
        trial(0.4, FAIL, **{SURPLUS: True, WHY: "one too many"}),
        trial(0.5, FAIL),
        trial(0.1, COMPLETE, 0.5, **{SAME: 0}),
    )
    found = outcome_of(RECIPE, study, "validation/mean/loss", False, tmp_path)
    assert [(own.state, own.why) for own in found.trials] == [
        ("complete", ""),
        ("repeated", ""),
        ("complete", ""),
        ("pruned", ""),
        ("failed", "too large"),
        ("surplus", "one too many"),
        ("failed", "its process died"),
        ("complete", "the settings of trial 0"),
    ]
    assert found.counts() == {"complete": 3, "pruned": 1, "failed": 2}
    assert [own.run is not None for own in found.trials] == [False, True, True, *[False] * 5]
    assert (found.best, found.value) == (2, 0.4), "a pruned trial is never the best"
    assert found.settings == ("optimizer.lr=0.2", "train.batch_size=4")
    assert set(found.importances) <= {"optimizer.lr", "train.batch_size"}
    write_outcome(RECIPE, found)
    best = load_recipe(tmp_path / "best.yaml")
    assert (best.optimizer.lr, best.train.batch_size, best.tune) == (0.2, 4, {})
    assert "(lower is better)" in (tmp_path / "best.yaml").read_text(encoding="utf-8")


def test_of_equal_trials_the_first_is_the_best(tmp_path: Path) -> None:
    study = study_of(*(trial(0.1 * i, COMPLETE, value) for i, value in ((1, 0.5), (2, 0.9), (3, 0.9))),
                     direction="maximize")  # fmt: skip
    assert outcome_of(RECIPE, study, "validation/mean/accuracy", True, tmp_path).best == 1


def test_one_trial_tells_nothing_of_importances(tmp_path: Path) -> None:
    found = outcome_of(RECIPE, study_of(trial(0.1, COMPLETE, 0.5)), "validation/mean/loss", False, tmp_path)
    assert found.importances == {}


def test_a_sweep_without_any_result(tmp_path: Path) -> None:
    study = study_of(trial(0.1, FAIL, **{WHY: "the loss is nan"}), trial(0.2, FAIL))
    with pytest.raises(
        UserError, match="none of 2 trials has a result; the first failed: the loss is nan; narrow"
    ):
        outcome_of(RECIPE, study, "validation/mean/loss", False, tmp_path)
