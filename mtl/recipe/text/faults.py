"""Turns the errors that pydantic raises into lines that a user can act on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from mtl.errors import KeyPath, Place, UserError, did_you_mean, quoted
from mtl.recipe.text.overrides import COMMAND_LINE
from mtl.recipe.text.yaml import Document, place_of

_NAMES = {dict: "mapping", tuple: "list", type(None): "null"}
_EXPECTED = {
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "Input should be a mapping"),
    "tuple_type": "Input should be a list",
}
_DECIMAL_COMMA = re.compile(r"-?[0-9]{1,20},[0-9]{1,20}")
_NAME_PATTERN = re.compile(r"\^\[(?P<first>[^]]*)\]\[(?P<rest>[^]]*)\]\*\$")


def faults_of(error: ValidationError, document: Document, below: KeyPath = ()) -> list[UserError]:
    """One line per error, in the order of the text.

    Args:
        error: what pydantic raised on a part of the document.
        document: the document, which knows the place of each value.
        below: the path of that part.
    """
    errors: list[dict[str, Any]] = [dict(e) for e in error.errors(include_url=False)]
    found = [_fault(e | {"loc": (*below, *e["loc"])}, document) for e in errors if not _counts_wrong_items(e)]
    return _once(sorted(found, key=_position))


def _counts_wrong_items(error: Mapping[str, Any]) -> bool:
    """Whether pydantic calls a list too short only because some items are wrong; each of those has its own line."""
    return error["type"] == "too_short" and bool(len(error["input"]) >= error["ctx"]["min_length"])


def _fault(error: Mapping[str, Any], document: Document) -> UserError:
    """One error of pydantic as one line: the place, the path, what is wrong."""
    path = tuple(part for part in error["loc"] if not str(part).startswith("<") and part != "[key]")
    kind, value = error["type"], error["input"]
    if kind == "missing":
        return _missing(path, document)
    place: Place | str = place_of(document.marks, path)
    if kind in ("unknown_key", "string_pattern_mismatch") and path in document.marks:
        place = document.marks[path].key if kind == "unknown_key" or error["loc"][-1] == "[key]" else place
    what = error["msg"]
    todo = ""
    if kind == "unknown_key" and error["ctx"]["known"]:
        todo = f"known: {error['ctx']['known']}"
    if kind == "unknown_key" and path in (("plugins",), ("plugin",)):
        todo = "plug-ins come from the command line only: --plugin FILE"
    if kind == "string_pattern_mismatch":
        what = f"{_wanted(error['ctx']['pattern'])}, got {quoted(value)}"
    elif kind == "literal_error":
        expected = str(error["ctx"]["expected"])
        known = [name.strip("' ") for name in expected.replace(" or ", ", ").split(", ")]
        what = f"Input should be {expected}, got {quoted(value)}{did_you_mean(value, known)}"
    elif kind not in ("unknown_key", "recipe", "value_error", "assertion_error"):
        for python, ours in (("Tuple ", "List "), ("Dictionary ", "Mapping "), (" after validation", "")):
            what = what.replace(python, ours)
        what = f"{_EXPECTED.get(kind, what)}, got {_NAMES.get(type(value), type(value).__name__)}"
        todo = _with_a_point(kind, value)
        what += "" if value is None or isinstance(value, (dict, tuple)) else f" {quoted(str(value))}"
    return UserError(place, what, todo, path=path)


def _with_a_point(kind: str, value: object) -> str:
    """The advice on a number that is written with a decimal comma; "" for anything else."""
    if kind == "float_type" and isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        return f"write {value.replace(',', '.')}"
    return ""


def _missing(path: KeyPath, document: Document) -> UserError:
    """The error on a missing key; it names the override to add if an override made the mapping or gave its kind."""
    *above, last = path
    places = [place_of(document.marks, p) for p in (tuple(above), (*above, "kind"))]
    if COMMAND_LINE not in places:
        return UserError(places[0], f"missing key {quoted(last)}", path=path)
    todo = f"add {'.'.join(map(str, path))}=VALUE"
    return UserError(COMMAND_LINE, f"missing key {quoted(last)}", todo, path=path)


def _wanted(pattern: str) -> str:
    """What a pattern asks for; a pattern of names is described in words."""
    name = _NAME_PATTERN.fullmatch(pattern)
    if name is None:
        return f"Input should match {pattern}"
    others = name["rest"].replace("A-Za-z0-9", "").replace("\\-", "-")
    *more, last = ["letters", "digits", *map(repr, others)]
    first = {"A-Za-z": "a letter", "A-Za-z0-9": "a letter or digit"}.get(name["first"])
    begin = f", beginning with {first}" if first else ""
    return f"use {', '.join(more)} and {last}{begin}"


def _once(faults: Sequence[UserError]) -> list[UserError]:
    """Leave out repetitions: `task_defaults` are checked with every task, and give the same fault each time."""
    seen: dict[tuple[object, str], UserError] = {}
    for n, fault in enumerate(faults):
        written = isinstance(fault.place, Place) and fault.place.line > 0
        seen.setdefault((fault.place if written else n, fault.what), fault)
    return list(seen.values())


def _position(error: UserError) -> tuple[str, int, int]:
    place = error.place
    return (place.file, place.line, place.column) if isinstance(place, Place) else (place, 0, 0)
