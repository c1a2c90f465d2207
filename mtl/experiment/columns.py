"""What can be said of a recipe and the columns of its sources before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

from mtl.data.types import Header, no_column
from mtl.dataset.header import header_of
from mtl.errors import KeyPath, UserError, gathered, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.task_groups import known_outputs


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
