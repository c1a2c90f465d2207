"""Patterns such as `churn_*` name tasks: each column that matches becomes one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from mtl.errors import KeyPath, Place, UserError, quoted, raise_all
from mtl.recipe.base import Kind
from mtl.recipe.specs import SOURCES
from mtl.recipe.text.faults import faults_of
from mtl.recipe.text.files import absolute_path, file_paths, folder_of
from mtl.recipe.text.inherit import check_tasks, source_paths
from mtl.recipe.text.merge import marks_in, merge, replaced, same_kind, value_at
from mtl.recipe.text.yaml import Document, Mark, place_of


def expand_patterns(document: Document) -> Document:
    """Replace each pattern, such as `"churn_*": {kind: binary}`, by one task for each matching column, its target.

    A task may also be named itself. Its own settings then win over those of the pattern, as they win over
    `task_defaults`; null leaves the column out. If the task has another kind, the pattern gives it the target only.
    """
    tasks = document.value.get("tasks")
    if not isinstance(tasks, dict) or not any(map(_is_pattern, tasks)):
        return document
    by_source, marks = _columns(document), dict(document.marks)
    check_tasks([name for name in tasks if not _is_pattern(name) and tasks[name] is not None], document)
    expanded: dict[str, Any] = {}
    pattern_of: dict[str, str] = {}
    for name, task in tasks.items():
        if not _is_pattern(name):
            expanded.setdefault(name, task)
            continue
        for column in _meant_columns(name, task, document, by_source):
            _require_one_pattern(column, name, pattern_of, document)
            own = tasks.get(column, {})
            expanded[column] = _under(name, task, column, own, marks) if isinstance(own, dict) else own
    for column in pattern_of:
        if expanded[column] is None:
            del expanded[column]
    return Document(document.file, _with_towers({**document.value, "tasks": expanded}), marks)


def _meant_columns(
    pattern: str, task: Any, document: Document, by_source: Mapping[str, Sequence[str]]
) -> list[str]:
    """The columns that match a pattern; each can be the name of a task.

    Raises:
        UserError: no column matches, or the pattern names a target itself.
    """
    if isinstance(task, dict) and "target" in task:
        path = ("tasks", pattern, "target")
        what = "the target of a pattern is each column that it finds"
        raise UserError(place_of(document.marks, path), what, "leave it out", path=path)
    place = place_of(document.marks, ("tasks", pattern))
    found = _found(pattern, _columns_for(task, document, by_source), place)
    tasks = document.value["tasks"]
    check_tasks([column for column in found if tasks.get(column, 0) is not None], document, task)
    return found


def _require_one_pattern(column: str, pattern: str, pattern_of: dict[str, str], document: Document) -> None:
    """Record which pattern matched a column.

    Raises:
        UserError: another pattern matched it before.
    """
    if column in pattern_of:
        what = f"column {quoted(column)} has the pattern {quoted(pattern_of[column])} already"
        raise UserError(place_of(document.marks, ("tasks", pattern)), what, path=("tasks", pattern))
    pattern_of[column] = pattern


def _is_pattern(name: str) -> bool:
    return bool(set("*?[") & set(name))


def _found(pattern: str, columns: Sequence[str], place: Place | str) -> list[str]:
    found = [column for column in columns if len(pattern) <= 200 and fnmatchcase(column, pattern)]
    if not found:
        shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
        what = f"no column is called like {quoted(pattern)}; columns: {shown}"
        raise UserError(place, what, path=("tasks", pattern))
    return found


def _under(
    pattern: str, task: Any, column: str, own: Mapping[str, Any], marks: dict[KeyPath, Mark]
) -> Mapping[str, Any] | Any:
    """A pattern's settings for one column, merged below those of the task with that name."""
    if not isinstance(task, dict) or not same_kind(task, own):
        if own:
            return own if "targets" in own else {"target": column, **own}
        marks[("tasks", column)] = marks[("tasks", pattern)]
        return task
    joined = marks_in(task, ("tasks", pattern), marks)
    above = marks_in(own, ("tasks", column), marks)
    merged = merge({**task, "target": column}, own, joined, above, ())
    marks.update({("tasks", column, *path): mark for path, mark in joined.items()})
    return merged


def _with_towers(value: dict[str, Any]) -> dict[str, Any]:
    """Replace patterns in the lists of `model.towers` by the tasks that they match."""
    model = value.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("towers"), dict):
        return value
    plan = {
        tower: tuple(name for item in members for name in _meant_tasks(item, value["tasks"]))
        if isinstance(members, tuple)
        else members
        for tower, members in model["towers"].items()
    }
    return {**value, "model": {**model, "towers": plan}}


def _meant_tasks(item: Any, tasks: Mapping[str, Any]) -> Sequence[Any]:
    if not isinstance(item, str) or not _is_pattern(item) or len(item) > 200:
        return (item,)
    return [task for task in tasks if fnmatchcase(task, item)] or (item,)


def _columns_for(task: Any, document: Document, by_source: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The columns that a pattern may match: those of the source that its task names, else those of all sources."""
    own = task if isinstance(task, dict) else {}
    defaults = document.value.get("task_defaults")
    below = defaults if isinstance(defaults, dict) and same_kind(defaults, own) else {}
    source = own.get("source", below.get("source"))
    if isinstance(source, str) and source in by_source:
        return by_source[source]
    return tuple(dict.fromkeys(column for columns in by_source.values() for column in columns))


def _columns(document: Document) -> dict[str, tuple[str, ...]]:
    """Source -> its columns; a source without a name is called ''."""
    data = document.value.get("data")
    names: dict[str, tuple[str, ...]] = {}
    for path in source_paths(data) if isinstance(data, dict) else []:
        here, value = ("data", *path), value_at(data, path)
        try:
            kind = Kind(SOURCES)
            for below, written in file_paths(kind.resolve(value), ()):
                folder = folder_of(place_of(document.marks, (*here, *below)))
                value = replaced(value, below, absolute_path(folder, written))
            header = kind.resolve(value).header()
        except ValidationError as error:
            raise_all(faults_of(error, document, here))
        except UserError as error:
            raise_all([_placed(e, here, document) for e in error.errors])
        names[str(path[1]) if len(path) > 1 else ""] = tuple(header.known)
    return names


def _placed(error: UserError, below: KeyPath, document: Document) -> UserError:
    path = (*below, *error.path)
    return type(error)(place_of(document.marks, path), error.what, error.todo, path=path)
