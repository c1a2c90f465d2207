"""The keys of a recipe that may change when a run is resumed; no other key may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mtl.errors import KeyPath, UserError, dotted, quoted
from mtl.recipe.keys.recipe import Recipe

FREE: tuple[KeyPath, ...] = (
    ("data", "in_memory"),
    ("description",),
    ("trackers",),
    ("train", "checkpoint"),
    ("train", "device"),
    ("train", "init_from"),
    ("train", "threads"),
)
"""These keys do not affect the result, except its last bits on another device or with other threads."""
FREE_OF_TASKS = ("derived_from", "margin", "weight_in_verdict")
"""Nor do these keys of a task: they serve what stands beside a result."""
EXTENDABLE: tuple[KeyPath, ...] = (("train", "epochs"), ("train", "max_steps"))
"""The values of these keys may grow."""
SHOWN = 5


def require_same(run: str, before: Recipe, now: Recipe) -> list[str]:
    """The permitted changes as texts, such as `train.epochs 30 -> 40`.

    Raises:
        UserError: other keys changed; the message names them.
    """
    old, new = dict(_leaves(before.plain())), dict(_leaves(now.plain()))
    refused: list[str] = []
    allowed: list[str] = []
    for path in dict.fromkeys([*old, *new]):
        was, is_ = old.get(path), new.get(path)
        if was == is_:
            continue
        text = f"{dotted(path)} {quoted(was)} -> {quoted(is_)}"
        grows = path in EXTENDABLE and isinstance(was, int) and isinstance(is_, int) and is_ > was
        of_task = path[:1] == ("tasks",) and path[2:3] != () and path[2] in FREE_OF_TASKS
        free = of_task or any(path[: len(key)] == key for key in FREE)
        (allowed if grows or free else refused).append(text)
    if refused:
        more = f" and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        what = "; ".join(refused[:SHOWN]) + more
        todo = "start a new run or use train.init_from"
        raise UserError(run, f"cannot resume: these keys changed: {what}", todo)
    return allowed


def _leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    else:
        yield path, value
