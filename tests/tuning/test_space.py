"""How settings are drawn, and how they become overrides of a recipe."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from mtl.recipe.tuned import with_settings
from mtl.tuning.space import decoded, drawn, overrides_of, own_params
from tests.support.recipes import recipe, stitched

TUNE: dict[str, Any] = {
    "optimizer.lr": {"log_uniform": [1e-4, 1e-1]},
    "model.head.dropout": {"uniform": [0, 0.5]},
    "train.batch_size": {"log_integer": [4, 16]},
    "model.backbone.stages.0.features": {"integer": [2, 5]},
    "model.sharing.init": [{"convex": 0.5}, "identity"],
    "model.tower_init": ["different"],
}


def test_what_is_drawn_lies_within_tune_and_loads() -> None:
    made = recipe(tune=TUNE, model__sharing=stitched("fc1"), model__towers="per_task")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = []
    for _ in range(40):
        trial = study.ask()
        drawn(trial, made.tune)
        own = with_settings(made, overrides_of(trial.params))
        seen.append(own)
        assert not own.tune
        assert own.optimizer.lr == trial.params["optimizer.lr"]
        assert 1e-4 <= own.optimizer.lr <= 1e-1
        assert 0 <= own.model.head.dropout <= 0.5
    assert {own.train.batch_size for own in seen} >= {4, 5, 6}
    assert max(own.train.batch_size for own in seen) <= 16
    features = {own.plain()["model"]["backbone"]["stages"][0]["features"] for own in seen}
    assert features == {2, 3, 4, 5}, "both ends are drawn"
    assert {str(own.plain()["model"]["sharing"]["init"]) for own in seen} == {"{'convex': 0.5}", "identity"}
    assert sum(own.optimizer.lr < 10**-2.5 for own in seen) == pytest.approx(20, abs=8), "logarithms are even"


def test_choices_are_told_apart_that_are_equal_in_python() -> None:
    study = optuna.create_study()
    trial = study.ask()
    drawn(trial, {"k": (1, 1.0, True, "1", 1)})
    assert trial.distributions["k"].choices == ("1", "1.0", "true", '"1"')  # type: ignore[attr-defined]
    assert [decoded(choice) for choice in ("1", "true", '"a"', '{"a": [1]}')] == [1, True, "a", {"a": [1]}]
    assert decoded(0.5) == 0.5


def test_the_recipe_itself_is_a_setting_if_tune_allows_it() -> None:
    assert own_params(
        recipe(tune={"optimizer.lr": [0.01, 0.1], "train.batch_size": {"integer": [8, 9]}})
    ) == {
        "optimizer.lr": "0.1",
        "train.batch_size": 8,
    }
    assert own_params(recipe(tune={"optimizer.lr": [0.01, 0.1], "train.batch_size": [16]})) is None
