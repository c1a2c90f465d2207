"""The files that a recipe names, and the folder that each relative path starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from mtl.data.files.remote.address import is_address
from mtl.errors import KeyPath, Place
from mtl.recipe.base import IsPath
from mtl.recipe.text.merge import replaced
from mtl.recipe.text.overrides import COMMAND_LINE
from mtl.recipe.text.yaml import Document, place_of


def folder_of(place: Place | str) -> Path:
    """The folder that a relative path written at `place` starts from."""
    file = place.file if isinstance(place, Place) else place
    return Path() if file in ("", "recipe", COMMAND_LINE.file) else Path(file).parent


def absolute_path(folder: Path, written: str) -> str:
    """A path as it is meant by a recipe in `folder`; an address stays as it is."""
    return written if is_address(written) else str((folder / written).absolute())


def with_absolute_paths(recipe: BaseModel, document: Document) -> Document:
    """The same document with absolute paths; a path is relative to the folder of the file in which it was written."""
    value = document.value
    for path, written in file_paths(recipe, ()):
        absolute = absolute_path(folder_of(place_of(document.marks, path)), written)
        if absolute != written:
            value = replaced(value, path, absolute)
    return document if value is document.value else Document(document.file, value, document.marks)


def file_paths(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """The path in the recipe, and the value, of every field that is annotated as FilePath."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            item = getattr(value, name)
            holds_paths = IsPath in field.metadata or _is_path(field.annotation)
            if isinstance(item, str) and holds_paths:
                yield (*path, name), item
            elif isinstance(item, Mapping) and holds_paths:
                yield from (((*path, name, key), each) for key, each in item.items() if isinstance(each, str))
            else:
                yield from file_paths(item, (*path, name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from file_paths(item, (*path, key))
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from file_paths(item, (*path, i))


def _is_path(annotation: Any) -> bool:
    return annotation is IsPath or any(
        _is_path(part) for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ()))
    )
