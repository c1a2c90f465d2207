"""What every form of a table gives, and how the texts of a column are to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import pyarrow as pa

from mtl.errors import printable


@dataclass(frozen=True)
class ColumnForm:
    """How the texts of one column are read.

    Args:
        na_values: texts that mean a missing value; None: those of the whole table.
        decimal: the sign before the fraction of a number.
        thousands: the sign between groups of three digits; "" for none.
        unit: text before or after a number, such as `%` or `CHF`; 12% is read as 12.
        date_format: how a date is written, in the signs of `strptime`; "" for ISO 8601.
        separator: the text between the labels of a row that lists several; "" for that of the whole table.
    """

    na_values: tuple[str, ...] | None = None
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    date_format: str = ""
    separator: str = ""

    @property
    def plain_numbers(self) -> bool:
        """Whether numbers are written as programs write them."""
        return self.decimal == "." and not self.thousands and not self.unit


class Form(Protocol):
    """One form of a table: CSV, Parquet, arrays, or memory."""

    name: str
    """The name of the table in messages."""
    first_row: ClassVar[int]
    """The number of the first row in messages: a CSV counts its header as row 1, all others count from 0."""
    finds_missing: ClassVar[bool]
    """Whether `first` and `batches` turn texts that mean a missing value into null."""

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns."""

    @property
    def types(self) -> Mapping[str, str]:
        """Column -> text, number, integer, boolean, list, time or other."""

    @property
    def n_rows(self) -> int:
        """The number of rows."""

    def row(self, i: int) -> str:
        """The name of row i in messages: i counts from 0, `first_row` is the number that row 0 gets there."""

    def check(self) -> None:
        """Refuse a faulty table.

        Raises:
            UserError: the table has a fault; the message names the row.
        """

    def first(self, columns: Sequence[str], missing: Sequence[str]) -> pa.RecordBatch | None:
        """The first row of the given columns, or None."""

    def batches(self, columns: Sequence[str], missing: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of the given columns, in order."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, printable and short."""
    return printable((str(error).splitlines() or [type(error).__name__])[0][:100])
