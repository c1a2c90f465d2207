"""Which keys all members of a family have, and where a recipe holds members."""

from __future__ import annotations

from typing import Any

import pytest

from mtl.errors import KeyPath
from mtl.recipe.kinds import common_keys
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import FAMILIES
from tests.support.recipes import SMALL, small, table

SEVERAL = small(data={"sources": {"one": table("t.csv", "x"), "two": table("u.csv", "x")}})


@pytest.mark.parametrize(
    ("recipe", "path", "family"),
    [
        (SMALL, ("data", "source"), "source"),
        (SEVERAL, ("data", "sources", "one"), "source"),
        (SMALL, ("tasks", "a"), "task"),
        (SMALL, ("model", "backbone"), "backbone"),
        (small(model__sharing={"kind": "none"}), ("model", "sharing"), "sharing"),
        (small(weighting={"kind": "sum"}), ("weighting",), "weighting"),
        (SMALL, ("optimizer",), "optimizer"),
        (small(schedule={"kind": "cosine"}), ("schedule",), "schedule"),
        (small(trackers=({"kind": "tensorboard"},)), ("trackers", 0), "tracker"),
    ],
)
def test_each_family_is_found(recipe: dict[str, Any], path: KeyPath, family: str) -> None:
    assert set(common_keys(recipe, path) or ()) == set(FAMILIES[family].base.model_fields)


def test_the_cases_are_all_families() -> None:
    (mark,) = test_each_family_is_found.pytestmark  # type: ignore[attr-defined]
    assert {case[2] for case in mark.args[1]} == set(FAMILIES)


def test_stages_are_found_in_the_backbone_of_their_kind() -> None:
    recipe = load_recipe(SMALL).plain()
    stages = {**recipe, "model": {"backbone": {"kind": "layers", "stages": ({"kind": "linear"},)}}}
    assert set(common_keys(stages, ("model", "backbone", "stages", 0)) or ()) == {"kind", "name"}
    stages["model"]["backbone"]["kind"] = "nonesuch"
    assert common_keys(stages, ("model", "backbone", "stages", 0)) is None


@pytest.mark.parametrize("path", [(), ("data",), ("data", "split"), ("model", "head"), ("train",), ("zz",)])
def test_other_mappings_are_of_no_family(path: KeyPath) -> None:
    assert common_keys(small(data__split={}, model__head={}, zz={}), path) is None
