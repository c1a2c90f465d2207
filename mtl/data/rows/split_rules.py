"""The rules that hold out rows; each divides a pool of rows into train, test and validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.data.rows.order import order
from mtl.data.types import Rows
from mtl.errors import UserError

Codes = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]
Times = npt.NDArray[np.float64]


def plain(pool: Rows, held_out: Mapping[str, float], seed: int) -> dict[str, Rows]:
    """Hold out single rows in seeded order: test from the front, validation from the end."""
    n = len(pool)
    sizes = sizes_of(n, held_out)
    n_test, n_validation = sizes.get("test", 0), sizes.get("validation", 0)
    shuffled = pool[order(n, seed, 0, stream="split")].astype(np.int64)
    taken = {"train": shuffled[n_test : n - n_validation]}
    if n_test:
        taken["test"] = shuffled[:n_test]
    if n_validation:
        taken["validation"] = shuffled[n - n_validation :]
    return taken


def sizes_of(n: int, held_out: Mapping[str, float]) -> dict[str, int]:
    """The rows of train and of each split that is held out of n rows, rounded to whole rows.

    Raises:
        UserError: one of them has no row.
    """
    held = {name: _count(name, n, held_out[name]) for name in ("test", "validation") if name in held_out}
    n_train = n - sum(held.values())
    if n_train < 1:
        what = f"{held.get('test', 0)} test and {held.get('validation', 0)} validation rows of {n}"
        raise UserError("", f"split 'train' is empty ({what} are held out)", "hold out less")
    return {"train": n_train, **held}


def by_block(
    pool: Rows, codes: Codes, held_out: Mapping[str, float], seed: int, called: str
) -> dict[str, Rows]:
    """Hold out whole blocks in seeded order: test from the front, validation from the end, cut nearest the shares."""
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
    """The number of blocks whose rows come nearest to a fraction of n rows; at least 1, but 0 without a fraction."""
    if fraction is None:
        return 0
    return max(1, int(np.abs(ends - fraction * n).argmin()))


def require_whole_units(group: Codes, units: Codes | None, place: Callable[[int], str]) -> None:
    """Refuse groups that divide a unit.

    Raises:
        UserError: rows of one unit are in two groups.
    """
    if units is None:
        return
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    apart = np.flatnonzero(group != group[first][unit])
    if apart.size:
        one, other = int(first[unit[apart[0]]]), int(apart[0])
        what = f"{place(one)} and {place(other)} belong together, but are in two groups"
        raise UserError("", what, path=("group",))


def stratified(
    pool: Rows, strata: Codes, units: Codes | None, held_out: Mapping[str, float], seed: int
) -> dict[str, Rows]:
    """Hold out the same fractions of each stratum, in seeded order; the totals are those of the plain rule."""
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
    """The rows of each stratum, by largest remainders among the strata that have rows left."""
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


def by_time(
    pool: Rows,
    time: Times,
    held_out: Mapping[str, float],
    starts: Mapping[str, float | None],
    gap: float,
    units: Codes | None,
) -> dict[str, Rows]:
    """Hold out the latest rows: test rows are the latest, and validation rows come just before them."""
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


def require_times(pool: Rows, time: Times, place: Callable[[int], str]) -> None:
    """Refuse a row without a time.

    Raises:
        UserError: a row has no time; the message names the first such row.
    """
    wrong = pool[~np.isfinite(time[pool])]
    if wrong.size:
        more = f", and {wrong.size - 1} more rows" if wrong.size > 1 else ""
        raise UserError(place(int(wrong.min())), f"has no time{more}", path=("by_time",))


def _count(name: str, n: int, fraction: float | None) -> int:
    if fraction is None:
        return 0
    count = math.floor(fraction * n + 0.5)
    if count == 0:
        raise UserError(
            "",
            f"split {name!r} is empty ({counted(n, 'row')} x {fraction:g})",
            f"write {name}: {min(0.5, 1 / n):.2g} or more, or bring more rows",
            path=(name,),
        )
    return count
