"""Evaluation looks and touches nothing: no mode, no random state, no statistics, no gradient."""

from typing import Any

import pytest
import torch

from mtl.build import Built, build
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.evaluation import evaluate as module
from mtl.evaluation.evaluate import evaluate, evaluation_mode
from mtl.experiment.trial import build_and_try
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe

RECIPE: dict[str, Any] = {
    "schema_version": 1,
    "name": "small",
    "data": {"source": {"kind": "synthetic", "tasks": 2, "rows": 100, "test_rows": 31, "features": 8,
                        "labelled": {"task1": 0.3}}},
    "task_defaults": {"kind": "multiclass", "missing": "mask"},
    "tasks": {"a": {"target": "task0"}, "b": {"target": "task1"}},
    "model": {
        "backbone": {"kind": "layers", "stages": [{"name": "fc1", "kind": "linear", "features": 6}]},
        "head": {"dropout": 0.5},
    },
    "optimizer": {"kind": "adam", "lr": 0.01},
    "train": {"epochs": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> tuple[Recipe, Built, Dataset]:
    recipe = load_recipe(RECIPE)
    _built, header = build_and_try(recipe)
    dataset = load_dataset(recipe, header)
    return recipe, build(recipe, dataset.header, dataset.learned), dataset


def values(made: tuple[Recipe, Built, Dataset], split: str) -> dict[str, float | None]:
    recipe, built, dataset = made
    return evaluate(built.model, recipe.tasks, dataset, dataset.splits[split], split)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_touched(training: bool, made: tuple[Recipe, Built, Dataset]) -> None:
    model = made[1].model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draws = torch.get_rng_state()
    one, two = values(made, "test"), values(made, "test")
    assert one == two
    assert torch.equal(draws, torch.get_rng_state())
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.is_grad_enabled()


def test_the_mode_of_each_part_is_put_back(made: tuple[Recipe, Built, Dataset]) -> None:
    model = made[1].model.train()
    model.trunk.eval()
    with evaluation_mode(model):
        assert not any(part.training for part in model.modules())
    assert model.training
    assert model.task_modules.training
    assert not model.trunk.training
    model.train()
    with pytest.raises(KeyError), evaluation_mode(model):
        raise KeyError("x")
    assert all(part.training for part in model.modules())


def test_batch_boundaries_do_not_matter(
    made: tuple[Recipe, Built, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = values(made, "train")
    for size in (1, 7, 99, 100, 1000):
        monkeypatch.setattr(module, "BATCH", size)
        parts = values(made, "train")
        assert parts.keys() == whole.keys()
        for name, value in whole.items():
            assert parts[name] == pytest.approx(value, rel=1e-5), name


def test_agrees_with_the_model_called_by_hand(made: tuple[Recipe, Built, Dataset]) -> None:
    _, built, dataset = made
    (group,) = built.groups
    batch = dataset.rows.batch(dataset.splits["train"])
    with evaluation_mode(built.model), torch.no_grad():
        logits = built.model(batch.inputs)
    given = values(made, "train")
    for t, task in enumerate("ab"):
        there = batch.present[group.name][:, t]
        ours, truth = logits[task][there], batch.target[group.name][:, t][there]
        loss = torch.nn.functional.cross_entropy(ours, truth).item()
        assert given[f"train/{task}/labels"] == int(there.sum()) == (100, 30)[t]
        assert given[f"train/{task}/accuracy"] == pytest.approx(
            (ours.argmax(1) == truth).double().mean().item()
        )
        assert given[f"train/{task}/loss"] == pytest.approx(loss, rel=1e-5)


def test_no_rows(made: tuple[Recipe, Built, Dataset]) -> None:
    recipe, built, dataset = made
    given = evaluate(built.model, recipe.tasks, dataset, dataset.splits["test"][:0], "test")
    assert {value for name, value in given.items() if not name.endswith("labels")} == {None}
