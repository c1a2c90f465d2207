"""A recipe's text, its base and its overrides -> one checked Recipe; every error at once."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from mtl.errors import KeyPath, Place, UserError, did_you_mean, quoted, raise_all
from mtl.recipe import overrides as override_texts
from mtl.recipe.base import IsPath, Kind
from mtl.recipe.scalars import scalar
from mtl.recipe.schema import MAX_TASKS, SCHEMA_VERSION, Recipe
from mtl.recipe.spec import SOURCES
from mtl.recipe.yaml import MAX_VALUES, Document, Mark, paths_in, place_of, read_file

BUILT_IN = Path(__file__).parent.parent / "recipes"

MAX_BASES = 8
MAX_SPREAD = 200_000
"""Values that patterns or `task_defaults` may spread over all tasks, ten times those of a recipe's text."""


def built_in_names() -> tuple[str, ...]:
    """The recipes that ship with mtl."""
    return tuple(sorted(path.stem for path in BUILT_IN.glob("*.yaml")))


def find(name: str) -> Path:
    """The file of a recipe given as a path or as the name of a built-in one.

    Raises:
        UserError: it is no path and no built-in recipe is called that.
    """
    if name in built_in_names() and not os.path.isfile(name):  # a run folder may be called like its recipe
        return BUILT_IN / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")) or os.sep in name or os.path.exists(name):
        return Path(name)
    raise UserError(
        quoted(name),
        f"no such file, and no built-in recipe has that name{did_you_mean(name, built_in_names())}",
        f"built-in: {', '.join(built_in_names())}",
    )


def load_recipe(source: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Read, merge and check a recipe.

    Args:
        source: a path, the name of a built-in recipe, or the recipe as a mapping.
        overrides: `key.sub=value` and `~key`, as on the command line.

    Raises:
        UserError: with every fault that was found (`ManyErrors` if there are several).
    """
    written = _read(source)
    document = override_texts.apply(_merge_bases(written), overrides)
    document = _expand_patterns(_spread_inputs(document))
    if isinstance(document.value.get("tasks"), dict):
        _check_tasks(document.value["tasks"], document)
    document = _spread_task_defaults(document)
    _check_version(document)
    recipe = _validate(document)
    absolute = _with_absolute_paths(recipe, document)
    if absolute is not document:
        recipe = _validate(absolute)
    return recipe.written(document.marks, written.text)


def _read(source: str | os.PathLike[str] | Mapping[str, Any]) -> Document:
    if isinstance(source, Mapping):
        top = Place("recipe")
        return Document("recipe", _tuples(source), {(): Mark(top, top)})
    path = find(os.fspath(source))
    return read_file(path, str(source) if path.parent != BUILT_IN else str(path))


def _tuples(value: Any) -> Any:
    """Lists become tuples, as the reader of files gives them."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _merge_bases(document: Document, depth: int = 0, above: int = 0) -> Document:
    """The document on top of the recipe that its `base` names, and so on down; `above` counts values so far."""
    base = document.value.get("base")
    if base is None:
        return document
    place = place_of(document.marks, ("base",))
    if not isinstance(base, str):
        raise UserError(place, f"Input should be a valid string, got {quoted(base)}", path=("base",))
    if depth == MAX_BASES:
        raise UserError(place, f"more than {MAX_BASES} recipes on top of each other", path=("base",))
    if base in built_in_names():
        path = BUILT_IN / f"{base}.yaml"
    else:
        folder = _folder(place)
        path = folder / base
        if not base.isprintable():
            raise UserError(place, f"no such recipe {quoted(base)}", path=("base",))
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            todo = "name a built-in recipe or a file beside it"
            raise UserError(place, f"{quoted(base)} is outside the recipe's folder", todo, path=("base",))
        if not os.path.isfile(path):
            near = did_you_mean(base, built_in_names())
            raise UserError(place, f"no such recipe {quoted(base)}{near}", path=("base",))
    total = above + len(document.marks)
    if total > MAX_VALUES:
        raise UserError(
            place, f"more than {MAX_VALUES} values in recipes on top of each other", path=("base",)
        )
    below = _merge_bases(read_file(path), depth + 1, total)
    marks = dict(below.marks)
    value = _merge(below.value, document.value, marks, document.marks, ())
    value.pop("base")
    return Document(document.file, value, marks)


def _merge(
    below: Mapping[str, Any],
    above: Mapping[str, Any],
    marks: dict[KeyPath, Mark],
    above_marks: Mapping[KeyPath, Mark],
    path: KeyPath,
) -> dict[str, Any]:
    """`above` on `below`, key by key; `marks` are brought up to date.

    A list, and a mapping whose `kind` changes, replace what was there as a whole.
    """
    merged = dict(below)
    if path in above_marks:
        marks[path] = above_marks[path]
    for key, value in above.items():
        old, here = merged.get(key), (*path, key)
        if isinstance(value, dict) and isinstance(old, dict) and _same_kind(old, value):
            merged[key] = _merge(old, value, marks, above_marks, here)
            continue
        merged[key] = value
        if key in below:
            for known in paths_in(old, here):
                marks.pop(known, None)
        marks.update((known, above_marks[known]) for known in paths_in(value, here) if known in above_marks)
    return merged


def _marks_in(value: Any, path: KeyPath, marks: Mapping[KeyPath, Mark]) -> dict[KeyPath, Mark]:
    """The marks of the value at `path` and of all in it, by their paths from there."""
    return {known[len(path) :]: marks[known] for known in paths_in(value, path) if known in marks}


def _same_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "kind" not in new or "kind" not in old or new["kind"] == old["kind"]


def _spread_inputs(document: Document) -> Document:
    """`data.inputs` merged under `inputs` of every source."""
    data = document.value.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("inputs"), dict):
        return document
    marks, data = dict(document.marks), dict(data)
    inputs = data.pop("inputs")
    below = _marks_in(inputs, ("data", "inputs"), marks)
    for path in _source_paths(data):
        source = _at(data, path)
        if isinstance(source, dict):
            joined, mine = dict(below), source.get("inputs")
            own = _marks_in(mine, ("data", *path, "inputs"), marks)
            merged = _merge(inputs, mine, joined, own, ()) if isinstance(mine, dict) else inputs
            data = _replaced(
                data,
                path,
                {**source, "inputs": mine if mine is not None and not isinstance(mine, dict) else merged},
            )
            marks.update({("data", *path, "inputs", *p): mark for p, mark in joined.items()})
    return Document(document.file, {**document.value, "data": data}, marks)


def _source_paths(data: Mapping[str, Any]) -> list[KeyPath]:
    """Where sources stand below `data`."""
    several = data.get("sources")
    paths: list[KeyPath] = [("source",)] if "source" in data else []
    return paths + [("sources", name) for name in several] if isinstance(several, dict) else paths


def _at(value: Any, path: KeyPath) -> Any:
    for key in path:
        value = value[key]
    return value


def _expand_patterns(document: Document) -> Document:
    """Tasks such as `"churn_*": {kind: binary}`: one task for each column of that name, its target.

    A task that is named itself keeps what it says; the pattern is merged underneath, as `task_defaults` are, and
    null leaves the column out.
    """
    tasks = document.value.get("tasks")
    if not isinstance(tasks, dict) or not any(map(_is_pattern, tasks)):
        return document
    columns = _columns(document)
    marks = dict(document.marks)
    expanded: dict[str, Any] = {}
    owner: dict[str, str] = {}
    _check_tasks([name for name in tasks if not _is_pattern(name) and tasks[name] is not None], document)
    for name, task in tasks.items():
        if not _is_pattern(name):
            expanded.setdefault(name, task)
            continue
        place = place_of(document.marks, ("tasks", name))
        if isinstance(task, dict) and "target" in task:
            what = "the target of a pattern is each column that it finds"
            raise UserError(
                place_of(document.marks, ("tasks", name, "target")), what, "leave it out",
                path=("tasks", name, "target"),
            )  # fmt: skip
        found = _found(name, columns, place)
        _check_tasks([column for column in found if tasks.get(column, 0) is not None], document, task)
        for column in found:
            if column in owner:
                what = f"column {quoted(column)} has the pattern {quoted(owner[column])} already"
                raise UserError(place, what, path=("tasks", name))
            owner[column] = name
            own = tasks.get(column, {})
            expanded[column] = _under(name, task, column, own, marks) if isinstance(own, dict) else own
    for column in owner:
        if expanded[column] is None:
            del expanded[column]
    return Document(document.file, _with_towers({**document.value, "tasks": expanded}), marks)


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
    """What a pattern says of one column, below what the recipe says of the task of that name."""
    if not isinstance(task, dict) or not _same_kind(task, own):
        if not own:
            marks[("tasks", column)] = marks[("tasks", pattern)]
        return own or task
    joined = _marks_in(task, ("tasks", pattern), marks)
    above = _marks_in(own, ("tasks", column), marks)
    merged = _merge({**task, "target": column}, own, joined, above, ())
    marks.update({("tasks", column, *path): mark for path, mark in joined.items()})
    return merged


def _with_towers(value: dict[str, Any]) -> dict[str, Any]:
    """Patterns in the lists of `model.towers`, as the tasks that they mean."""
    model = value.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("towers"), dict):
        return value
    plan = {
        tower: tuple(name for item in members for name in _meant(item, value["tasks"]))
        if isinstance(members, tuple)
        else members
        for tower, members in model["towers"].items()
    }
    return {**value, "model": {**model, "towers": plan}}


def _meant(item: Any, tasks: Mapping[str, Any]) -> Sequence[Any]:
    if not isinstance(item, str) or not _is_pattern(item) or len(item) > 200:
        return (item,)
    return [task for task in tasks if fnmatchcase(task, item)] or (item,)


def _columns(document: Document) -> tuple[str, ...]:
    """Every column of the sources, for patterns."""
    data = document.value.get("data")
    names: dict[str, None] = {}
    for path in _source_paths(data) if isinstance(data, dict) else []:
        here, value = ("data", *path), _at(data, path)
        try:
            kind = Kind(SOURCES)
            for below, written in _paths(kind.resolve(value), ()):
                folder = _folder(place_of(document.marks, (*here, *below)))
                value = _replaced(value, below, str((folder / written).absolute()))
            header = kind.resolve(value).header()
        except ValidationError as error:
            found = [dict(e) | {"loc": (*here, *e["loc"])} for e in error.errors(include_url=False)]
            raise_all([_user_error(e, document) for e in found])
        except UserError as error:
            raise_all(
                [
                    UserError(
                        place_of(document.marks, (*here, *e.path)), e.what, e.todo, path=(*here, *e.path)
                    )
                    for e in error.errors
                ]
            )
        names.update(dict.fromkeys(header.columns or header.labels))
    return tuple(names)


def _spread_task_defaults(document: Document) -> Document:
    """`task_defaults` merged under every task, and then left out."""
    defaults, tasks = document.value.get("task_defaults"), document.value.get("tasks")
    if not isinstance(defaults, dict) or not isinstance(tasks, dict):
        return document
    marks = dict(document.marks)
    below = _marks_in(defaults, ("task_defaults",), marks)
    _check_tasks(tasks, document, defaults)
    merged: dict[str, Any] = {}
    for name, task in tasks.items():
        if not isinstance(task, dict):
            merged[name] = task
            continue
        own = _marks_in(task, ("tasks", name), marks)
        under = defaults if _same_kind(defaults, task) else {}
        joined = dict(below) if under else {}
        merged[name] = _merge(under, task, joined, own, ())
        marks.update({("tasks", name, *path): mark for path, mark in joined.items()})
    value = {key: item for key, item in document.value.items() if key != "task_defaults"}
    return Document(document.file, {**value, "tasks": merged}, marks)


def _check_tasks(names: Collection[str], document: Document, spread: Any = None) -> None:
    """Before something is written out for each task: a short text must not take the memory of a long one."""
    if len(names) > MAX_TASKS:
        what = f"{len(names)} tasks given; at most {MAX_TASKS} tasks"
        raise UserError(place_of(document.marks, ("tasks",)), what, path=("tasks",))
    total = len(names) * sum(1 for _ in paths_in(spread, ()))
    if total > MAX_SPREAD:
        what = f"{total} values come out for {len(names)} tasks; at most {MAX_SPREAD}"
        raise UserError(place_of(document.marks, ("tasks",)), what, path=("tasks",))


def _check_version(document: Document) -> None:
    version = document.value.get("schema_version")
    if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA_VERSION:
        from mtl import __version__

        raise UserError(
            place_of(document.marks, ("schema_version",)),
            f"recipe is for mtl >= {version}.0, this is {__version__}",
            "upgrade mtl",
            path=("schema_version",),
        )


def _validate(document: Document) -> Recipe:
    try:
        return Recipe.model_validate(document.value)
    except ValidationError as error:
        faults = [_user_error(dict(e), document) for e in error.errors(include_url=False)]
    raise_all(_once(sorted(faults, key=_position)))
    raise AssertionError("a ValidationError without errors")


def _position(error: UserError) -> tuple[str, int, int]:
    place = error.place
    return (place.file, place.line, place.column) if isinstance(place, Place) else (place, 0, 0)


def _once(faults: Sequence[UserError]) -> list[UserError]:
    """One of those that say the same of the same place: `task_defaults` are checked with every task."""
    seen: dict[tuple[object, str], UserError] = {}
    for n, fault in enumerate(faults):
        written = isinstance(fault.place, Place) and fault.place.line > 0
        seen.setdefault((fault.place if written else n, fault.what), fault)
    return list(seen.values())


def _user_error(error: Mapping[str, Any], document: Document) -> UserError:
    """One finding of pydantic as one line: the place, the path, what is wrong."""
    path = tuple(part for part in error["loc"] if not str(part).startswith("<") and part != "[key]")
    kind, value = error["type"], error["input"]
    if kind == "missing":
        return UserError(place_of(document.marks, path[:-1]), f"missing key {quoted(path[-1])}", path=path)
    place: Place | str = place_of(document.marks, path)
    if kind in ("unknown_key", "string_pattern_mismatch") and path in document.marks:
        place = document.marks[path].key if kind == "unknown_key" or error["loc"][-1] == "[key]" else place
    what = error["msg"]
    todo = ""
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
        what += "" if value is None or isinstance(value, (dict, tuple)) else f" {quoted(str(value))}"
    return UserError(place, what, todo, path=path)


_NAMES = {dict: "mapping", tuple: "list", type(None): "null"}
_EXPECTED = dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "Input should be a mapping")
_EXPECTED["tuple_type"] = "Input should be a list"
_NAME_PATTERN = re.compile(r"\^\[(?P<first>[^]]*)\]\[(?P<rest>[^]]*)\]\*\$")


def _wanted(pattern: str) -> str:
    """What a pattern asks for, in words if it is one of names."""
    name = _NAME_PATTERN.fullmatch(pattern)
    if name is None:
        return f"Input should match {pattern}"
    others = name["rest"].replace("A-Za-z0-9", "").replace("\\-", "-")
    *more, last = ["letters", "digits", *map(repr, others)]
    first = {"A-Za-z": "a letter", "A-Za-z0-9": "a letter or digit"}.get(name["first"])
    begin = f", beginning with {first}" if first else ""
    return f"use {', '.join(more)} and {last}{begin}"


def _folder(place: Place | str) -> Path:
    """What a relative path written at `place` is relative to."""
    file = place.file if isinstance(place, Place) else place
    return Path() if file in ("", "recipe", override_texts.COMMAND_LINE.file) else Path(file).parent


def _with_absolute_paths(recipe: Recipe, document: Document) -> Document:
    """The same document with each path resolved against the folder of the file that it was written in."""
    value = document.value
    for path, written in _paths(recipe, ()):
        absolute = str((_folder(place_of(document.marks, path)) / written).absolute())
        if absolute != written:
            value = _replaced(value, path, absolute)
    return document if value is document.value else Document(document.file, value, document.marks)


def _paths(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every value of a field that is annotated as FilePath."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            item = getattr(value, name)
            holds_paths = IsPath in field.metadata or _is_path(field.annotation)
            if isinstance(item, str) and holds_paths:
                yield (*path, name), item
            elif isinstance(item, Mapping) and holds_paths:
                yield from (((*path, name, key), each) for key, each in item.items() if isinstance(each, str))
            else:
                yield from _paths(item, (*path, name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _paths(item, (*path, i))


def _is_path(annotation: Any) -> bool:
    return annotation is IsPath or any(
        _is_path(part) for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ()))
    )


def _replaced(value: Any, path: KeyPath, new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, tuple):
        return tuple(_replaced(item, path[1:], new) if i == path[0] else item for i, item in enumerate(value))
    return {**value, path[0]: _replaced(value.get(path[0]), path[1:], new)}


class _Flow(yaml.SafeDumper):
    """Numbers as the reader takes them, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Flow, text: str) -> yaml.Node:
    """Quoted wherever our reader would not take it as this text: `y` is a word to YAML 1.1 and to us."""
    try:
        plain = scalar(text, Place(""), plain=True) == text
    except UserError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Flow.add_representer(str, _text)


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML text that loads to the same recipe."""
    return yaml.dump(recipe.plain(), Dumper=_Flow, sort_keys=False, default_flow_style=None, width=110)
