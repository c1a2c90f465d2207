"""`tune` of a recipe: what it may hold, and what the recipe itself has of it; tests/bad/meaning/tune-* are refused."""

from __future__ import annotations

from typing import Any

import pytest

from mtl.errors import UserError
from mtl.recipe.keys.tune import Range, grid_of
from mtl.recipe.load import load_recipe
from mtl.recipe.tuned import SAME, own_settings, require_tunable, with_settings
from tests.support.recipes import recipe

TUNE: dict[str, Any] = {"optimizer.lr": {"log_uniform": [1e-3, 1]}, "train.batch_size": [4, 8]}


def test_a_list_is_a_set_of_choices_and_a_mapping_is_a_range() -> None:
    made = recipe(tune=TUNE)
    require_tunable(made)
    lr = made.tune["optimizer.lr"]
    assert isinstance(lr, Range)
    assert (lr.kind, lr.bounds, lr.is_log, lr.is_whole) == ("log_uniform", (1e-3, 1.0), True, False)
    assert str(lr) == "log uniform from 0.001 to 1"
    assert grid_of(made.tune) == {"train.batch_size": (4, 8)}
    assert load_recipe(made.plain()).tune == made.tune
    assert load_recipe(made.plain()).sha256() == made.sha256() != recipe(tune={}).sha256()


def test_a_recipe_with_settings_has_no_tune() -> None:
    made = with_settings(
        recipe(tune=TUNE, trackers=["tensorboard"]), ("optimizer.lr=0.5",), without=("trackers",)
    )
    assert (made.optimizer.lr, made.tune, made.trackers) == (0.5, {}, None)


@pytest.mark.parametrize(
    ("tune", "own"),
    [
        ({"optimizer.lr": [0.05, 0.1]}, {"optimizer.lr": 0.1}),
        ({"optimizer.lr": [0.05]}, None),
        ({"optimizer.lr": {"uniform": [0, 1]}}, {"optimizer.lr": 0.1}),
        ({"optimizer.lr": {"uniform": [0.2, 1]}}, None),
        ({"train.batch_size": {"integer": [8, 16]}}, {"train.batch_size": 8}),
        ({"train.clip_norm": {"uniform": [1, 2]}}, None),
        ({"train.drop_last": [0, False]}, {"train.drop_last": False}),
        ({"model.backbone.stages.0.features": [4.0, 8]}, {"model.backbone.stages.0.features": 4.0}),
        ({"model.backbone.stages.3.features": [4, 8]}, None),
        ({"weighting": [{"kind": "rlw"}, {"kind": "sum"}]}, {"weighting": {"kind": "sum"}}),
        ({"train.drop_last": {"integer": [0, 1]}}, None),
    ],
)
def test_what_the_recipe_itself_has(tune: dict[str, Any], own: dict[str, Any] | None) -> None:
    assert own_settings(recipe(tune=tune)) == own


@pytest.mark.parametrize("key", SAME)
def test_what_trials_are_measured_by_is_no_setting(key: str) -> None:
    with pytest.raises(UserError, match="is the same in every trial, so that their results can be compared"):
        require_tunable(recipe(tune={key: [1]}))


def test_all_faults_come_at_once() -> None:
    with pytest.raises(UserError) as error:
        require_tunable(recipe(tune={"optimizer.lr": [100], "sed": [1], "train.epochs": [1]}))
    assert [each.path for each in error.value.errors] == [("tune", "optimizer.lr", 0), ("tune", "sed")]
