"""The one reader of recipes: bytes -> plain values, and the line and column of each.

A strict part of YAML 1.2: one document, a mapping at the top, plain scalars as in the core schema, no tags,
anchors, aliases or duplicate keys, bounded sizes. Built on PyYAML's event stream.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mtl.errors import KeyPath, Place, UserError, quoted

MAX_BYTES = 1_048_576
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_TEXT = 4096
MAX_KEY = 200
MAX_DIGITS = 20

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_AMBIGUOUS = frozenset("yes no on off y n".split())
_REFUSED = (
    (re.compile(r"[-+]?0[0-9]+"), "a leading zero is ambiguous in {}: leave it out, or quote it to mean text"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*"), "'_' is not allowed in the number {}: leave it out, or quote it"),
    (re.compile(r"[-+]?0[xo][0-9a-fA-F]+"), "{} is not decimal: write the number in decimal, or quote it"),
    (re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+"), "{} may mean a time or a number: quote it to mean text"),
)


@dataclass(frozen=True)
class Mark:
    """Where a value stands in its file, and where its key does (for an item of a sequence: the same)."""

    key: Place
    value: Place


@dataclass(frozen=True)
class Document:
    """A recipe's text as plain values: dict, tuple, str, int, float, bool, None.

    Args:
        file: its name in messages.
        value: the top mapping.
        marks: the place of every value by its path; () is the top.
    """

    file: str
    value: dict[str, Any]
    marks: Mapping[KeyPath, Mark]


def place_of(marks: Mapping[KeyPath, Mark], path: KeyPath) -> Place | str:
    """Where the value at `path` stands, or else the nearest one above it that was written."""
    for length in range(len(path), -1, -1):
        if path[:length] in marks:
            return marks[path[:length]].value
    return ""


def read_file(path: Path, shown: str | None = None) -> Document:
    """Read a recipe file; `shown` is its name in messages.

    Raises:
        UserError: the file cannot be read, or its text is not what a recipe may be.
    """
    name = shown or str(path)
    try:
        if path.is_dir():
            raise UserError(name, "is a directory", "give the recipe file in it")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(name, f"file is {size} bytes; a recipe may have at most {MAX_BYTES}")
        data = path.read_bytes()
    except FileNotFoundError:
        beside = [entry.name for entry in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        hint = f" (did you mean {quoted(near[0])}?)" if near else ""
        raise UserError(name, f"no such file{hint}") from None
    except PermissionError:
        raise UserError(name, "permission denied") from None
    except (OSError, ValueError) as error:
        raise UserError(name, f"cannot be read: {quoted(str(error))}") from None
    return read_bytes(data, name)


def read_bytes(data: bytes, file: str) -> Document:
    """Read a recipe's text.

    Raises:
        UserError: at the first fault, with its line and column.
    """
    if len(data) > MAX_BYTES:
        raise UserError(file, f"file is {len(data)} bytes; a recipe may have at most {MAX_BYTES}")
    tree = _Tree(file)
    value = tree.build(_decode(data, file))
    if value is _NOTHING:
        raise UserError(file, "the recipe is empty", "mtl cp fashion_stitch gives one to start from")
    if not isinstance(value, dict):
        what = "list" if isinstance(value, tuple) else "text" if isinstance(value, str) else type(value).__name__
        raise UserError(tree.marks[()].value, f"a recipe must be a mapping, not a {what}")
    return Document(file, value, tree.marks)


def read_value(text: str, place: Place) -> Any:
    """One value, as it stands behind the `=` of an override; every error has `place`.

    Raises:
        UserError: the text is not one value.
    """
    try:
        value = _Tree(place.file).build(text)
    except UserError as error:
        raise UserError(place, error.what, error.todo) from None
    if value is _NOTHING:
        raise UserError(place, "the value is missing", "write null for none, or '' for an empty text")
    return value


_NOTHING = object()


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        start = before.rfind("\n") + 1
        place = Place(file, before.count("\n") + 1, len(before) - start + 1)
        raise UserError(place, f"not UTF-8 text (byte 0x{data[error.start]:02x})", "save it as UTF-8") from None


@dataclass
class _Tree:
    """Builds plain values from PyYAML's events."""

    file: str
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    count: int = 0

    def build(self, text: str) -> Any:
        try:
            events = yaml.parse(text, Loader=yaml.SafeLoader)
            return self._document(events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise UserError(self._place(mark), _one_line(error.problem or "not valid YAML")) from None
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            place = Place(self.file, before.count("\n") + 1, error.position - before.rfind("\n"))
            code = error.character if isinstance(error.character, int) else ord(error.character)
            raise UserError(place, f"the character {code:#04x} is not allowed in YAML") from None

    def _document(self, events: Iterator[yaml.Event]) -> Any:
        value: Any = _NOTHING
        n_documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                n_documents += 1
                if n_documents > 1:
                    raise UserError(self._place(event.start_mark), "more than one YAML document in the file")
                if event.version or event.tags:
                    raise UserError(self._place(event.start_mark), "YAML directives are not allowed")
            elif isinstance(event, yaml.NodeEvent):
                place = self._place(event.start_mark)
                if isinstance(event, yaml.ScalarEvent) and event.value == "" and event.implicit[0]:
                    continue
                value = self._node(event, events, (), place, 1)
        return value

    def _node(
        self, event: yaml.NodeEvent, events: Iterator[yaml.Event], path: KeyPath, key: Place, depth: int
    ) -> Any:
        place = self._place(event.start_mark)
        self._check_node(event, place)
        self.marks[path] = Mark(key, place)
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event, place)
        if depth > MAX_DEPTH:
            raise UserError(place, f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                here = self._place(item.start_mark)
                items.append(self._node(item, events, (*path, len(items)), here, depth + 1))
            return tuple(items)
        return self._mapping(events, path, depth)

    def _mapping(self, events: Iterator[yaml.Event], path: KeyPath, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            place = self._place(event.start_mark)
            self._check_node(event, place)
            key = _key(event, place)
            if key in values:
                first = self.marks[(*path, key)].key
                raise UserError(place, f"key {quoted(key)} is given twice (first on line {first.line})")
            values[key] = self._node(next(events), events, (*path, key), place, depth + 1)
        return values

    def _check_node(self, event: yaml.NodeEvent, place: Place) -> None:
        self.count += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise UserError(
                place, "anchors and aliases are not allowed; write the value out, or use task_defaults"
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise UserError(place, f"tags ({_cut(tag)}) are not allowed", "write the plain value")
        if self.count > MAX_VALUES:
            raise UserError(place, f"more than {MAX_VALUES} values")

    def _place(self, mark: Any) -> Place:
        return Place(self.file, mark.line + 1, mark.column + 1) if mark is not None else Place(self.file)


def _key(event: yaml.NodeEvent, place: Place) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise UserError(place, "a key must be a plain text")
    value = _scalar(event, place)
    if event.value == "<<" and event.implicit[0]:
        raise UserError(place, "anchors and aliases are not allowed; write the value out, or use task_defaults")
    if not isinstance(value, str):
        raise UserError(place, f"key {quoted(event.value)} must be text; quote it")
    if len(value) > MAX_KEY:
        raise UserError(place, f"a key may have at most {MAX_KEY} characters")
    return value


def _scalar(event: yaml.ScalarEvent, place: Place) -> Any:
    """A scalar by the core schema of YAML 1.2, ambiguous words and numbers refused."""
    text = event.value
    if len(text) > MAX_TEXT:
        raise UserError(place, f"value is longer than {MAX_TEXT} characters")
    if not event.implicit[0]:
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if text.lower() in _AMBIGUOUS or text.lower() in ("true", "false", "null"):
        raise UserError(place, f"ambiguous word {quoted(text)}: write true/false, or quote it to mean text")
    for pattern, what in _REFUSED:
        if pattern.fullmatch(text):
            raise UserError(place, what.format(quoted(text)))
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-")) > MAX_DIGITS:
            raise UserError(place, "whole number with too many digits")
        return int(text)
    if _NOT_FINITE.fullmatch(text):
        raise UserError(place, "infinite and NaN values are not allowed")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise UserError(place, f"{quoted(text)} is too large")
        return number
    return text


def _cut(text: str) -> str:
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _one_line(problem: str) -> str:
    return _cut(" ".join(problem.split())) if not problem.isprintable() or len(problem) > 200 else problem
