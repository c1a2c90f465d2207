"""Which rows are for training, validation and test."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl.data.batches import order
from mtl.data.columns import Rows, row_number
from mtl.errors import KeyPath, UserError, quoted

NAMES = ("train", "validation", "test")

Codes = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]
Times = npt.NDArray[np.float64]
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
    """The rows of `train`, `validation` (if there is one) and `test`, each sorted and without overlap.

    A fraction f of n training rows is floor(f * n + 1/2) rows, taken from one seeded permutation:
    test rows from its front, validation rows from its end, so that asking for a validation
    split leaves the test split as it is. With `units` or `group` the same is done with whole units or groups, the
    cut nearest to the fraction of rows; with `time` the latest rows are held out instead.

    Args:
        given: the splits that the source gives; without `train`, that is every row in no other split.
        n_rows: number of all rows.
        held_out: `validation`, `test` -> the fraction of the training rows that becomes this split.
        seed: seed of the permutation.
        stratify: (n,) a class for each row; each class is split by the same fractions.
        group: (n,) codes; rows of one group are on one side.
        time: (n,) when each row was; no training row is later than a validation row, none of those than a test row.
        test_from, validation_from: with `time`, where these splits begin, instead of a fraction.
        gap: with `time`, rows closer than this before the start of the next split are in no split.
        units: (n,) codes; rows of one unit are on one side, whatever else is asked.
        place: row number -> what it is called in messages.

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
    if time is not None:
        _require_times(pool, time, place)
        taken = _by_time(pool, time, held_out, starts, gap, units)
    elif group is not None:
        _require_whole_units(group, units, place)
        taken = _by_block(pool, group, held_out, seed, "group")
    elif stratify is not None:
        taken = _stratified(pool, stratify, units, held_out, seed)
    elif units is not None:
        taken = _by_block(pool, units, held_out, seed, "unit")
    else:
        taken = _plain(pool, held_out, seed)
    splits = {**{name: rows.astype(np.int64) for name, rows in given.items()}, **taken}
    if len(splits["train"]) == 0:
        n_test, n_validation = len(taken.get("test", ())), len(taken.get("validation", ()))
        held = f"{n_test} test and {n_validation} validation rows of {len(pool)}"
        raise UserError("", f"split 'train' is empty ({held} are held out)", "hold out less")
    return {name: np.sort(splits[name]) for name in NAMES if name in splits}


def _plain(pool: Rows, held_out: Mapping[str, float], seed: int) -> dict[str, Rows]:
    n = len(pool)
    n_test = _count("test", n, held_out.get("test"))
    n_validation = _count("validation", n, held_out.get("validation"))
    if n - n_test - n_validation < 1:
        held = f"{n_test} test and {n_validation} validation rows of {n}"
        raise UserError("", f"split 'train' is empty ({held} are held out)", "hold out less")
    shuffled = pool[order(n, seed, 0, stream="split")].astype(np.int64)
    taken = {"train": shuffled[n_test : n - n_validation]}
    if n_test:
        taken["test"] = shuffled[:n_test]
    if n_validation:
        taken["validation"] = shuffled[n - n_validation :]
    return taken


def _by_block(
    pool: Rows, codes: Codes, held_out: Mapping[str, float], seed: int, called: str
) -> dict[str, Rows]:
    """Whole blocks in seeded order: test from the front, validation from the end, each cut nearest its share."""
    _, block = np.unique(codes[pool], return_inverse=True)
    n, n_blocks = len(pool), int(block.max()) + 1
    place = np.empty(n_blocks, dtype=np.int64)
    place[order(n_blocks, seed, 0, stream="split")] = np.arange(n_blocks)
    ends = np.concatenate([[0], np.cumsum(np.bincount(place[block], minlength=n_blocks))])
    front = _nearest(ends, held_out.get("test"), n)
    back = n_blocks - _nearest((n - ends)[::-1], held_out.get("validation"), n)
    if front >= back:
        wanted = " and ".join(f"{name} {fraction:g}" for name, fraction in held_out.items())
        lacking = f"{n_blocks} {called}s are too few" if n_blocks > 1 else f"1 {called} is too little"
        raise UserError("", f"{lacking} for {wanted}", path=("group",) if called == "group" else ())
    taken = {"train": pool[(place[block] >= front) & (place[block] < back)]}
    if "test" in held_out:
        taken["test"] = pool[place[block] < front]
    if "validation" in held_out:
        taken["validation"] = pool[place[block] >= back]
    return taken


def _nearest(ends: Counts, fraction: float | None, n: int) -> int:
    """How many blocks come nearest to a fraction of n rows; at least one, unless none is asked for."""
    if fraction is None:
        return 0
    return max(1, int(np.abs(ends - fraction * n).argmin()))


def _require_whole_units(group: Codes, units: Codes | None, place: Callable[[int], str]) -> None:
    if units is None:
        return
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    apart = np.flatnonzero(group != group[first][unit])
    if apart.size:
        one, other = int(first[unit[apart[0]]]), int(apart[0])
        what = f"{place(one)} and {place(other)} belong together, but are in two groups"
        raise UserError("", what, path=("group",))


def _stratified(
    pool: Rows, strata: Codes, units: Codes | None, held_out: Mapping[str, float], seed: int
) -> dict[str, Rows]:
    """Each stratum in seeded order by the same fractions, rounded so that totals are those of the plain rule."""
    if units is None:
        item, first = np.arange(len(pool)), np.arange(len(pool))
    else:
        _, first, item = np.unique(units[pool], return_index=True, return_inverse=True)
    n = len(first)
    _, stratum = np.unique(strata[pool[first]], return_inverse=True)
    sizes = np.bincount(stratum)
    shuffled = order(n, seed, 0, stream="split")
    by_stratum = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    rank = np.empty(n, dtype=np.int64)
    rank[by_stratum] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    test = _quotas("test", sizes, sizes, held_out.get("test"))
    validation = _quotas("validation", sizes, sizes - test, held_out.get("validation"))
    is_test = rank < test[stratum]
    is_validation = rank >= (sizes - validation)[stratum]
    taken = {"train": pool[~(is_test | is_validation)[item]]}
    if "test" in held_out:
        taken["test"] = pool[is_test[item]]
    if "validation" in held_out:
        taken["validation"] = pool[is_validation[item]]
    return taken


def _quotas(name: str, sizes: Counts, free: Counts, fraction: float | None) -> Counts:
    """Rows of each stratum, by largest remainders among the strata that have rows left."""
    quotas: Counts = np.zeros_like(sizes)
    if fraction is None:
        return quotas
    n = int(sizes.sum())
    total = _count(name, n, fraction)
    exact = sizes.astype(np.float64) * (total / n)
    quotas = np.minimum(np.floor(exact).astype(np.int64), free)
    while (lacking := min(total, int(free.sum())) - int(quotas.sum())) > 0:
        behind = np.where(quotas < free, exact - quotas, -np.inf)
        rest = np.argsort(-behind, kind="stable")[:lacking]
        quotas[rest[np.isfinite(behind[rest])]] += 1
    return quotas


def _by_time(
    pool: Rows,
    time: Times,
    held_out: Mapping[str, float],
    starts: Mapping[str, float | None],
    gap: float,
    units: Codes | None,
) -> dict[str, Rows]:
    """Test is what is latest, validation what comes before it, train what comes before that."""
    when = time[pool]
    if units is not None:
        _, unit = np.unique(units[pool], return_inverse=True)
        earliest = np.full(unit.max() + 1, np.inf)
        np.minimum.at(earliest, unit, when)
        when = earliest[unit]
    n, end, taken = len(pool), np.inf, {}
    for name in ("test", "validation"):
        start = starts[name]
        if start is None and name not in held_out:
            continue
        key = name if start is None else f"{name}_from"
        if start is None:
            free = np.sort(when[when < end])
            count = _count(name, n, held_out[name])
            start = float(free[max(0, len(free) - count)]) if len(free) else np.inf
        rows = pool[(when >= start) & (when < end)]
        if len(rows) == 0:
            what = "no row is that late" if end == np.inf else "no row is earlier than test and its gap"
            if end < np.inf and key == "validation_from":
                what = "no row is from then on and earlier than test and its gap"
            raise UserError("", f"split {name!r} is empty: {what}", path=(key,))
        taken[name] = rows
        end = start - gap
    taken["train"] = pool[when < end]
    if len(taken["train"]) == 0:
        what = "split 'train' is empty: no row is earlier than what is held out and its gap"
        raise UserError("", what, "hold out less", path=("by_time",))
    return taken


def _require_times(pool: Rows, time: Times, place: Callable[[int], str]) -> None:
    wrong = pool[~np.isfinite(time[pool])]
    if wrong.size:
        more = f", and {wrong.size - 1} more rows" if wrong.size > 1 else ""
        raise UserError(place(int(wrong.min())), f"has no time{more}", path=("by_time",))


def given_by_column(codes: Codes, names: Sequence[str], place: Callable[[int], str]) -> dict[str, Rows]:
    """The splits that a column of words gives; a row without a word is in none.

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
        names: what the codes are called.
        what: what one of them is called.
        path: the key that asks for it.

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
