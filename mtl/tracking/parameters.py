"""A recipe as flat parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mtl.recipe.keys.recipe import Recipe

Parameter = str | int | float | bool


def parameters_of(recipe: Recipe) -> dict[str, Parameter]:
    """Dotted key -> value: `model.backbone.stages.0.features` -> 64.

    A list of plain values is one JSON text. The trackers themselves are left out.
    """
    plain = {key: value for key, value in recipe.plain().items() if key != "trackers"}
    return dict(_leaves(plain, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Parameter]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}.{i}")
    elif isinstance(value, (str, int, float)):
        yield path, value
    else:
        yield path, json.dumps(value)
