"""recipe.schema.json is fresh, and says yes to every recipe on disk and no to what mtl refuses.

jsonschema is no dependency; `faults` below checks the keywords that the schema uses, and fails at others.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import UserError
from mtl.recipe.json_schema import recipe_schema, schema_text
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import FAMILIES
from mtl.recipe.text.yaml import read_file

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
FAMILY_OF = {  # where each family stands in a recipe
    "source": ("data", "source"),
    "backbone": ("model", "backbone"),
    "sharing": ("model", "sharing"),
    "weighting": ("weighting",),
    "optimizer": ("optimizer",),
    "schedule": ("schedule",),
}
NOTES = {"title", "description", "default", "$schema", "$defs", "discriminator"}
CONTAINERS = {"properties", "patternProperties", "additionalProperties", "prefixItems", "items"}
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def faults(value: Any, schema: Any, root: dict[str, Any], at: str = "") -> Iterator[str]:
    """Why `value` does not fit the schema; nothing if it does."""
    if schema is True:
        return
    if schema is False:
        yield f"{at}: not a key"
        return
    for keyword, wanted in schema.items():
        if keyword not in NOTES and keyword not in CONTAINERS:
            yield from _fault(keyword, wanted, value, root, at)
    if isinstance(value, dict):
        for key, item in value.items():
            patterns = [
                inner for p, inner in schema.get("patternProperties", {}).items() if re.search(p, key)
            ]
            inner = (patterns or [schema.get("additionalProperties", True)])[0]
            yield from faults(item, schema.get("properties", {}).get(key, inner), root, f"{at}.{key}")
    if isinstance(value, list | tuple):
        heads = schema.get("prefixItems", [])
        for i, item in enumerate(value):
            inner = heads[i] if i < len(heads) else schema.get("items", True)
            yield from faults(item, inner, root, f"{at}[{i}]")


def _fault(keyword: str, wanted: Any, value: Any, root: dict[str, Any], at: str) -> Iterator[str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    sized = isinstance(value, list | tuple)
    if keyword == "$ref":
        yield from faults(value, root["$defs"][wanted.removeprefix("#/$defs/")], root, at)
        return
    if keyword in ("anyOf", "oneOf"):
        fitting = [option for option in wanted if not list(faults(value, option, root, at))]
        good = len(fitting) == 1 if keyword == "oneOf" else bool(fitting)
    elif keyword == "allOf":
        good = all(not list(faults(value, option, root, at)) for option in wanted)
    elif keyword == "type":
        good = isinstance(value, TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
    elif keyword == "const":
        good = value == wanted and type(value) is type(wanted)
    elif keyword == "enum":
        good = value in wanted
    elif keyword == "required":
        good = not isinstance(value, dict) or set(wanted) <= set(value)
    elif keyword == "pattern":
        good = not isinstance(value, str) or re.search(wanted, value) is not None
    elif keyword == "propertyNames":
        good = not isinstance(value, dict) or not any(list(faults(key, wanted, root, at)) for key in value)
    elif keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        sign = -1 if "inimum" in keyword else 1
        good = not number or sign * value < sign * wanted or (value == wanted and "exclusive" not in keyword)
    elif keyword in ("minItems", "minLength", "minProperties"):
        of = {"minItems": sized, "minLength": isinstance(value, str)}.get(keyword, isinstance(value, dict))
        good = not of or len(value) >= wanted
    elif keyword in ("maxItems", "maxLength", "maxProperties"):
        of = {"maxItems": sized, "maxLength": isinstance(value, str)}.get(keyword, isinstance(value, dict))
        good = not of or len(value) <= wanted
    else:
        raise AssertionError(f"this checker does not know {keyword!r}")
    if not good:
        yield f"{at}: {keyword} {str(wanted)[:60]}"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return recipe_schema()


def test_the_file_on_disk_is_fresh() -> None:
    """`mtl schema > recipes/recipe.schema.json` makes it so."""
    assert (RECIPES[0].parent / "recipe.schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_text_is_the_schema(schema: dict[str, Any]) -> None:
    assert json.loads(schema_text()) == json.loads(json.dumps(schema))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_on_disk_fits(path: Path, schema: dict[str, Any]) -> None:
    """What has a base fits as far as it is written; merged, it fits as well."""
    merged = load_recipe(path).plain()
    assert list(faults(merged, schema, schema)) == []
    written = read_file(path).value
    if "base" not in written and "task_defaults" not in written:
        assert list(faults(written, schema, schema)) == []


def test_recipes_as_they_are_written_fit(schema: dict[str, Any]) -> None:
    """An editor shows no false alarm in any of our own files, bases and task_defaults included."""
    alarms = {path.stem: list(faults(read_file(path).value, schema, schema)) for path in RECIPES}
    assert {name: found for name, found in alarms.items() if found} == {}


@pytest.mark.parametrize(
    "override",
    [
        "sed=1",
        "seed=-1",
        "seed=true",
        "name=a/b",
        "optimizer.kind=sdg",
        "optimizer.momentum=0.9",
        "optimizer.lr=0",
        "train.epochs=0",
        "train.device=gpu",
        "model.towers=per_tasks",
        "model.towers={}",
        "model.backbone.stages=[]",
        "model.backbone.stages.0.kind=convv",
        "model.sharing.init={convex: 2}",
        "tasks.garment.kind=fashion.garmnt",
        "tasks.audience.groups={}",
        "~optimizer",
        "~model.backbone",
        "~tasks.audience.kind",
    ],
)
def test_both_refuse(override: str, schema: dict[str, Any]) -> None:
    """The editor's underline and mtl's error agree."""
    with pytest.raises(UserError):
        load_recipe("fashion_stitch", [override])
    value = copy.deepcopy(load_recipe("fashion_stitch").plain())
    keys, _, text = override.removeprefix("~").partition("=")
    *above, last = keys.split(".")
    inner: Any = value
    for key in above:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    if override.startswith("~"):
        del inner[last]
    else:
        from mtl.errors import Place
        from mtl.recipe.text.yaml import read_value

        inner[last] = read_value(text, Place("here"))
    assert list(faults(value, schema, schema))


@pytest.mark.parametrize("family", FAMILY_OF)
def test_every_kind_is_offered(family: str, schema: dict[str, Any]) -> None:
    inner: Any = schema["$defs"]["whole"]
    for key in FAMILY_OF[family]:
        inner = inner["properties"][key]
        while "$ref" in inner or "anyOf" in inner:
            inner = inner["anyOf"][0] if "anyOf" in inner else inner
            if "$ref" not in inner:
                break
            inner = schema["$defs"][inner["$ref"].removeprefix("#/$defs/")]
    kinds = [variant["properties"]["kind"]["const"] for variant in inner["oneOf"]]
    assert kinds == list(FAMILIES[family].names())
    for variant in inner["oneOf"]:
        assert "kind" in variant["required"]
        assert variant["additionalProperties"] is False
        assert variant["description"]


def test_every_tracker_is_offered_by_its_name_and_with_its_keys(schema: dict[str, Any]) -> None:
    offered, absent = schema["$defs"]["whole"]["properties"]["trackers"]["anyOf"]
    by_name, with_keys = offered["items"]["anyOf"]
    names = list(FAMILIES["tracker"].names())
    assert by_name == {"enum": names}
    assert [variant["properties"]["kind"]["const"] for variant in with_keys["oneOf"]] == names
    assert absent == {"type": "null"}


def test_every_task_is_offered(schema: dict[str, Any]) -> None:
    text = json.dumps(schema["properties"]["tasks"])
    assert all(f'"const": "{name}"' in text for name in FAMILIES["task"].names())


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    names = re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(schema))
    assert names
    assert set(names) <= set(schema["$defs"])
