"""Divides rows into training, validation and test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations

import numpy as np

from mtl.console import counted
from mtl.data.rows.split_rules import (
    Codes,
    Times,
    by_block,
    by_time,
    plain,
    require_times,
    require_whole_units,
    stratified,
)
from mtl.data.rows.stratification import iteratively_stratified
from mtl.data.types import Rows, row_number
from mtl.errors import KeyPath, UserError, quoted

NAMES = ("train", "validation", "test")

CALLED = {
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "training": "train",
    "testing": "test",
}


def make_splits(
    given: Mapping[str, Rows],
    n_rows: int,
    held_out: Mapping[str, float],
    seed: int,
    *,
    stratify: Codes | None = None,
    group: Codes | None = None,
    time: Times | None = None,
    test_from: float | None = None,
    validation_from: float | None = None,
    gap: float = 0.0,
    units: Codes | None = None,
    place: Callable[[int], str] = row_number,
) -> dict[str, Rows]:
    """The rows of `train`, `test` and, if there is one, `validation`; each is sorted, and none overlap.

    A fraction f of n training rows is floor(f * n + 1/2) rows of one seeded permutation. Test rows come from its front,
    validation rows from its end, so that a validation split does not change the test split. With `units` or `group`,
    whole units or groups are held out, and each cut is nearest to its fraction. With `time`, the latest rows are.

    Args:
        given: the splits of the source; if `train` is not among them, it is all rows outside them.
        n_rows: number of all rows.
        held_out: `validation`, `test` -> the fraction of the training rows that becomes this split.
        seed: seed of the permutation.
        stratify: (n,) a class, or (n, C) several, for each row; the same fractions of each class are held out.
        group: (n,) codes; rows of one group stay in one split.
        time: (n,) the time of each row; no row of train is later than one of validation, none of those than test.
        test_from, validation_from: with `time`, the start of these splits, instead of a fraction.
        gap: with `time`, rows closer than this before the start of the next split are in no split.
        units: (n,) codes; rows of one unit stay in one split, whatever the other arguments say.
        place: row number -> its name in messages.

    Raises:
        UserError: a split is empty, given twice or missing, or given splits overlap; the path is
            relative to `split`.
    """
    if n_rows == 0:
        raise UserError("", "the data have no rows")
    starts = {"validation": validation_from, "test": test_from}
    asked = {*held_out, *(name for name, start in starts.items() if start is not None)}
    _check_given(given, n_rows, asked)
    pool = (given["train"] if "train" in given else _in_no_split(given, n_rows)).astype(np.int64)
    if len(pool) == 0:
        raise UserError("", "split 'train' is empty: every row is in another split")
    if time is not None:
        require_times(pool, time, place)
        taken = by_time(pool, time, held_out, starts, gap, units)
    elif group is not None:
        require_whole_units(group, units, place)
        taken = by_block(pool, group, held_out, seed, "group")
    elif stratify is not None:
        rule = stratified if stratify.ndim == 1 else iteratively_stratified
        taken = rule(pool, stratify, units, held_out, seed)
    elif units is not None:
        taken = by_block(pool, units, held_out, seed, "unit")
    else:
        taken = plain(pool, held_out, seed)
    splits = {**{name: rows.astype(np.int64) for name, rows in given.items()}, **taken}
    if len(splits["train"]) == 0:
        n_test, n_validation = len(taken.get("test", ())), len(taken.get("validation", ()))
        held = f"{n_test:,} test and {counted(n_validation, 'validation row')} of {len(pool):,}"
        raise UserError("", f"split 'train' is empty ({held} are held out)", "hold out less")
    return {name: np.sort(splits[name]) for name in NAMES if name in splits}


def given_by_column(codes: Codes, names: Sequence[str], place: Callable[[int], str]) -> dict[str, Rows]:
    """The splits that a column of words gives; a row without a word is in no split.

    Raises:
        UserError: a word is none of train, validation (val, valid, dev) and test.
    """
    split_of: list[str] = []
    for code, word in enumerate(names):
        split = word.strip().lower()
        split = CALLED.get(split, split)
        if split not in NAMES:
            row = int(np.flatnonzero(codes == code)[0])
            raise UserError(place(row), f"{quoted(word)} is none of {', '.join(NAMES)}", path=("column",))
        split_of.append(split)
    given = {}
    for name in NAMES:
        members = [code for code, split in enumerate(split_of) if split == name]
        if members:
            given[name] = np.flatnonzero(np.isin(codes, members))
    if "train" not in given:
        raise UserError("", "split 'train' is empty: no row says train", path=("column",))
    return given


def check_apart(
    codes: Codes, splits: Mapping[str, Rows], names: Sequence[str], what: str, path: KeyPath = ()
) -> None:
    """Refuse rows of one id, or of one group, in two splits.

    Args:
        codes: (n,) codes into `names`; -1 for a row without one.
        splits: split -> its rows.
        names: the names of the codes.
        what: the word for one of them, such as `id`.
        path: the key that asks for this check.

    Raises:
        UserError: a code is in two splits.
    """
    held = {}
    for split, rows in splits.items():
        own = codes[rows]
        held[split] = np.bincount(own[own >= 0], minlength=len(names)) > 0
    for one, other in combinations(held, 2):
        both = np.flatnonzero(held[one] & held[other])
        if both.size:
            first = quoted(names[int(both[0])])
            counted = f"{both.size} {what}s are" if both.size > 1 else f"1 {what} is"
            raise UserError("", f"{counted} in both {one} and {other}, first {first}", path=path)


def _in_no_split(given: Mapping[str, Rows], n_rows: int) -> Rows:
    free = np.ones(n_rows, dtype=bool)
    for rows in given.values():
        free[rows] = False
    return np.flatnonzero(free)


def _check_given(given: Mapping[str, Rows], n_rows: int, held_out: Collection[str]) -> None:
    owner = np.zeros(n_rows, dtype=np.int8)
    for number, (name, rows) in enumerate(given.items(), start=1):
        if name not in NAMES:
            raise UserError("", f"the source gives a split {quoted(name)}; known: {', '.join(NAMES)}")
        if len(rows) == 0:
            raise UserError("", f"split {name!r} is empty (the source gives it 0 rows)")
        if rows.min() < 0 or rows.max() >= n_rows:
            raise UserError("", f"split {name!r} names a row outside 0..{n_rows - 1}")
        twice = np.flatnonzero(owner[rows])
        if len(twice):
            other = list(given)[int(owner[rows[twice[0]]]) - 1]
            raise UserError(
                "",
                f"{counted(len(twice), 'row is', 'rows are')} in both {other} and {name}, first row {rows[twice[0]]}",
            )
        owner[rows] = number
        if np.count_nonzero(owner == number) < len(rows):
            raise UserError("", f"split {name!r} names a row twice")
        if name in held_out:
            raise UserError(
                "",
                f"the source gives a {name} split of {counted(len(rows), 'row')} already",
                "remove this key",
                path=(name,),
            )
    if "test" not in given and "test" not in held_out:
        raise UserError(
            "", "the data have no test split", "write data.split: {test: 0.2} to hold out a fifth"
        )
