"""Finds rows of totals and numbers that are far outside of their column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl.data.columns.numbers import numbers
from mtl.data.files.table import TableFile
from mtl.starter.look.columns import MANY, SEEN_ROWS, Look, first_rows
from mtl.starter.look.copies import CELLS
from mtl.starter.words import TOTALS

FAR = 1000.0
"""Least size of a number that is far outside, in 99th percentiles of the column's absolute values."""
MOST_TOTALS = 0.05
"""Largest share of rows that may be totals; a word in more rows is a usual value."""
FULL = 0.05
"""Largest share of rows without a value in a column in which an empty cell is unusual."""
Numbers = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Total:
    """A row that looks like a total: its number counted from 0, and the cell that says so."""

    row: int
    column: str
    text: str


@dataclass(frozen=True)
class Far:
    """A number that is far outside of its column: the column, its row counted from 0, and its value."""

    column: str
    row: int
    value: float


def totals(plain: TableFile, file: TableFile, looks: Mapping[str, Look]) -> list[Total]:
    """The rows in which a cell says Total, Sum, Mean or the like, and which differ from other rows.

    Such a row is the last one, lacks a value where few rows lack one, or holds a number that is larger than that of
    every other row. In a column of numbers, where the word is a slip, the last row alone is not enough.

    Args:
        plain: the table as it is written.
        file: the table, which reads the columns as the recipe will.
        looks: what was seen of them.
    """
    found: dict[int, Total] = {}
    for name in (name for name, seen in looks.items() if _may_say_total(seen)):
        own = _words(plain, name)
        if len(own) <= max(1, MOST_TOTALS * looks[name].n):
            for total in own:
                found.setdefault(total.row, total)
    if not found:
        return []
    rows = np.array(sorted(found))
    unusual = {r for r, total in found.items() if r == file.n_rows - 1 and not looks[total.column].numeric}
    for name, size in _sizes(file, looks):
        other = np.array([row for row in rows if found[row].column != name], np.int64)
        unusual |= set(other[_differ(size, other, rows)].tolist())
    return [found[row] for row in sorted(unusual)]


def _may_say_total(seen: Look) -> bool:
    if seen.type != "text":
        return False
    if seen.parsed is not None:
        return any(map(says_total, seen.parsed.odd))
    return seen.distinct > MANY or any(map(says_total, seen.counts))


def says_total(text: str) -> bool:
    """Whether a cell says that its row is a total: `Total`, `Grand total:`, `SUMME`."""
    return " ".join(re.sub(r"[-:=()*]", " ", text).lower().split()) in TOTALS


def _words(plain: TableFile, name: str) -> list[Total]:
    """The cells of a column of text that say total."""
    found = []
    for first, batch in first_rows(plain, [name], SEEN_ROWS):
        column = batch.column(name).dictionary_encode()
        words = [says_total(text) for text in column.dictionary.to_pylist()]
        if any(words):
            codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(np.array([*words, False])[codes])
            found += [Total(first + row, name, column[row].as_py()) for row in rows.tolist()]
    return found


def _sizes(file: TableFile, looks: Mapping[str, Look]) -> Iterator[tuple[str, Numbers]]:
    """Column -> (n,) absolute values of numbers, 0 for a text, NaN for a missing value; read some columns at a time."""
    names = [name for name, seen in looks.items() if seen.type in ("text", "number", "integer")]
    at_once = max(1, CELLS // min(SEEN_ROWS, file.n_rows))
    for begin in range(0, len(names), at_once):
        part = names[begin : begin + at_once]
        sizes: dict[str, list[Numbers]] = {name: [] for name in part}
        for first, batch in first_rows(file, part, SEEN_ROWS):
            for name in part:
                array = batch.column(name)
                lacking = array.is_null().to_numpy(zero_copy_only=False)
                text = not looks[name].numeric
                size = np.where(lacking, np.nan, 0) if text else np.abs(numbers(file, name, first, array))
                sizes[name].append(size)
        for name in part:
            yield name, np.concatenate(sizes.pop(name))


def _differ(size: Numbers, rows: Rows, excluded: Rows) -> npt.NDArray[np.bool_]:
    """(m,) which of these rows lack a value that few others lack, or hold a number beyond all others.

    Args:
        size: (n,) absolute values of a column, NaN for a missing one.
        rows: (m,) the rows in question.
        excluded: rows that are not among the others.
    """
    rest = np.delete(size, excluded)
    full = bool(np.isnan(rest).mean() <= FULL) if len(rest) else False
    largest = np.nanmax(rest, initial=0.0)
    differ: npt.NDArray[np.bool_] = (np.isnan(size[rows]) & full) | (size[rows] > largest)
    return differ


def far_outside(file: TableFile, columns: Sequence[str]) -> list[Far]:
    """The largest number of each column in which it is more than `FAR` times the 99th percentile of absolute values.

    Args:
        file: the table, which reads the columns as the recipe will.
        columns: columns of numbers.
    """
    found = []
    for name, values in _numbers(file, columns, min(SEEN_ROWS, CELLS // max(1, len(columns)))).items():
        size = np.abs(values)
        if np.isnan(size).all():
            continue
        usual = float(np.nanquantile(size, 0.99, method="lower"))
        row = int(np.nanargmax(size))
        if usual > 0 and size[row] > FAR * usual:
            found.append(Far(name, row, float(values[row])))
    return found


def _numbers(file: TableFile, columns: Sequence[str], most: int) -> dict[str, Numbers]:
    """The numbers of the first rows of some columns, NaN for a missing one."""
    parts: dict[str, list[Numbers]] = {name: [] for name in columns}
    for first, batch in first_rows(file, columns, most):
        for name in columns:
            parts[name].append(numbers(file, name, first, batch.column(name)))
    return {name: np.concatenate(parts[name]) for name in columns}
