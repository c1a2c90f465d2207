"""One label or further column of a table, during reading and after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl.data import room
from mtl.data.columns.labels import narrow, whole_numbers
from mtl.data.columns.numbers import MISSING, numbers
from mtl.data.columns.times import are_dates, times
from mtl.data.columns.values import Codes, lists_of_text, texts
from mtl.data.files.column_types import type_name
from mtl.data.files.table import Table
from mtl.data.types import Array, Empty, How, Mask, Rows
from mtl.errors import UserError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

MAX_VALUES = 100_000
"""Most distinct values of a category or class."""
TARGET_OF_TEXT = f"{MISSING}; a target of text takes kind: multiclass"
WEIGHT_OF_TEXT = "the weight of a row is a number of 0 or more"
MAX_LABELS = 10_000
"""Most distinct labels of a column that lists labels."""


@dataclass
class Column:
    """One label or further column during reading.

    Args:
        name: the name of the column.
        how: how its values are read.
        separator: the text between the labels of one row, for a column that lists labels.
        empty: what an empty text means, for a column that lists labels.
        n_rows: rows of all files.
        weighs: whether it holds the weights of rows.
        values: (n_rows,) numbers or codes. They are allocated at once, because chunks of many columns would leave
            holes in memory.
        codes: the meaning of the codes.
        dates: for a column of times, whether they are dates rather than numbers; the first batch with a value decides.
        there: for a column that lists labels, whether each row has a value; one array per batch.
        listed: for such a column, rows and codes of its labels; one pair per batch.
    """

    name: str
    how: How
    separator: str
    empty: Empty | None
    n_rows: int
    weighs: bool = False
    values: npt.NDArray[Any] | None = None
    codes: Codes | None = None
    dates: bool | None = None
    there: list[Mask] = field(default_factory=list)
    listed: list[tuple[Rows, npt.NDArray[np.int32]]] = field(default_factory=list)

    def add(self, file: Table, first: int, at: int, array: pa.Array) -> None:
        """Read one batch. Its first row is row `first` of its file, and row `at` of all files together."""
        if self.how == "numbers":
            return self._put(at, self._numbers(file, first, array))
        if self.how == "times":
            if self.dates is None:
                self.dates = are_dates(file, self.name, first, array)
            return self._put(at, times(file, self.name, first, array, self.dates))
        if self.codes is None:
            self.codes = Codes(self.name, MAX_VALUES if self.how == "classes" else 1 << 31)
        # the first batch decides whether a column lists labels or holds 0 and 1; another file may do the other thing
        if self.how == "lists" and self.values is None and (self.there or _lists(array)):
            separator = file.of(self.name).separator or self.separator
            there, rows, labels = lists_of_text(file, self.name, first, array, separator, self.empty)
            self.there.append(there)
            self.listed.append((rows + at, self.codes.add(labels)))
        else:
            self._put(at, self.codes.add(texts(file, self.name, first, array)))

    def _numbers(self, file: Table, first: int, array: pa.Array) -> npt.NDArray[np.float64]:
        if not self.weighs:
            return numbers(file, self.name, first, array, TARGET_OF_TEXT)
        try:
            return numbers(file, self.name, first, array, WEIGHT_OF_TEXT)
        except UserError as error:
            raise UserError(error.place, error.what, error.todo, path=("sample_weight", self.name)) from None

    def _put(self, at: int, part: npt.NDArray[Any]) -> None:
        """Keep values in the smallest type that holds all so far: a class then takes one byte per row, not four."""
        part = narrow(part)
        if self.values is None:
            self.values = room.zeros((self.n_rows,), part.dtype)
        wider = np.result_type(self.values, part)
        if wider != self.values.dtype:
            self.values = room.kept(self.values.astype(wider))
        self.values[at : at + len(part)] = part


def _lists(array: pa.Array) -> bool:
    """Whether a column of a multilabel task lists labels; else it holds 0 and 1."""
    return type_name(array.type) not in ("integer", "boolean", "number")


def finished(column: Column) -> tuple[Array, Mask, tuple[str, ...] | None]:
    """The values of a column, which rows have one, and the names of its codes (None for numbers)."""
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
    # the last place of the remap is that of code -1
    position = np.append(np.asarray(remap, np.int64), -1)
    if column.how == "classes" and (whole := whole_numbers(names)) is not None:
        return narrow(np.append(whole, 0)[position])[codes], there, None
    return narrow(position)[codes], there, names


def _listed(column: Column, codes: Codes) -> tuple[Array, Mask, tuple[str, ...]]:
    """Of a column that lists labels: (n, L) of 0 and 1, which rows have a value, and the L labels in order."""
    names, remap = codes.finish()
    called = f"column {quoted(column.name)}"
    if len(names) > MAX_LABELS:
        raise UserError("", f"{called} lists {len(names)} distinct labels, at most {MAX_LABELS}")
    what = f"the {len(names)} labels of {called}"
    room.require(column.n_rows * len(names), "", what, "leave out those that are rare")
    values = room.zeros((column.n_rows, len(names)), np.int8)
    for rows, found in column.listed:
        values[rows, remap[found]] = 1
    return values, np.concatenate(column.there), names
