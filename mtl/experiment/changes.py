"""What of a recipe may change when a run goes on: nothing that would make it another run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mtl.errors import KeyPath, UserError, dotted, quoted
from mtl.recipe.keys.recipe import Recipe

FREE: tuple[KeyPath, ...] = (
    ("description",),
    ("train", "checkpoint"),
    ("train", "device"),
    ("train", "init_from"),
    ("train", "threads"),
)
"""Keys that change nothing of what is learned, but for the last bits on another device or number of threads."""
EXTENDABLE: tuple[KeyPath, ...] = (("train", "epochs"), ("train", "max_steps"))
"""Keys that may grow."""
SHOWN = 5


def require_same(run: str, before: Recipe, now: Recipe) -> list[str]:
    """The keys that changed and may, as `train.epochs 30 -> 40`.

    Raises:
        UserError: other keys changed; names them.
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
        free = any(path[: len(key)] == key for key in FREE)
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
