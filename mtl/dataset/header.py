"""The header of all sources of a recipe together, before any row is read, and before torch, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mtl.contracts import check_header
from mtl.data.columns.labels import called_together
from mtl.data.types import Header, Names, no_column
from mtl.errors import KeyPath, UserError, gathered, quoted, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.task_groups import known_outputs


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


def checked_header(recipe: Recipe) -> Header:
    """The header of a recipe's sources, which has the columns that the recipe names.

    Raises:
        UserError: a file, a column or a split is missing, or a task does not fit its column.
    """
    header = header_of(recipe)
    _check_validation(recipe, header)
    _check_columns(recipe, header)
    known_outputs(recipe, header)
    return header


def _check_columns(recipe: Recipe, header: Header) -> None:
    """Require the columns that are neither labels nor inputs."""
    faults: list[UserError] = []
    for path, column, source in _further_columns(recipe):
        known = header.of(source).known
        if column not in known:
            with gathered(faults), recipe.at(*path):
                raise UserError("", no_column(column, known))
    raise_all(faults)


def _further_columns(recipe: Recipe) -> Iterator[tuple[KeyPath, str, str | None]]:
    """For each column of splits, weights or ids: its key in the recipe, its name, and the source that must have it."""
    for key in ("column", "group", "by_time"):
        column = getattr(recipe.data.split, key)
        if column is not None:
            yield ("data", "split", key), column, None
    for task, spec in recipe.tasks.items():
        if spec.sample_weight is not None:
            yield ("tasks", task, "sample_weight"), spec.sample_weight, spec.source
    for name, source in recipe.data.by_name.items():
        ids = source.row_ids()
        if ids is not None:
            yield ("data", *recipe.data.path_of(name)), ids, name


def _check_validation(recipe: Recipe, header: Header) -> None:
    """Require a validation split if the recipe fits a number on it or stops by it."""
    split = recipe.data.split
    given = (split.validation, split.validation_from, split.column)
    has_validation = any(value is not None for value in given) or "validation" in header.row_counts
    for task, spec in recipe.tasks.items():
        for key in ("temperature", "fit_threshold"):
            if getattr(spec, key, None) and not has_validation:
                with recipe.at("tasks", task, key):
                    raise UserError(
                        "", "there is no validation split to fit it on", "write data.split: {validation: 0.1}"
                    )
    if recipe.train.early_stopping is not None and not has_validation:
        with recipe.at("train", "early_stopping"):
            raise UserError(
                "", "there is no validation split to stop by", "write data.split: {validation: 0.1}"
            )
