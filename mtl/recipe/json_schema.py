"""The JSON schema of recipes, for editors and other programs."""

from __future__ import annotations

import json
from typing import Any

from mtl.recipe.schema import Recipe


def recipe_schema() -> dict[str, Any]:
    """Draft 2020-12 schema of a recipe file; `kind` is one of the registered names.

    A recipe with a `base` may leave out what the base gives, so nothing but `schema_version` and `name`
    is required at the top.
    """
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "mtl recipe"
    required = schema.pop("required")
    schema["anyOf"] = [{"required": ["base"]}, {"required": required}]
    return schema


def schema_text() -> str:
    """The schema as the text that is committed as recipes/recipe.schema.json."""
    return json.dumps(recipe_schema(), indent=1, sort_keys=True) + "\n"
