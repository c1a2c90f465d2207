"""The JSON schema of recipes, for editors and other programs."""

from __future__ import annotations

import json
from typing import Any

from mtl.recipe.keys.recipe import Recipe


def recipe_schema() -> dict[str, Any]:
    """Draft 2020-12 schema of a recipe file; the schema lists the registered names for each `kind`.

    A recipe without `base` and `task_defaults` must fit `whole`. A recipe with one of them may leave out any
    key, but each key that it gives must be right.
    """
    whole = Recipe.model_json_schema()
    definitions = whole.pop("$defs")
    partial = {f"partial{name}": _partial(schema) for name, schema in definitions.items()}
    schema: dict[str, Any] = _partial(whole)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mtl recipe"
    schema["required"] = ["name", "schema_version"]
    schema["anyOf"] = [{"required": ["base"]}, {"required": ["task_defaults"]}, {"$ref": "#/$defs/whole"}]
    schema["$defs"] = {**definitions, **partial, "whole": whole}
    return schema


def _partial(schema: Any) -> Any:
    """The same schema, but without required keys; even the `kind` of a member may be missing."""
    if isinstance(schema, list):
        return [_partial(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    loose: dict[str, Any] = {}
    for key, item in schema.items():
        if key == "$ref":
            loose[key] = item.replace("#/$defs/", "#/$defs/partial")
        elif key in ("oneOf", "anyOf"):
            loose["anyOf"] = _partial(item)
        elif key not in ("required", "default", "minProperties"):
            loose[key] = _partial(item)
    return loose


def schema_text() -> str:
    """The text of recipes/recipe.schema.json."""
    return json.dumps(recipe_schema(), indent=1, sort_keys=True) + "\n"
