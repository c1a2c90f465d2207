"""Which rows are for training, validation and test."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mtl.data.batches import order
from mtl.data.columns import Rows
from mtl.errors import UserError, quoted

NAMES = ("train", "validation", "test")


def make_splits(
    given: Mapping[str, Rows], n_rows: int, held_out: Mapping[str, float], seed: int
) -> dict[str, Rows]:
    """The rows of `train`, `validation` (if there is one) and `test`, each sorted and without overlap.

    A fraction f of n training rows is floor(f * n + 1/2) rows, taken from one seeded permutation:
    test rows from its front, validation rows from its end, so that asking for a validation
    split leaves the test split as it is.

    Args:
        given: the splits that the source gives; without `train`, that is every row in no other split.
        n_rows: number of all rows.
        held_out: `validation`, `test` -> the fraction of the training rows that becomes this split.
        seed: seed of the permutation.

    Raises:
        UserError: a split is empty, given twice or missing, or given splits overlap; the path is
            relative to `split`.
    """
    if n_rows == 0:
        raise UserError("", "the data have no rows")
    _check_given(given, n_rows, held_out)
    pool = given["train"] if "train" in given else _in_no_split(given, n_rows)
    n = len(pool)
    n_test = _count("test", n, held_out.get("test"))
    n_validation = _count("validation", n, held_out.get("validation"))
    if n - n_test - n_validation < 1:
        held = f"{n_test} test and {n_validation} validation rows of {n}"
        raise UserError("", f"split 'train' is empty ({held} are held out)", "hold out less")
    shuffled = pool[order(n, seed, 0, stream="split")].astype(np.int64)
    splits = {name: rows.astype(np.int64) for name, rows in given.items()}
    splits["train"] = shuffled[n_test : n - n_validation]
    if n_test:
        splits["test"] = shuffled[:n_test]
    if n_validation:
        splits["validation"] = shuffled[n - n_validation :]
    return {name: np.sort(splits[name]) for name in NAMES if name in splits}


def _in_no_split(given: Mapping[str, Rows], n_rows: int) -> Rows:
    free = np.ones(n_rows, dtype=bool)
    for rows in given.values():
        free[rows] = False
    return np.flatnonzero(free)


def _count(name: str, n: int, fraction: float | None) -> int:
    if fraction is None:
        return 0
    count = math.floor(fraction * n + 0.5)
    if count == 0:
        raise UserError(
            "",
            f"split {name!r} is empty ({n} rows x {fraction:g})",
            f"write {name}: {min(0.5, 1 / n):.2g} or more, or bring more rows",
            path=(name,),
        )
    return count


def _check_given(given: Mapping[str, Rows], n_rows: int, held_out: Mapping[str, float]) -> None:
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
                "", f"{len(twice)} rows are in both {other} and {name}, first row {rows[twice[0]]}"
            )
        owner[rows] = number
        if np.count_nonzero(owner == number) < len(rows):
            raise UserError("", f"split {name!r} names a row twice")
        if name in held_out:
            raise UserError(
                "",
                f"the source gives a {name} split of {len(rows)} rows already",
                "remove this key",
                path=(name,),
            )
    if "test" not in given and "test" not in held_out:
        raise UserError(
            "", "the data have no test split", "write data.split: {test: 0.2} to hold out a fifth"
        )
