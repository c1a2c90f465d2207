"""Overrides change a recipe from the command line: `tasks.garment.weight=2` sets, `~model.sharing` removes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mtl.errors import KeyPath, Place, UserError, did_you_mean, dotted, gathered, quoted, raise_all
from mtl.recipe.kinds import common_keys
from mtl.recipe.text.merge import marks_in, same_kind, value_at
from mtl.recipe.text.yaml import MAX_DEPTH, MAX_KEY, Document, Mark, paths_in, read_value

COMMAND_LINE = Place("command line")

_MARK = Mark(COMMAND_LINE, COMMAND_LINE)
_FORM = "write key.sub=value, or ~key.sub to remove"
_GONE = object()


def apply(document: Document, overrides: Sequence[str]) -> Document:
    """A new document with every override applied, in order.

    `a.b=value` sets the value at a.b and creates missing mappings on the way. The value is read as in a recipe. A
    mapping replaces the old value as a whole. Items of a sequence have numbers: `stages.0.channels=16`.
    `~a.b` removes a.b. Another `kind` makes the mapping a member of that kind: the keys of the old kind are removed.
    The keys that all members of the family have stay, and so do those that other overrides set, before or after it.

    Raises:
        UserError: an override has no `=`, its value is not YAML, or its key does not exist; all faults at once.
    """
    refuse_spaces(overrides)
    faults: list[UserError] = []
    for override in overrides:
        with gathered(faults):
            document = _apply(document, override)
    raise_all(faults)
    return document


def refuse_spaces(texts: Sequence[str]) -> None:
    """Refuse `optimizer.lr = 1`, which the shell has cut into several arguments.

    Raises:
        UserError: an argument begins with `=`, and the one before it is no file.
    """
    for i, (key, text) in enumerate(pairwise(texts), 1):
        if text.startswith("=") and "=" not in key and not os.path.isfile(key):
            value = text[1:] or (texts[i + 1] if i + 1 < len(texts) else "value")
            what = f"there are spaces around the = of {quoted(key)}"
            raise UserError(COMMAND_LINE, what, f"write {quoted(f'{key}={value}')}")


def _apply(document: Document, override: str) -> Document:
    if override.startswith("~"):
        path, _ = _resolve(document.value, _keys(override[1:], override), must_exist=True)
        marks = _marks_without(document.marks, path)
        return Document(document.file, _put(document.value, path, _GONE), marks)
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(COMMAND_LINE, f"{quoted(override)} is not an override", _FORM)
    keys = _keys(key, override)
    try:
        new = read_value(text, COMMAND_LINE)
    except UserError as error:
        raise UserError(COMMAND_LINE, error.what, error.todo, path=keys) from None
    path, n_found = _resolve(document.value, keys)
    if path[-1] == "kind" and n_found == len(path):
        document = _without_old_kind(document, path[:-1], new)
    marks = {known: mark for known, mark in document.marks.items() if known[: len(path)] != path}
    marks.update((path[:n], _MARK) for n in range(n_found + 1, len(path)))
    marks.update((inner, _MARK) for inner in paths_in(new, path))
    return Document(document.file, _put(document.value, path, new), marks)


def _without_old_kind(document: Document, path: KeyPath, kind: Any) -> Document:
    """The document without the keys at `path` that only the old kind has, if the mapping there is of another kind."""
    old, common = value_at(document.value, path), common_keys(document.value, path)
    if common is None or same_kind(old, {"kind": kind}):
        return document
    kept = {}
    for key, value in old.items():
        part = value if key in common else _given(value, (*path, key), document.marks)
        if part is not None:
            kept[key] = part
    inner = marks_in(kept, path, document.marks)
    marks = {known: mark for known, mark in document.marks.items() if known[: len(path)] != path}
    marks |= {(*path, *known): mark for known, mark in inner.items()}
    return Document(document.file, _put(document.value, path, kept), marks)


def _given(value: Any, path: KeyPath, marks: Mapping[KeyPath, Mark]) -> Any:
    """The part of a value that overrides have set; None if they have set nothing in it."""
    if marks.get(path) == _MARK:
        return value
    inner = value.items() if isinstance(value, dict) else ()
    found = {key: part for key, item in inner if (part := _given(item, (*path, key), marks)) is not None}
    return found or None


def _keys(text: str, override: str) -> tuple[str, ...]:
    keys = tuple(text.split("."))
    if len(keys) > MAX_DEPTH:
        raise UserError(COMMAND_LINE, f"{quoted(override)} is nested deeper than {MAX_DEPTH}")
    if not all(0 < len(key) <= MAX_KEY and all(c.isalnum() or c in "_-*?" for c in key) for key in keys):
        raise UserError(COMMAND_LINE, f"{quoted(override)} has no usable key", _FORM)
    return keys


def _resolve(value: Any, keys: tuple[str, ...], must_exist: bool = False) -> tuple[KeyPath, int]:
    """The path, with numbers for items of sequences; and how many of its keys lead to a value other than null.

    Raises:
        UserError: a key leads nowhere: it lies in a number or past a sequence's end, or `must_exist` and it is new.
    """
    path: KeyPath = ()
    n_found = 0
    for key in keys:
        if isinstance(value, tuple):
            if not (key.isascii() and key.isdecimal() and len(key) <= 9 and int(key) < len(value)):
                held = f"has items 0 to {len(value) - 1}" if value else "has no items"
                raise UserError(COMMAND_LINE, f"{held}, not {quoted(key)}", path=path)
            path = (*path, int(key))
            value = value[int(key)]
        else:
            known = value if isinstance(value, dict) else {}
            if must_exist and key not in known:
                lost = quoted(dotted((*path, key)))
                raise UserError(COMMAND_LINE, f"there is no {lost} to remove{did_you_mean(key, known)}")
            if not isinstance(value, dict) and value is not None:
                raise UserError(
                    COMMAND_LINE, f"is {quoted(value)}, which has no key {quoted(key)}", path=path
                )
            path = (*path, key)
            value = known.get(key)
        n_found += value is not None
    return path, n_found


def _put(value: Any, path: KeyPath, new: Any) -> Any:
    """A copy of `value` with `new` at the path, or without the path; it shares all other parts with `value`."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    removes = new is _GONE and not rest
    if isinstance(key, int):
        kept = () if removes else (_put(value[key], rest, new),)
        return (*value[:key], *kept, *value[key + 1 :])
    values: dict[str, Any] = dict(value or {})
    if removes:
        del values[key]
    else:
        values[key] = _put(values.get(key), rest, new)
    return values


def _marks_without(marks: Mapping[KeyPath, Mark], path: KeyPath) -> dict[KeyPath, Mark]:
    """The marks after `path` is removed; later items of the same sequence move up by one."""
    *above, last = path
    n = len(above)
    left = {}
    for known, mark in marks.items():
        here = known[n] if len(known) > n and list(known[:n]) == above else None
        if here is not None and here == last:
            continue
        if isinstance(here, int) and isinstance(last, int) and here > last:
            known = (*known[:n], here - 1, *known[n + 1 :])
        left[known] = mark
    return left
