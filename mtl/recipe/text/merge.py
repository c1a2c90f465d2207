"""Reads, replaces and merges the plain values of a recipe by their paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl.errors import KeyPath
from mtl.recipe.text.yaml import Mark, paths_in


def value_at(value: Any, path: KeyPath) -> Any:
    """The value at `path`, which must exist."""
    for key in path:
        value = value[key]
    return value


def replaced(value: Any, path: KeyPath, new: Any) -> Any:
    """A copy of `value` with `new` at `path`; it shares all other parts with `value`, which stays unchanged."""
    if not path:
        return new
    if isinstance(value, tuple):
        return tuple(replaced(item, path[1:], new) if i == path[0] else item for i, item in enumerate(value))
    return {**value, path[0]: replaced(value.get(path[0]), path[1:], new)}


def merge(
    below: Mapping[str, Any],
    above: Mapping[str, Any],
    marks: dict[KeyPath, Mark],
    above_marks: Mapping[KeyPath, Mark],
    path: KeyPath,
) -> dict[str, Any]:
    """Merge `above` onto `below`, key by key, and update `marks`.

    A list in `above` replaces the old list as a whole; so does a mapping whose `kind` is another one.
    """
    merged = dict(below)
    if path in above_marks:
        marks[path] = above_marks[path]
    for key, value in above.items():
        old, here = merged.get(key), (*path, key)
        if isinstance(value, dict) and isinstance(old, dict) and same_kind(old, value):
            merged[key] = merge(old, value, marks, above_marks, here)
            continue
        merged[key] = value
        if key in below:
            for known in paths_in(old, here):
                marks.pop(known, None)
        marks.update((known, above_marks[known]) for known in paths_in(value, here) if known in above_marks)
    return merged


def same_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two mappings may be merged: they may not name different members of a family."""
    return "kind" not in new or "kind" not in old or new["kind"] == old["kind"]


def marks_in(value: Any, path: KeyPath, marks: Mapping[KeyPath, Mark]) -> dict[KeyPath, Mark]:
    """The marks of the value at `path` and of every value in it; their paths start at that value."""
    return {known[len(path) :]: marks[known] for known in paths_in(value, path) if known in marks}
