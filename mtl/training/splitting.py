"""The splits of a recipe: what its sources give, and what its `data.split` asks for."""

from __future__ import annotations

import numpy as np

from mtl.data.columns import Header, Rows
from mtl.data.join import Joined
from mtl.data.splits import NAMES, check_disjoint_ids, given_by_column, make_splits
from mtl.errors import UserError, quoted
from mtl.recipe.schema import Recipe, duration_of, seconds_of


def split_rows(recipe: Recipe, joined: Joined, header: Header) -> tuple[dict[str, Rows], list[str]]:
    """The rows of each split, and what the user should know of them.

    Raises:
        UserError: a split is empty, or a row, id or group would be on two sides; the path is relative to
            `data.split`.
    """
    split = recipe.data.split
    given = dict(joined.splits)
    if split.column is not None:
        if given:
            raise UserError("", "the source gives splits already", "remove this key", path=("column",))
        codes, names = joined.extra(split.column)
        given = dict(given_by_column(_as_codes(codes), _as_names(codes, names), place=joined.place))
    times = None
    if split.by_time is not None:
        times = np.asarray(joined.extra(split.by_time)[0], dtype=np.float64)
    splits = make_splits(
        given,
        joined.n_rows,
        split.held_out,
        recipe.seeds.split,
        stratify=_strata(recipe, joined, header),
        group=_group(split.group, joined),
        time=times,
        test_from=None if split.test_from is None else seconds_of(split.test_from),
        validation_from=None if split.validation_from is None else seconds_of(split.validation_from),
        gap=duration_of(split.gap),
        units=joined.units(),
    )
    _check_ids(recipe, joined, splits)
    used = sum(len(rows) for rows in splits.values())
    said = []
    if used < joined.n_rows and (split.column is not None or split.by_time is not None):
        said.append(f"{joined.n_rows - used} of {joined.n_rows} rows are in no split")
    return {name: splits[name] for name in NAMES if name in splits}, said


def _as_names(codes: object, names: tuple[str, ...] | None) -> tuple[str, ...]:
    return names if names is not None else ()


def _as_codes(codes: object) -> Rows:
    return np.asarray(codes).astype(np.int64)


def _strata(recipe: Recipe, joined: Joined, header: Header) -> Rows | None:
    """The class of each row in the task to stratify by; -1 without one."""
    task = recipe.data.split.stratify
    if task is None:
        return None
    spec = recipe.tasks[task]
    labels = joined.labels(spec.target_columns(), spec.source, header)
    _, codes = np.unique(np.where(labels.present, labels.values, 0), return_inverse=True)
    return np.where(labels.present, codes, -1).astype(np.int64)


def _group(column: str | None, joined: Joined) -> Rows | None:
    if column is None:
        return None
    codes, _ = joined.extra(column)
    wrong = np.flatnonzero(_as_codes(codes) < 0)
    if wrong.size:
        row = int(wrong[0])
        raise UserError(
            joined.place(row), f"no group in column {quoted(column)}, and {wrong.size - 1} more rows like it",
            path=("group",),
        )  # fmt: skip
    return _as_codes(codes)


def _check_ids(recipe: Recipe, joined: Joined, splits: dict[str, Rows]) -> None:
    for column in dict.fromkeys(source.row_ids() for source in recipe.data.by_name.values()):
        if column is not None:
            codes, names = joined.extra(column)
            check_disjoint_ids(_as_codes(codes), splits, names or ())
