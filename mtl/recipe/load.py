"""Loads a recipe: its text, its base and its overrides become one checked Recipe. Also writes one as text."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mtl.errors import KeyPath, Place, UserError, did_you_mean, quoted, raise_all
from mtl.recipe.keys.recipe import SCHEMA_VERSION, Recipe
from mtl.recipe.text import overrides as override_texts
from mtl.recipe.text.faults import faults_of
from mtl.recipe.text.files import folder_of, with_absolute_paths
from mtl.recipe.text.inherit import check_tasks, spread_inputs, spread_task_defaults
from mtl.recipe.text.merge import merge
from mtl.recipe.text.patterns import expand_patterns
from mtl.recipe.text.scalars import scalar
from mtl.recipe.text.yaml import MAX_VALUES, Document, Mark, place_of, read_file

BUILT_IN = Path(__file__).parent.parent / "recipes"
MAX_BASES = 8
TABLES = (".csv", ".tsv", ".parquet", ".pq")
"""Suffixes of files for which `mtl init` writes a recipe."""


def built_in_names() -> tuple[str, ...]:
    """The names of the recipes that ship with mtl."""
    return tuple(sorted(path.stem for path in BUILT_IN.glob("*.yaml")))


def find(name: str) -> Path:
    """The file of a recipe, which is given as a path or as the name of a built-in recipe.

    Raises:
        UserError: there is no such file, and no built-in recipe has this name.
    """
    # a run folder may have the name of its recipe, so that only a file hides a built-in recipe
    if name in built_in_names() and not os.path.isfile(name):
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
        UserError: the recipe has a fault; several faults come together as `ManyErrors`.
    """
    written = _read(source)
    document = override_texts.apply(_merge_bases(written), overrides)
    document = expand_patterns(spread_inputs(document))
    if isinstance(document.value.get("tasks"), dict):
        check_tasks(document.value["tasks"], document)
    document = spread_task_defaults(document)
    _check_version(document)
    recipe = _validate(document)
    absolute = with_absolute_paths(recipe, document)
    if absolute is not document:
        recipe = _validate(absolute)
    return recipe.written(document.marks, written.text)


def _read(source: str | os.PathLike[str] | Mapping[str, Any]) -> Document:
    if isinstance(source, Mapping):
        top = Place("recipe")
        return Document("recipe", _as_read(source, ()), {(): Mark(top, top)})
    path = find(os.fspath(source))
    if path.suffix.lower() in TABLES and path.is_file():
        todo = f"mtl init {shlex.quote(str(path))} --targets A,B writes a recipe for its columns A and B"
        raise UserError(str(path), "is a table, not a recipe", todo)
    return read_file(path, str(source) if path.parent != BUILT_IN else str(path))


def _as_read(value: Any, path: KeyPath) -> Any:
    """A mapping's values in the form that the reader of files gives: lists become tuples, and keys become text."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UserError("recipe", f"a key is text, got {quoted(key)}", path=path)
        return {key: _as_read(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_as_read(item, (*path, i)) for i, item in enumerate(value))
    return value


def _merge_bases(document: Document, above: Sequence[Document] = ()) -> Document:
    """Merge the document onto the recipe that its `base` names, and that one onto its own base, to the last.

    `above` holds the documents that name this one as their base, the first one first.

    Raises:
        UserError: a base is not there, or the bases go round in a circle, or there are too many of them.
    """
    base = document.value.get("base")
    if base is None:
        return document
    place = place_of(document.marks, ("base",))
    if not isinstance(base, str):
        raise UserError(place, f"Input should be a valid string, got {quoted(base)}", path=("base",))
    chain = [*above, document]
    path = _base_file(base, place)
    _refuse_circle(chain, path, place)
    if len(above) == MAX_BASES:
        raise UserError(place, f"more than {MAX_BASES} recipes on top of each other", path=("base",))
    if sum(len(each.marks) for each in chain) > MAX_VALUES:
        raise UserError(
            place, f"more than {MAX_VALUES} values in recipes on top of each other", path=("base",)
        )
    below = _merge_bases(read_file(path), chain)
    marks = dict(below.marks)
    value = merge(below.value, document.value, marks, document.marks, ())
    value.pop("base")
    return Document(document.file, value, marks)


def _refuse_circle(chain: Sequence[Document], path: Path, place: Place | str) -> None:
    """Refuse a base that is one of the documents above it.

    Raises:
        UserError: it is; the message names all files of the circle.
    """
    files = [os.path.realpath(document.file) for document in chain]
    if os.path.realpath(path) in files:
        circle = [document.file for document in chain[files.index(os.path.realpath(path)) :]]
        shown = " -> ".join(map(quoted, [*circle, circle[0]]))
        todo = "take one of these `base` keys out"
        raise UserError(place, f"the bases are cyclic: {shown}", todo, path=("base",))


def _base_file(base: str, place: Place | str) -> Path:
    """The file of the recipe that `base` names: a built-in recipe, or a path relative to the naming recipe's folder."""
    if base in built_in_names():
        return BUILT_IN / f"{base}.yaml"
    folder = folder_of(place)
    path = folder / base
    if not base.isprintable():
        raise UserError(place, f"no such recipe {quoted(base)}", path=("base",))
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        todo = "name a built-in recipe or a file beside it"
        raise UserError(place, f"{quoted(base)} is outside the recipe's folder", todo, path=("base",))
    if not os.path.isfile(path):
        near = did_you_mean(base, built_in_names())
        raise UserError(place, f"no such recipe {quoted(base)}{near}", path=("base",))
    return path


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
        raise_all(faults_of(error, document))
        raise


class _Flow(yaml.SafeDumper):
    """Writes numbers in the form that our reader takes, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Flow, text: str) -> yaml.Node:
    """Put text into quotes where our reader would take it for something else; YAML 1.1 reads `y` as a truth value."""
    try:
        plain = scalar(text, Place(""), plain=True) == text
    except UserError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Flow.add_representer(str, _text)


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML text, which loads to the same recipe."""
    return yaml.dump(recipe.plain(), Dumper=_Flow, sort_keys=False, default_flow_style=None, width=110)
