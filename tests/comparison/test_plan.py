"""The runs of a comparison: what varies between seeds, and what all arms have in common."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mtl.build import build
from mtl.comparison.arms.named import arms_of
from mtl.comparison.plan import PlannedRun, Settings, Steps, planned, require_comparable, selection_of
from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe
from tests.comparison.test_arms import compared, facts
from tests.support.recipes import classes, recipe

STEPS = Steps(total=30, per_epoch=10)


def runs(
    made: Recipe, texts: list[str], seeds: tuple[int, ...] = (0, 1), **settings: Any
) -> list[PlannedRun]:
    given = Settings(**{"selection": "best_of_each", "threads": 3, **settings})
    labels = dict.fromkeys(made.tasks, 100) | ({"b": 10} if made.tasks["b"].missing == "mask" else {})
    return planned(made, arms_of(made, texts, facts(made, labels)), seeds, given, STEPS, Path("f"))


def test_seeds_vary_what_is_drawn_and_pin_the_data() -> None:
    made = compared(seed={"init": 7, "order": 8, "split": 9, "labels": 10})
    found = runs(made, ["sharing"])
    assert [(run.arm, run.seed, str(run.folder)) for run in found] == [
        ("single", 0, "f/runs/single/seed-0"), ("sharing", 0, "f/runs/sharing/seed-0"),
        ("single", 1, "f/runs/single/seed-1"), ("sharing", 1, "f/runs/sharing/seed-1"),
    ]  # fmt: skip
    assert [run.recipe.seeds.model_dump() for run in found[2:]] == [
        {"init": 8, "order": 9, "split": 9, "labels": 10}
    ] * 2
    again = runs(made, ["sharing"], resample=True)
    assert again[3].recipe.seeds.split == 10


def test_arms_begin_with_the_same_towers_and_heads() -> None:
    made = compared()
    header = made.data.only.header()
    own, shared = (
        dict(build(run.recipe, header).model.named_parameters())
        for run in runs(made, ["sharing"])
        if run.seed == 1
    )
    same = [name for name in own if torch.equal(own[name], shared[name])]
    assert same == list(own)
    assert len(shared) == len(own) + 1  # the alphas of one site


def test_what_every_run_is_told() -> None:
    made = compared(tune={"optimizer.lr": [0.1, 0.2]})
    for run in runs(made, ["sharing", "hard"]):
        train = run.recipe.train
        assert (train.select, train.threads, train.checkpoint.keep, run.recipe.tune) == (
            "best_of_each",
            3,
            2,
            {},
        )


def test_a_network_on_fewer_rows_takes_as_many_steps() -> None:
    made = compared(
        tasks=classes("abc", missing="mask"),
        train__batches={"min_labelled": {"b": 2}},
        train__evaluate_every={"epochs": 2},
        data__split={"validation": 0.2},
    )
    found = {run.arm: run.recipe.train for run in runs(made, ["sharing"], seeds=(0,))}
    own = found["single_rows"]
    assert (own.epochs, own.max_steps, own.evaluate_every.steps) == (None, 30, 20)
    assert own.batches.min_labelled == {}
    assert found["single"].batches.min_labelled == {"b": 2}
    assert found["single"].epochs == made.train.epochs


def test_a_control_has_another_permutation_for_each_seed() -> None:
    seeds = []
    for run in runs(compared(), ["sterile:a"], seeds=(0, 4)):
        if run.arm == "sterile:a":
            assert run.recipe.data.permute_labels is not None
            seeds.append(run.recipe.data.permute_labels.seed)
    assert seeds == [0, 4]


@pytest.mark.parametrize(
    ("schedule", "has_validation", "selection"),
    [
        ({"kind": "constant"}, True, "best_of_each"),
        ({"kind": "constant"}, False, "last"),
        ({"kind": "one_cycle"}, True, "last"),
        ({"kind": "cosine"}, True, "last"),
    ],
)
def test_which_step_counts(schedule: dict[str, Any], has_validation: bool, selection: str) -> None:
    assert selection_of(recipe(schedule=schedule), has_validation, 100) == selection


def test_a_recipe_that_looks_at_its_test_split_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"train.monitor: a comparison reads the test split once.*~train.monitor"
    ):
        require_comparable(recipe(train__monitor="test"))
