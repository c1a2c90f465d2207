"""One label or further column of a table while it is read, and what it is when all is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl.data.columns.labels import narrow
from mtl.data.columns.times import are_dates, times
from mtl.data.columns.values import Codes, lists_of_text, numbers, texts
from mtl.data.files.column_types import type_name
from mtl.data.files.table import TableFile
from mtl.data.memory import require_memory
from mtl.data.types import Array, How, Mask, Rows
from mtl.errors import UserError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

MAX_VALUES = 100_000
"""Distinct values of a category or class."""
MAX_LABELS = 10_000
"""Distinct labels of a column that lists them."""


@dataclass
class Column:
    """One label or further column while it is read.

    Args:
        how: how its values are taken.
        n_rows: rows of all files.
        values: (n_rows,) numbers or codes; made at once, for chunks of many columns would leave holes in memory.
        codes: what the codes stand for.
        dates: of a column of times, whether they are dates rather than numbers, as the first batch with any says.
        there: of a column that lists labels, whether each row has a value, in parts.
        listed: of such a column, rows and codes of its labels, in parts.
    """

    name: str
    how: How
    separator: str
    n_rows: int
    values: npt.NDArray[Any] | None = None
    codes: Codes | None = None
    dates: bool | None = None
    there: list[Mask] = field(default_factory=list)
    listed: list[tuple[Rows, npt.NDArray[np.int32]]] = field(default_factory=list)

    def add(self, file: TableFile, first: int, at: int, array: pa.Array) -> None:
        """Take in one batch: the rows from `first` on of a file, which are those from `at` on of all files."""
        if self.how == "numbers":
            return self._put(at, numbers(file, self.name, first, array))
        if self.how == "times":
            if self.dates is None:
                self.dates = are_dates(file, self.name, first, array)
            return self._put(at, times(file, self.name, first, array, self.dates))
        if self.codes is None:
            self.codes = Codes(self.name, MAX_VALUES if self.how == "classes" else 1 << 31)
        # the first batch says whether a column lists labels or is 0 or 1; another file may hold them otherwise
        if self.how == "lists" and self.values is None and (self.there or _lists(array)):
            there, rows, labels = lists_of_text(file, self.name, first, array, self.separator)
            self.there.append(there)
            self.listed.append((rows + at, self.codes.add(labels)))
        else:
            self._put(at, self.codes.add(texts(file, self.name, first, array)))

    def _put(self, at: int, part: npt.NDArray[Any]) -> None:
        """In the smallest type that holds what was seen so far: 40 columns of classes take a byte each, not four."""
        part = narrow(part)
        if self.values is None:
            self.values = np.zeros(self.n_rows, part.dtype)
        wider = np.result_type(self.values, part)
        if wider != self.values.dtype:
            self.values = self.values.astype(wider)
        self.values[at : at + len(part)] = part


def _lists(array: pa.Array) -> bool:
    """Whether a column of a multilabel task lists labels, rather than being 0 or 1."""
    return type_name(array.type) not in ("integer", "boolean", "number")


def finished(column: Column) -> tuple[Array, Mask, tuple[str, ...] | None]:
    """Values, which of them are there, and what codes are called (None for numbers)."""
    if column.how in ("numbers", "times"):
        assert column.values is not None
        return narrow(column.values), ~np.isnan(column.values), None
    assert column.codes is not None
    if column.there:
        return _listed(column, column.codes)
    names, remap = column.codes.finish()
    codes = column.values
    assert codes is not None
    there = codes >= 0
    # the remap has a place for -1 at its end
    number = np.append(np.asarray(remap, np.int64), -1)
    if column.how == "classes" and names and all(_whole(name) for name in names):
        value = np.array([int(name) for name in names] + [0], dtype=np.int64)
        return narrow(value[number])[codes], there, None
    return narrow(number)[codes], there, names


def _whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and len(name) < 18 and str(int(name)) == name


def _listed(column: Column, codes: Codes) -> tuple[Array, Mask, tuple[str, ...]]:
    """A column that lists labels: (n, L) of 0 and 1, L distinct labels in order."""
    names, remap = codes.finish()
    called = f"column {quoted(column.name)}"
    if len(names) > MAX_LABELS:
        raise UserError("", f"{called} lists {len(names)} distinct labels, at most {MAX_LABELS}")
    what = f"the {len(names)} labels of {called}"
    require_memory(column.n_rows * len(names), "", what, "leave out those that are rare")
    values = np.zeros((column.n_rows, len(names)), np.int8)
    for rows, found in column.listed:
        values[rows, remap[found]] = 1
    return values, np.concatenate(column.there), names
