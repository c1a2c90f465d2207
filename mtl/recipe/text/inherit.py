"""Spreads shared settings: `task_defaults` go under every task, `data.inputs` under every source."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mtl.console import counted
from mtl.errors import KeyPath, UserError
from mtl.recipe.base import MAX_TASKS
from mtl.recipe.text.merge import marks_in, merge, replaced, same_kind, value_at
from mtl.recipe.text.yaml import Document, paths_in, place_of

MAX_SPREAD = 200_000
"""Most values that patterns or `task_defaults` may give to all tasks: ten times the most values of a recipe's text."""


def spread_task_defaults(document: Document) -> Document:
    """Merge `task_defaults` under every task, and remove the key."""
    defaults, tasks = document.value.get("task_defaults"), document.value.get("tasks")
    if not isinstance(defaults, dict) or not isinstance(tasks, dict):
        return document
    marks = dict(document.marks)
    below = marks_in(defaults, ("task_defaults",), marks)
    check_tasks(tasks, document, defaults)
    merged: dict[str, Any] = {}
    for name, task in tasks.items():
        if not isinstance(task, dict):
            merged[name] = task
            continue
        own = marks_in(task, ("tasks", name), marks)
        under = defaults if same_kind(defaults, task) else {}
        joined = dict(below) if under else {}
        merged[name] = merge(under, task, joined, own, ())
        marks.update({("tasks", name, *path): mark for path, mark in joined.items()})
    value = {key: item for key, item in document.value.items() if key != "task_defaults"}
    return Document(document.file, {**value, "tasks": merged}, marks)


def spread_inputs(document: Document) -> Document:
    """Merge `data.inputs` under `inputs` of every source, and remove the key."""
    data = document.value.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("inputs"), dict):
        return document
    marks, data = dict(document.marks), dict(data)
    inputs = data.pop("inputs")
    below = marks_in(inputs, ("data", "inputs"), marks)
    for path in source_paths(data):
        source = value_at(data, path)
        if not isinstance(source, dict):
            continue
        here, joined, mine = (*path, "inputs"), dict(below), source.get("inputs")
        if isinstance(mine, dict):
            mine = merge(inputs, mine, joined, marks_in(mine, ("data", *here), marks), ())
        data = replaced(data, here, inputs if mine is None else mine)
        marks.update({("data", *here, *p): mark for p, mark in joined.items()})
    return Document(document.file, {**document.value, "data": data}, marks)


def source_paths(data: Mapping[str, Any]) -> list[KeyPath]:
    """The path of each source."""
    several = data.get("sources")
    paths: list[KeyPath] = [("source",)] if "source" in data else []
    return paths + [("sources", name) for name in several] if isinstance(several, dict) else paths


def check_tasks(names: Collection[str], document: Document, spread: Any = None) -> None:
    """Refuse too many tasks before anything is copied to each: a short text must not use much memory.

    Raises:
        UserError: there are too many tasks, or the copies would hold too many values.
    """
    if len(names) > MAX_TASKS:
        what = f"{len(names)} tasks given; at most {MAX_TASKS} tasks"
        raise UserError(place_of(document.marks, ("tasks",)), what, path=("tasks",))
    total = len(names) * sum(1 for _ in paths_in(spread, ()))
    if total > MAX_SPREAD:
        what = f"{total} values come out for {counted(len(names), 'task')}; at most {MAX_SPREAD}"
        raise UserError(place_of(document.marks, ("tasks",)), what, path=("tasks",))
