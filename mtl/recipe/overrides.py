"""`tasks.garment.weight=2` and `~model.sharing`: changes to a recipe on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtl.errors import KeyPath, Place, UserError, did_you_mean, dotted, quoted, raise_all
from mtl.recipe.yaml import Document, Mark, read_value

COMMAND_LINE = Place("command line")


def apply(document: Document, overrides: Sequence[str]) -> Document:
    """A new document with every override applied, in order.

    `a.b=value` sets the value at a.b, read as in a recipe, and makes the mappings on the way; a mapping
    replaces what was there as a whole; items of a sequence go by number, `stages.0.channels=16`.
    `~a.b` removes a.b. Setting a `kind` sets that key alone: give the whole mapping to change the rest with it.

    Raises:
        UserError: an override has no `=`, its value is not YAML, or its key does not exist; all at once.
    """
    value, marks = document.value, dict(document.marks)
    faults: list[UserError] = []
    for override in overrides:
        try:
            path, new = _parse(override)
            value = _remove(value, path, ()) if new is _GONE else _set(value, path, new, ())
        except UserError as error:
            faults.append(error)
            continue
        for known in [known for known in marks if known[: len(path)] == path]:
            del marks[known]
        if new is not _GONE:
            marks[path] = Mark(COMMAND_LINE, COMMAND_LINE)
    raise_all(faults)
    return Document(document.file, value, marks)


_GONE = object()


def _parse(override: str) -> tuple[KeyPath, Any]:
    """The path, and the new value or `_GONE`."""
    if override.startswith("~"):
        return _path(override[1:], override), _GONE
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(COMMAND_LINE, f"{quoted(override)} is not an override", "write key.sub=value, or ~key to remove")
    path = _path(key, override)
    try:
        return path, read_value(text, COMMAND_LINE)
    except UserError as error:
        raise UserError(COMMAND_LINE, error.what, error.todo, path=path) from None


def _path(key: str, override: str) -> KeyPath:
    parts = key.split(".")
    if not all(part and all(c.isalnum() or c in "_-" for c in part) for part in parts):
        raise UserError(COMMAND_LINE, f"{quoted(override)} has no usable key", "write key.sub=value, or ~key to remove")
    return tuple(int(part) if part.isdecimal() and part.isascii() else part for part in parts)


def _set(value: Any, path: KeyPath, new: Any, above: KeyPath) -> Any:
    if not path:
        return new
    key, rest, here = path[0], path[1:], (*above, path[0])
    if isinstance(value, tuple):
        i = _index(value, key, above)
        return (*value[:i], _set(value[i], rest, new, here), *value[i + 1 :])
    if value is not None and not isinstance(value, dict):
        raise UserError(COMMAND_LINE, f"is {quoted(value)}, which has no key {quoted(key)}", path=above)
    values, name = dict(value or {}), str(key)
    values[name] = _set(values.get(name), rest, new, here)
    return values


def _remove(value: Any, path: KeyPath, above: KeyPath) -> Any:
    key, rest, here = path[0], path[1:], (*above, path[0])
    if isinstance(value, tuple):
        i = _index(value, key, above)
        kept = (_remove(value[i], rest, here),) if rest else ()
        return (*value[:i], *kept, *value[i + 1 :])
    name = str(key)
    if not isinstance(value, dict) or name not in value:
        keys = value if isinstance(value, dict) else ()
        raise UserError(COMMAND_LINE, f"there is no {quoted(dotted(here))} to remove{did_you_mean(name, keys)}")
    values = dict(value)
    if rest:
        values[name] = _remove(values[name], rest, here)
    else:
        del values[name]
    return values


def _index(items: tuple[Any, ...], key: str | int, above: KeyPath) -> int:
    if not isinstance(key, int) or key >= len(items):
        raise UserError(COMMAND_LINE, f"has items 0 to {len(items) - 1}, not {quoted(key)}", path=above)
    return key
