"""Where a recipe holds members of a family, and the keys that all members of a family have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from mtl.errors import KeyPath
from mtl.recipe.base import Kind
from mtl.recipe.keys.recipe import Recipe
from mtl.registry import Registry


def common_keys(recipe: Any, path: KeyPath) -> Collection[str] | None:
    """The keys of the base of a family, such as `lr` of every optimizer; None if `path` holds no member of a family.

    Args:
        recipe: the plain values of a recipe, which need not be valid.
        path: the path of a mapping in it.
    """
    annotation: Any = Recipe
    value = recipe
    for key in path:
        annotation = _inside(annotation, value, key)
        value = value[key]
    registry = _family(annotation)
    return None if registry is None else registry.base.model_fields.keys()


def _inside(annotation: Any, value: Any, key: str | int) -> Any:
    """The annotation of the value at `key` of a value with this annotation; None if there is no such key."""
    registry = _family(annotation)
    if registry is not None:
        kind = value.get("kind") if isinstance(value, Mapping) else None
        annotation = registry[kind] if isinstance(kind, str) and kind in registry else registry.base
    for part in _alternatives(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            field = part.model_fields.get(str(key))
            return None if field is None else Annotated[(field.annotation, None, *field.metadata)]
        if get_origin(part) in (dict, Mapping, tuple):
            return get_args(part)[0 if get_origin(part) is tuple else 1]
    return None


def _family(annotation: Any) -> Registry[Any] | None:
    """The family of an annotation: it is marked with `Kind`."""
    return next((part.registry for part in _alternatives(annotation) if isinstance(part, Kind)), None)


def _alternatives(annotation: Any) -> Iterator[Any]:
    """An annotation without unions and `Annotated`: the types that it allows, and their marks."""
    if get_origin(annotation) in (Annotated, Union, UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    else:
        yield annotation
