"""The splits of a recipe: those that its sources give, and those that its `data.split` asks for."""

from __future__ import annotations

import numpy as np

from mtl.console import counted
from mtl.data.rows.split_rules import Codes
from mtl.data.rows.splits import check_apart, given_by_column, make_splits
from mtl.data.types import Array, Header, Labels, Rows
from mtl.dataset.join import Joined
from mtl.dataset.notices import missed_fractions
from mtl.errors import UserError, quoted
from mtl.recipe.keys.data import Split, duration_of, seconds_of
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
    pool = given["train"] if "train" in given else range(joined.n_rows - sum(map(len, given.values())))
    said = list(missed_fractions(splits, split.held_out, len(pool), _whole_of(split)))
    if used < joined.n_rows and (split.column is not None or split.by_time is not None):
        verb = "is" if joined.n_rows - used == 1 else "are"
        said.append(f"{joined.n_rows - used:,} of {counted(joined.n_rows, 'row')} {verb} in no split")
    return splits, said


def groups_of_rows(recipe: Recipe, joined: Joined) -> Codes | None:
    """(n,) the group of each row, whose rows are on one side of the split; None if the recipe splits by no group."""
    return _group(recipe.data.split.group, joined)[0]


def _whole_of(split: Split) -> str | None:
    """What a split never divides, in words, because the recipe asks for it; None if it asks for nothing."""
    if split.group is not None:
        return f"each group of column {quoted(split.group)}"
    return "each time" if split.by_time is not None else None


def _extra(joined: Joined, column: str, key: str) -> tuple[Array, tuple[str, ...] | None]:
    """The column that `data.split` names under `key`."""
    try:
        return joined.extra(column)
    except UserError as error:
        raise UserError(error.place, error.what, error.todo, path=(key,)) from None


def _codes(joined: Joined, column: str, key: str) -> tuple[Codes, tuple[str, ...]]:
    codes, names = _extra(joined, column, key)
    return codes.astype(np.int64, copy=False), names or ()


def _strata(recipe: Recipe, joined: Joined, header: Header) -> Codes | None:
    """The classes of each row in the tasks that `stratify` names; -1 for a row without one.

    A single task with one label per row gives (n,). Otherwise each label column, and each label of a list, gives a
    column of (n, C); its classes are numbered after those of the columns before.
    """
    specs = [recipe.tasks[task] for task in recipe.data.split.strata(recipe.tasks)]
    if not specs:
        return None
    columns: list[Codes] = []
    read = {(spec.target_columns(), spec.source): spec for spec in specs}  # tasks may share a column
    for (targets, source), spec in read.items():
        columns += _classes_of(joined.labels(targets, source, header), spec.reads == "numbers")
    if len(specs) == len(columns) == 1:
        return columns[0].astype(np.int64)
    first = np.cumsum([0, *(int(codes.max(initial=-1)) + 1 for codes in columns)])[:-1]
    return np.stack(
        [np.where(codes >= 0, codes + start, -1) for codes, start in zip(columns, first, strict=True)], axis=1
    )


def _classes_of(labels: Labels, any_number: bool) -> list[Codes]:
    """The codes of each column of labels, -1 for a missing one; all numbers are one class: that there is a label."""
    n = len(labels.values)
    found: list[Codes] = []
    for values, there in zip(labels.values.reshape(n, -1).T, labels.present.reshape(n, -1).T, strict=True):
        codes = np.full(n, -1, dtype=np.int32)
        codes[there] = 0 if any_number else np.unique(values[there], return_inverse=True)[1]
        found.append(codes)
    return found


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
