"""The splits of a recipe: those that its sources give, and those that its `data.split` asks for."""

from __future__ import annotations

import numpy as np

from mtl.console import counted
from mtl.data.rows.split_rules import Codes
from mtl.data.rows.splits import check_apart, given_by_column, make_splits
from mtl.data.types import Array, Header, Rows
from mtl.dataset.join import Joined
from mtl.errors import UserError, quoted
from mtl.recipe.keys.data import duration_of, seconds_of
from mtl.recipe.keys.recipe import Recipe


def split_rows(recipe: Recipe, joined: Joined, header: Header) -> tuple[dict[str, Rows], list[str]]:
    """The rows of each split, and facts about them that the user should know.

    Raises:
        UserError: a split is empty, or a row, id or group would be in two splits; the path is relative to
            `data.split`.
    """
    split = recipe.data.split
    given = dict(joined.splits)
    if split.column is not None:
        if given:
            raise UserError("", "the source gives splits already", "remove this key", path=("column",))
        given = given_by_column(*_codes(joined, split.column, "column"), place=joined.place)
    times = None
    if split.by_time is not None:
        times = np.asarray(_extra(joined, split.by_time, "by_time")[0], dtype=np.float64)
    group, groups = _group(split.group, joined)
    splits = make_splits(
        given,
        joined.n_rows,
        split.held_out,
        recipe.seeds.split,
        stratify=_strata(recipe, joined, header),
        group=group,
        time=times,
        test_from=None if split.test_from is None else seconds_of(split.test_from),
        validation_from=None if split.validation_from is None else seconds_of(split.validation_from),
        gap=duration_of(split.gap),
        units=joined.units(),
        place=joined.place,
    )
    if group is not None:
        check_apart(group, splits, groups, "group", path=("group",))
    _check_ids(recipe, joined, splits)
    used = sum(len(rows) for rows in splits.values())
    said = []
    if used < joined.n_rows and (split.column is not None or split.by_time is not None):
        verb = "is" if joined.n_rows - used == 1 else "are"
        said.append(f"{joined.n_rows - used:,} of {counted(joined.n_rows, 'row')} {verb} in no split")
    return splits, said


def _extra(joined: Joined, column: str, key: str) -> tuple[Array, tuple[str, ...] | None]:
    """The column that `data.split` names under `key`."""
    try:
        return joined.extra(column)
    except UserError as error:
        raise UserError(error.place, error.what, error.todo, path=(key,)) from None


def _codes(joined: Joined, column: str, key: str) -> tuple[Codes, tuple[str, ...]]:
    codes, names = _extra(joined, column, key)
    return codes.astype(np.int64, copy=False), names or ()


def _strata(recipe: Recipe, joined: Joined, header: Header) -> Rows | None:
    """The class of each row in the task that `stratify` names; -1 for a row without one."""
    task = recipe.data.split.stratify
    if task is None:
        return None
    spec = recipe.tasks[task]
    labels = joined.labels(spec.target_columns(), spec.source, header)
    _, codes = np.unique(np.where(labels.present, labels.values, 0), return_inverse=True)
    return np.where(labels.present, codes, -1).astype(np.int64)


def _group(column: str | None, joined: Joined) -> tuple[Codes | None, tuple[str, ...]]:
    if column is None:
        return None, ()
    codes, names = _codes(joined, column, "group")
    wrong = np.flatnonzero(codes < 0)
    if wrong.size:
        more = f", and {wrong.size - 1} more rows like it" if wrong.size > 1 else ""
        raise UserError(
            joined.place(int(wrong[0])), f"no group in column {quoted(column)}{more}", path=("group",)
        )
    return codes, names


def _check_ids(recipe: Recipe, joined: Joined, splits: dict[str, Rows]) -> None:
    for column in dict.fromkeys(source.row_ids() for source in recipe.data.by_name.values()):
        if column is not None:
            codes, names = joined.extra(column)
            check_apart(codes.astype(np.int64, copy=False), splits, names or (), "id")
