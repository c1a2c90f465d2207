"""The header of all sources of a recipe together, before any row is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mtl.contracts import check_header
from mtl.data.columns.labels import called_together
from mtl.data.types import Header, Names
from mtl.errors import UserError, quoted
from mtl.recipe.keys.recipe import Recipe


def header_of(recipe: Recipe) -> Header:
    """The header of all sources of a recipe together.

    Raises:
        UserError: a source cannot be found, or the sources do not give the same inputs.
    """
    headers = {}
    for name, source in recipe.data.by_name.items():
        with recipe.at("data", *recipe.data.path_of(name)):
            headers[name] = check_header(source, source.header())
    with recipe.at():
        return joined_header(headers)


def joined_header(headers: Mapping[str, Header]) -> Header:
    """The header of all sources together, from the header of each.

    Raises:
        UserError: they do not give the same inputs.
    """
    (first_name, first), *others = headers.items()
    if not others:
        return first
    for name, header in others:
        different = _difference(header, first)
        if different is not None:
            raise UserError(
                "",
                f"source {quoted(name)} gives {different[0]}, source {quoted(first_name)} {different[1]}: "
                "one network reads one kind of input",
                path=("data", "sources", name),
            )
    found: dict[str, list[Names]] = {}
    counts: dict[str, int] = {}
    for header in headers.values():
        for column, names in header.labels.items():
            found.setdefault(column, []).append(names)
        for split, count in header.row_counts.items():
            counts[split] = counts.get(split, 0) + count
    text = frozenset[str]().union(*(header.text for header in headers.values()))
    notes = dict.fromkeys(header.note for header in headers.values() if header.note)
    columns = dict.fromkeys(c for header in headers.values() for c in header.known)
    return replace(
        first,
        labels={column: called_together(names, column in text) for column, names in found.items()},
        row_counts=counts,
        note="; ".join(notes),
        text=text,
        columns=tuple(columns),
        by_source=dict(headers),
    )


def _difference(header: Header, first: Header) -> tuple[str, str] | None:
    """The first difference between the inputs of two sources, or None."""
    one, other = header.layout, first.layout
    if one is not None and other is not None:
        for key in ("numeric", "vectors", "dates", "categorical", "missing", "indicator", "embedding"):
            values = getattr(one, key), getattr(other, key)
            if values[0] != values[1]:
                return f"inputs.{key} {_shown(values[0])}", _shown(values[1])
    if header.input_shape != first.input_shape or (one is None) != (other is None):
        return f"inputs of shape {header.input_shape}", f"{first.input_shape}"
    return None


def _shown(value: object) -> str:
    return ", ".join(map(quoted, value)) or "none" if isinstance(value, tuple) else quoted(value)
