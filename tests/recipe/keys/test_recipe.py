"""What a checked recipe knows of itself. What it refuses is in tests/bad/meaning/."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from mtl.errors import Place, UserError
from mtl.recipe.base import MAX_TASKS
from mtl.recipe.keys.recipe import Recipe, Seeds
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import FAMILIES, Model

SMALL = "synthetic_stitch"


def models() -> list[type[BaseModel]]:
    """Every model of a recipe: those below Recipe, and the members of all families with theirs."""
    found: dict[type[BaseModel], None] = {}

    def visit(annotation: Any) -> None:
        is_new = isinstance(annotation, type) and annotation not in found
        if is_new and issubclass(annotation, BaseModel):
            found[annotation] = None
            for field in annotation.model_fields.values():
                visit(field.annotation)
        for part in get_args(annotation):
            visit(part)

    visit(Recipe)
    for family in FAMILIES.values():
        for name in family.names():
            visit(family[name])
    return list(found)


def test_one_seed_for_all_purposes_or_one_for_each() -> None:
    assert load_recipe(SMALL, ["seed=7"]).seeds == Seeds(init=7, order=7, split=7, labels=7)
    assert load_recipe(SMALL, ["seed={init: 7}"]).seeds == Seeds(init=7, order=0, split=0, labels=0)


@pytest.mark.parametrize(
    ("towers", "expected"),
    [
        ("per_task", {"first": ("first",), "second": ("second",), "scarce": ("scarce",)}),
        ("{left: [scarce, first], right: [second]}", {"left": ("scarce", "first"), "right": ("second",)}),
    ],
)
def test_towers(towers: str, expected: dict[str, tuple[str, ...]]) -> None:
    assert load_recipe(SMALL, [f"model.towers={towers}"]).towers == expected


def test_one_tower() -> None:
    recipe = load_recipe(SMALL, ["model.towers=one", "model.sharing={kind: none}"])
    assert recipe.towers == {"shared": ("first", "second", "scarce")}


def test_the_number_of_tasks_is_bounded() -> None:
    assert MAX_TASKS == 1024


def test_a_recipe_is_frozen() -> None:
    recipe = load_recipe(SMALL)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "other"  # type: ignore[misc]
    assert isinstance(recipe.model.sharing.sites(), tuple)


def test_an_error_inside_gets_its_place() -> None:
    recipe = load_recipe(SMALL, ["train.batch_size=7"])
    with pytest.raises(UserError) as caught, recipe.at("model", "sharing"):
        raise UserError("", "what", "todo", path=("after", 1))
    error = caught.value
    assert error.path == ("model", "sharing", "after", 1)
    assert isinstance(error.place, Place)
    assert error.place.file.endswith("recipes/synthetic_stitch.yaml")
    assert str(error).endswith(": model.sharing.after[1]: what; todo")
    with (
        pytest.raises(UserError, match=r"train\.batch_size: row 7: what$"),
        recipe.at("train"),
    ):
        raise UserError("row 7", "what", path=("batch_size",))
    with pytest.raises(ZeroDivisionError), recipe.at("train"):
        _ = 1 / 0


def test_every_error_inside_gets_its_place() -> None:
    from mtl.errors import ManyErrors

    recipe = load_recipe(SMALL)
    with pytest.raises(ManyErrors) as caught, recipe.at("train"):
        raise ManyErrors([UserError("", "a", path=("epochs",)), UserError("", "b")])
    assert [error.path for error in caught.value.errors] == [("train", "epochs"), ("train",)]


def test_plain_leaves_out_what_was_merged_in() -> None:
    recipe = load_recipe("fashion_fast")
    assert {"base", "task_defaults"}.isdisjoint(recipe.plain())
    assert Recipe.model_validate(_tuples(recipe.plain())).sha256() == recipe.sha256()


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


COMPARED = {
    "data.permute_labels": "{tasks: [second], seed: 7}",
    "data.label_fraction": "{first: 0.01, scarce: 1.0}",
    "data.label_seed": "3",
    "data.drop_unlabelled": "true",
    "tasks.first.margin": "0.005",
    "tasks.first.weight_in_verdict": "0",
    "tasks.first.derived_from": "second",
    "tasks.scarce.derived_from": "{task: second, mapping: {'0': 1, '1': '0', x: true}}",
}


def test_what_serves_comparisons_loads_again() -> None:
    """A recipe without these keys says nothing of labels and rows; each of them comes back from its plain values."""
    before = load_recipe(SMALL)
    assert not {"permute_labels", "label_fraction", "label_seed"} & before.plain()["data"].keys()
    assert before.plain()["data"]["drop_unlabelled"] is False
    for key, value in COMPARED.items():
        recipe = load_recipe(SMALL, [f"{key}={value}"])
        assert recipe.plain() != before.plain()
        again = load_recipe(recipe.plain())
        assert again.plain() == recipe.plain()
        assert (again.data, again.tasks) == (recipe.data, recipe.tasks)
    derived = load_recipe(SMALL, [f"{key}={value}" for key, value in COMPARED.items()]).tasks
    assert [derived[task].derives_from for task in derived] == ["second", None, "second"]
    assert derived["scarce"].model_dump()["derived_from"]["mapping"] == {"0": "1", "1": "0", "x": "true"}


def test_there_are_models() -> None:
    assert len(models()) >= 30


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_model_is_strict(model: type[BaseModel]) -> None:
    assert issubclass(model, Model)
    config = model.model_config
    assert config.get("extra") == "forbid"
    assert all(config.get(key) is True for key in ("frozen", "strict", "validate_default"))
    assert config.get("allow_inf_nan") is False
    assert (model.__doc__ or "").strip()


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_number_is_bounded(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    for name, field in schema["properties"].items():
        for number in numbers(field):
            above = {"minimum", "exclusiveMinimum"} & set(number)
            below = {"maximum", "exclusiveMaximum"} & set(number)
            own = name in OWN_CHECK.get(model.__name__, ())
            assert own or (above and below), f"{model.__name__}.{name}"


OWN_CHECK = {"Checkpoints": ("keep",), "Synthetic": ("labelled",)}
"""Bounded by a function, for the sake of its message."""


def numbers(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a field's schema that stand for one number."""
    parts = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [part for part in parts if part.get("type") in ("integer", "number")]
