"""The one reader of recipes: bytes become plain values, each with its line and column.

A recipe is a strict part of YAML 1.2: one document, a mapping at the top, plain scalars as in the core schema.
Tags, anchors, aliases and duplicate keys are refused, and sizes are bounded. YAML 1.1 and 1.2 read some texts
differently (`yes`, `017`, `1:30`); the reader refuses them instead of guessing. PyYAML's event stream does the
parsing.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mtl.errors import KeyPath, Place, UserError, did_you_mean, quoted
from mtl.recipe.text.scalars import scalar

MAX_BYTES = 1_048_576
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_KEY = 200

_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_UNPRINTABLE_NAME = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KINDS = {tuple: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number"}
_NO_ANCHORS = ("anchors and aliases are not allowed", "write the value out, or use task_defaults")
_NOTHING = object()


@dataclass(frozen=True)
class Mark:
    """The place of a value in its file, and the place of its key; for an item of a sequence both are the same."""

    key: Place
    value: Place


@dataclass(frozen=True)
class Document:
    """A recipe's text as plain values: dict, tuple, str, int, float, bool, None.

    Args:
        file: the name of the file in messages.
        value: the mapping at the top; all keys in it, at any depth, are text.
        marks: the place of every value by its path; () is the top.
        text: the bytes that were read.
    """

    file: str
    value: dict[str, Any]
    marks: dict[KeyPath, Mark]
    text: bytes = b""


def place_of(marks: Mapping[KeyPath, Mark], path: KeyPath) -> Place | str:
    """The place of the value at `path`; if that value was not written, the place of the nearest one above it."""
    for length in range(len(path), -1, -1):
        if path[:length] in marks:
            return marks[path[:length]].value
    return ""


def paths_in(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """The path of a value, and the paths of all values in it."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
    for key, item in inner:
        yield from paths_in(item, (*path, key))


def read_file(path: Path, shown: str | None = None) -> Document:
    """Read a recipe file; messages call it `shown`.

    Raises:
        UserError: the file cannot be read, or its text is no recipe.
    """
    name = str(path) if shown is None else shown
    if _UNPRINTABLE_NAME.search(name):
        raise UserError(quoted(name), "the name has a character that cannot be printed", "rename the file")
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise UserError(name, "is a directory", "name the recipe file in it")
        if not stat.S_ISREG(info.st_mode):  # a pipe may never end
            raise UserError(name, "is not a regular file")
        _check_size(info.st_size, name)
        data = path.read_bytes()
    except FileNotFoundError:
        near = did_you_mean(path.name, sorted(other.name for other in path.parent.glob("*.yaml")))
        raise UserError(name, f"no such file{near}") from None
    except PermissionError:
        raise UserError(name, "permission denied") from None
    except OSError as error:
        raise UserError(name, f"cannot be read ({error.strerror})") from None
    return read_bytes(data, name)


def read_bytes(data: bytes, file: str) -> Document:
    """Read a recipe's text; messages call it `file`.

    Raises:
        UserError: the text has a fault; the first one is told, with its line and column.
    """
    _check_size(len(data), file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:  # its positions do not count a byte order mark
        place = _end(error.object[: error.start].decode("utf-8"), file)
        byte = error.object[error.start]
        raise UserError(place, f"not UTF-8 text (byte {byte:#04x})", "save it as UTF-8") from None
    tree = _Tree(file)
    value = tree.build(text)
    if value is _NOTHING:
        raise UserError(file, "the recipe is empty", "`mtl cp fashion_stitch` copies one to start from")
    if not isinstance(value, dict):
        kind = _KINDS.get(type(value), "null")
        raise UserError(tree.marks[()].value, f"a recipe must be a mapping, not {kind}", "write `key: value`")
    return Document(file, value, tree.marks, data)


def read_value(text: str, place: Place) -> Any:
    """The value in an override, after its `=`; every error names `place`.

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


def _check_size(n_bytes: int, file: str) -> None:
    if n_bytes > MAX_BYTES:
        raise UserError(file, f"file is {n_bytes} bytes; a recipe may have at most {MAX_BYTES}")


def _end(text: str, file: str) -> Place:
    """The place after the last character of `text`, which starts at the beginning of the file."""
    lines = _LINE_END.split(text)
    return Place(file, len(lines), len(lines[-1]) + 1)


_REMEDIES = {
    "found character '\\t'": "indent with spaces, not with tabs",
    "found unexpected end of stream": "close the quote that opens {where}",
    "expected ',' or ']'": "close the bracket that opens {where}",
    "expected ',' or '}'": "close the brace that opens {where}",
    "found character": "put quotes around a text that begins with it",
    "expected the node content": "write a value there, or close the bracket or brace",
    "mapping values are not allowed here": "check the indentation, or quote a text that holds a colon",
    "sequence entries are not allowed here": "put each `- entry` on a line of its own",
    "could not find expected ':'": "write `key: value`",
    "expected <block end>, but found '<scalar>'": "check whether a quote before it is closed at the right place",
    "expected <block end>": "give the keys of one mapping the same indentation",
}
"""The beginning of a message of PyYAML -> the advice."""


def _remedy(problem: str, error: yaml.MarkedYAMLError) -> str:
    """The advice on a fault of the text; it names the place where a quote or bracket opens."""
    mark = error.context_mark
    where = f"in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "before"
    return next((a.format(where=where) for b, a in _REMEDIES.items() if problem.startswith(b)), "")


def _events(text: str, file: str) -> Iterator[yaml.Event]:
    """PyYAML's events; its errors become UserErrors."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        code = ord(text[error.position])
        what = f"the character {code:#04x} is not allowed in YAML"
        raise UserError(_end(text[: error.position], file), what) from None
    try:
        while loader.check_event():
            yield loader.get_event()  # type: ignore[no-untyped-call]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or loader.get_mark()
        problem = error.problem or "not valid YAML"
        what = problem if len(problem) <= 120 else problem[:117] + "..."
        raise UserError(Place(file, mark.line + 1, mark.column + 1), what, _remedy(problem, error)) from None
    except (ValueError, OverflowError):  # PyYAML gives "\UFFFFFFFF" to chr() and %YAML 1.111... to int()
        mark = loader.get_mark()
        what = "an escape or version number is out of range"
        raise UserError(Place(file, mark.line + 1, mark.column + 1), what) from None


@dataclass
class _Tree:
    """Builds plain values from events and notes the place of each. The recursion ends at MAX_DEPTH."""

    file: str
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    count: int = 0

    def build(self, text: str) -> Any:
        """The plain value at the top of the text; `marks` then holds the place of each value."""
        value: Any = _NOTHING
        n_documents = 0
        events = _events(text, self.file)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                n_documents += 1
                if n_documents > 1:
                    raise UserError(self._place(event), "more than one YAML document in the file")
                mark = event.start_mark
                if mark is not None and text.startswith("%", mark.index):  # the parser skips unknown ones
                    raise UserError(self._place(event), "YAML directives (%YAML, %TAG) are not allowed")
            elif isinstance(event, yaml.NodeEvent):
                place = self._checked(event)
                if not (isinstance(event, yaml.ScalarEvent) and event.implicit[0] and event.value == ""):
                    value = self._node(event, events, (), Mark(place, place))
        return value

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath, mark: Mark) -> Any:
        self.marks[path] = mark
        if isinstance(event, yaml.ScalarEvent):
            try:
                return scalar(event.value, mark.value, plain=event.implicit[0])
            except UserError as error:
                raise UserError(error.place, error.what, error.todo, path=path) from None
        if len(path) >= MAX_DEPTH:
            raise UserError(mark.value, f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, path)
        items: list[Any] = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            place = self._checked(item)
            items.append(self._node(item, events, (*path, len(items)), Mark(place, place)))
        return tuple(items)

    def _mapping(self, events: Iterator[yaml.Event], path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            place = self._checked(event)
            key = _key(event, place)
            if key in values:
                line = self.marks[(*path, key)].key.line
                raise UserError(place, f"key {quoted(key)} is given twice (first on line {line})")
            item = next(events)
            values[key] = self._node(item, events, (*path, key), Mark(place, self._checked(item)))
        return values

    def _checked(self, event: yaml.Event) -> Place:
        """The place of a node, if a recipe may hold such a node.

        Raises:
            UserError: it may not.
        """
        place = self._place(event)
        self.count += 1
        if self.count > MAX_VALUES:
            raise UserError(place, f"more than {MAX_VALUES} values")
        if getattr(event, "anchor", None) is not None:  # an alias event has an anchor too
            raise UserError(place, *_NO_ANCHORS)
        if (tag := getattr(event, "tag", None)) is not None:
            shown = re.sub("(:python/).*", r"\1...", quoted(tag)[1:-1])
            raise UserError(place, f"tags ({shown}) are not allowed", "write the plain value")
        return place

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        assert mark is not None
        return Place(self.file, mark.line + 1, mark.column + 1)


def _key(event: yaml.Event, place: Place) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise UserError(place, "a key must be plain text")
    key = scalar(event.value, place, plain=event.implicit[0])
    if key == "<<" and event.implicit[0]:
        raise UserError(place, *_NO_ANCHORS)
    if not isinstance(key, str):
        raise UserError(place, f"key {quoted(event.value)} must be text; quote it")
    if len(key) > MAX_KEY:
        raise UserError(place, f"key {quoted(key)} is longer than {MAX_KEY} characters")
    return key
