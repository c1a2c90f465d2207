"""A recipe with some of the settings of its `tune`, and the check that it takes each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mtl.errors import UserError, dotted, gathered, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.keys.tune import Range
from mtl.recipe.load import load_recipe

SAME = (
    *(
        "schema_version",
        "base",
        "name",
        "tune",
        "phases",
        "trackers",
        "seed",
        "data.split",
        "data.label_fraction",
    ),
    *("data.source.path", "data.source.validation", "data.source.test", "train.evaluate_every"),
    *("train.select", "train.early_stopping.metric", "train.monitor"),
)
"""Keys that say how settings are measured; they are no settings themselves."""
SPREAD = {"task_defaults": "the key of each task", "data.inputs": "the key of the source"}
"""Keys that are written out in other places before a trial changes anything -> what to name instead."""


def as_override(key: str, value: Any) -> str:
    """A setting as it is written on the command line."""
    return f"{key}={json.dumps(value)}"


def with_settings(recipe: Recipe, overrides: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Recipe:
    """The recipe with some overrides, and without `tune` and other keys; it knows the places of its overrides only.

    Raises:
        UserError: the recipe does not take them.
    """
    plain = {key: value for key, value in recipe.plain().items() if key not in ("tune", *without)}
    return load_recipe(plain, overrides)


def own_settings(recipe: Recipe) -> dict[str, Any] | None:
    """Key -> the value that the recipe itself has, as `tune` writes it; None unless `tune` allows all of them."""
    found = {}
    for key, allowed in recipe.tune.items():
        value = _value_at(recipe.plain(), key)
        if isinstance(allowed, Range):
            low, high = allowed.bounds
            kinds = int if allowed.is_whole else (int, float)
            same = [value] if isinstance(value, kinds) and low <= value <= high else []
        else:
            same = [choice for choice in allowed if _equal(choice, value)]
        if not same or (isinstance(allowed, Range) and isinstance(value, bool)):
            return None
        found[key] = same[0]
    return found


def _value_at(value: Any, key: str) -> Any:
    """The value of a key in plain values; None if it is not there."""
    for part in key.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _equal(choice: Any, value: Any) -> bool:
    """Whether two plain values are the same; True is not 1, and 1 is 1.0."""
    return isinstance(choice, bool) is isinstance(value, bool) and json.loads(json.dumps(choice)) == value


def require_tunable(recipe: Recipe) -> None:
    """Require that the recipe takes each key of `tune`, with each listed value and with both ends of each range.

    Raises:
        UserError: it does not, or a key says how settings are measured; all faults at once.
    """
    faults: list[UserError] = []
    for key, allowed in recipe.tune.items():
        with gathered(faults), recipe.at("tune", key):
            require_setting(key)
            if isinstance(allowed, Range):
                ends = [int(end) if allowed.is_whole else end for end in allowed.bounds]
                for i, end in enumerate(ends):
                    _require_taken(recipe, key, end, (allowed.kind, i))
            else:
                for i, value in enumerate(allowed):
                    _require_taken(recipe, key, value, (i,))
    raise_all(faults)


def require_setting(key: str) -> None:
    """Refuse a key by which the settings of a sweep are measured.

    Raises:
        UserError: the key holds such a key, or lies in it.
    """
    for spread, todo in SPREAD.items():
        if f"{key}.".startswith(f"{spread}."):
            raise UserError("", f"{spread} is written out before a trial begins", f"name {todo}")
    for same in SAME:
        if f"{key}.".startswith(f"{same}.") or f"{same}.".startswith(f"{key}."):
            inside = "" if f"{key}.".startswith(f"{same}.") else f" holds {same}, which"
            what = f"{inside} is the same in every trial, so that their results can be compared".lstrip()
            raise UserError("", what, "take it out of tune")


def _require_taken(recipe: Recipe, key: str, value: Any, path: tuple[str | int, ...]) -> None:
    """Require that the recipe takes one value of a key.

    Raises:
        UserError: it does not (the path is relative to the key in `tune`).
    """
    try:
        with_settings(recipe, (as_override(key, value),))
    except UserError as error:
        first = error.errors[0]
        whole = dotted(first.path)
        named = f"{whole}: {first.what}" if whole and whole != key else first.what
        unknown = first.what.startswith(("unknown key", "there is no"))
        raise UserError("", named, first.todo, path=() if unknown else path) from None
