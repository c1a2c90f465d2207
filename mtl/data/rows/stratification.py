"""Holds out the same fractions of the classes of many tasks at once.

Shapes: n rows, C columns of classes, L classes of all columns, S parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mtl.data.rows.order import generator_bits, order
from mtl.data.rows.split_rules import Codes, Counts, sizes_of
from mtl.data.types import Rows
from mtl.errors import UserError


def iteratively_stratified(
    pool: Rows, classes_NC: Codes, units: Codes | None, held_out: Mapping[str, float], seed: int
) -> dict[str, Rows]:
    """Hold out the same fractions of the rows of every class; test first, so that validation does not change it.

    Source: Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", Algorithm 1.

    Args:
        pool: the rows to divide.
        classes_NC: (n, C) the class of each row in each column, numbered over all columns from 0 on; -1: none.
        units: (n,) codes; rows of one unit stay in one split.
        held_out: `validation`, `test` -> its fraction of the pool.
        seed: seed of the order of the rows and of the ties.

    Raises:
        UserError: a split is empty; the path is relative to `split`.
    """
    sizes, taken = sizes_of(len(pool), held_out), {"train": pool}
    for name in [name for name in ("test", "validation") if name in held_out]:
        rest = taken["train"]
        part_R = _divided(
            classes_NC[rest], _units_of(units, rest, seed), (len(rest) - sizes[name], sizes[name]), seed
        )
        taken |= {"train": rest[part_R == 0], name: rest[part_R == 1]}
        for split in (name, "train"):
            if not len(taken[split]):
                what = f"split {split!r} is empty: the rows of each class are too few to be divided"
                raise UserError("", what, "stratify by other tasks, or bring more rows", path=("stratify",))
    return taken


def _units_of(units: Codes | None, rows: Rows, seed: int) -> Rows:
    """(R,) the unit of each row; units are numbered in seeded order, and each row is one by default."""
    unit_R = np.arange(len(rows)) if units is None else np.unique(units[rows], return_inverse=True)[1]
    place = np.empty(int(unit_R.max()) + 1, dtype=np.int64)
    place[order(len(place), seed, 0, stream="split")] = np.arange(len(place))
    return place[unit_R]


def _divided(classes_NC: Codes, unit_N: Rows, sizes: Sequence[int], seed: int) -> Rows:
    """(n,) the part of each row; part s has about `sizes[s]` rows, and the same share of the rows of each class.

    The class with the fewest rows left gives each of these rows to the part that lacks most rows of this class; a tie
    goes to the part that lacks most rows of all, and then to a random one. Rows without any class come last. A unit
    counts with all its rows.
    """
    division = _Division(classes_NC, unit_N, sizes, seed)
    division.divide()
    return division.part_of_unit[unit_N]


class _Division:
    """The state of the algorithm; what a part lacks is counted in n-ths of a row, so that ties are exact.

    Args:
        classes_NC: as above, of the n rows of the pool.
        unit_N: (n,) the unit of each row; units come in the order of their numbers.
        sizes: S numbers of rows.
        seed: seed of the ties.
    """

    def __init__(self, classes_NC: Codes, unit_N: Rows, sizes: Sequence[int], seed: int) -> None:
        self.classes_NC, self.unit_N, self.n = classes_NC, unit_N, len(unit_N)
        self.rows_by_unit = np.argsort(unit_N, kind="stable")
        self.size_of_unit = np.bincount(unit_N)
        self.start_of_unit = np.cumsum(self.size_of_unit) - self.size_of_unit
        self.part_of_unit = np.full(len(self.size_of_unit), -1, dtype=np.int64)
        self.left_L = np.bincount(classes_NC[classes_NC >= 0].ravel())
        self.lacks_SL = np.outer(np.array(sizes, dtype=np.int64), self.left_L)
        self.lacks_S = [size * self.n for size in sizes]
        self.ties = _numbers(seed)

    def divide(self) -> None:
        """Set `part_of_unit`."""
        rows_of = _rows_by_class(self.classes_NC)
        left_L = self.left_L
        while (left_L > 0).any():
            rarest = int(np.where(left_L > 0, left_L, self.n + 1).argmin())
            units = self.unit_N[rows_of[rarest]]
            units, n_rows = np.unique(units[self.part_of_unit[units] < 0], return_counts=True)
            self._give(units, self._choices(units, n_rows, self.lacks_SL[:, rarest].tolist()))
        rest = np.flatnonzero(self.part_of_unit < 0)
        self._give(rest, self._choices(rest, self.size_of_unit[rest], [0] * len(self.lacks_S)))

    def _choices(self, units: Rows, n_rows: Counts, lacks: list[int]) -> Counts:
        """The part of each unit in turn; `n_rows` of its rows have the class of which each part lacks `lacks`."""
        by_class, chosen, n = bool(any(lacks)), [], self.n
        for count, size in zip(n_rows.tolist(), self.size_of_unit[units].tolist(), strict=True):
            most = max(lacks)
            best = [s for s, lack in enumerate(lacks) if lack == most]
            if len(best) > 1:
                most = max(self.lacks_S[s] for s in best)
                best = [s for s in best if self.lacks_S[s] == most]
            s = best[0] if len(best) == 1 else best[next(self.ties) % len(best)]
            if by_class:
                lacks[s] -= count * n
            self.lacks_S[s] -= size * n
            chosen.append(s)
        return np.array(chosen, dtype=np.int64)

    def _give(self, units: Rows, parts: Counts) -> None:
        """Put units into parts, and count their rows off from all of their classes."""
        self.part_of_unit[units] = parts
        sizes = self.size_of_unit[units]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = self.rows_by_unit[np.repeat(self.start_of_unit[units], sizes) + within]
        part_of_row = np.repeat(parts, sizes)
        for s in range(len(self.lacks_S)):
            own = self.classes_NC[rows[part_of_row == s]]
            classes, counts = np.unique(own[own >= 0], return_counts=True)
            self.lacks_SL[s, classes] -= counts * self.n
            self.left_L[classes] -= counts


def _rows_by_class(classes_NC: Codes) -> dict[int, Rows]:
    """Class -> its rows."""
    found: dict[int, Rows] = {}
    for column in classes_NC.T:
        rows = np.argsort(column, kind="stable")
        classes, starts = np.unique(column[rows], return_index=True)
        found.update(zip(classes.tolist(), np.split(rows, starts[1:]), strict=True))
    found.pop(-1, None)
    return found


def _numbers(seed: int) -> Iterator[int]:
    """Random whole numbers without end."""
    bits = generator_bits(seed, 0, "split/ties")
    while True:
        yield from bits.random_raw(1024).tolist()
