"""A table of rows and columns, whatever its form: CSV, Parquet, arrays by name, or memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from mtl.console import counted
from mtl.data.files.column_types import first_bad, is_text, long_entry
from mtl.data.files.formats.csv import Csv
from mtl.data.files.formats.csv_structure import FIELD_LIMIT
from mtl.data.files.formats.encoding import Encoding
from mtl.data.files.formats.form import ColumnForm, Form
from mtl.data.files.formats.in_memory import InMemory
from mtl.data.files.formats.named_arrays import Arrays
from mtl.data.files.formats.parquet import Parquet
from mtl.data.files.formats.parquet_parts import ParquetParts
from mtl.data.files.parts import Parts, found_at, is_data_set
from mtl.data.types import no_column, shown_columns
from mtl.errors import UserError, quoted

TEXT_SUFFIXES, PARQUET_SUFFIXES = (".csv", ".tsv", ".txt"), (".parquet", ".pq")
SUFFIXES = (*TEXT_SUFFIXES, *PARQUET_SUFFIXES, ".npz")
SHEETS = (".xlsx", ".xls", ".ods")
PLAIN = ColumnForm()
MOST_NAMED = 10
"""Most missing columns that an error names."""

Found = TypeVar("Found")


class Table:
    """Rows and columns, and how their texts are read.

    Args:
        form: the rows and columns.
        name: the name of the table in messages.
        path: where it lies.
        na_values: texts that mean a missing value in a column that has none of its own.
        columns: column -> how its texts are read.
    """

    def __init__(
        self,
        form: Form,
        name: str,
        path: Path,
        na_values: Sequence[str] = ("",),
        columns: Mapping[str, ColumnForm] | None = None,
    ) -> None:
        self.form, self.name, self.path = form, name, path
        self.na_values, self.columns = tuple(na_values), dict(columns or {})

    @property
    def folder(self) -> Path:
        """The folder that paths of images start from."""
        return self.path.parent

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self.form.column_names

    @cached_property
    def types(self) -> Mapping[str, str]:
        """Column -> text, number, integer, boolean, list, time or other; every column of a CSV is text."""
        return self.form.types

    @cached_property
    def n_rows(self) -> int:
        """The number of rows without the header; a CSV is read from end to end for it."""
        return self.form.n_rows

    def check(self) -> None:
        """Refuse a faulty table.

        Raises:
            UserError: the table has a fault; the message names the row.
        """
        self.form.check()

    def of(self, column: str) -> ColumnForm:
        """How the texts of a column are read."""
        return self.columns.get(column, PLAIN)

    def missing(self, column: str) -> tuple[str, ...]:
        """The texts that mean a missing value in a column."""
        own = self.of(column).na_values
        return self.na_values if own is None else own

    def row(self, i: int) -> str:
        """The name of row i in messages; it counts a CSV's header as row 1, and the rows of each file of a data set."""
        return self.form.row(i)

    def where(self, column: str, i: int) -> str:
        """The name of the value of a column in row i."""
        return f"{self.row(i)}, column {quoted(column)}"

    def lacks(self, column: str, used: Collection[str] = ()) -> str:
        """The message on a missing column, with the columns of the file and the nearest name that nothing uses."""
        return no_column(column, self.column_names, used=used)

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a table that lacks one of these columns.

        Raises:
            UserError: it lacks some; the error names all of them.
        """
        lacking = [name for name in dict.fromkeys(columns) if name not in self.column_names]
        if len(lacking) == 1:
            raise UserError(self.name, self.lacks(lacking[0], columns))
        if lacking:
            named = ", ".join(map(quoted, lacking[:MOST_NAMED]))
            more = f" and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
            raise UserError(
                self.name, f"no columns {named}{more}; columns: {shown_columns(self.column_names)}"
            )

    def batches(
        self, columns: Sequence[str], empty: Sequence[str] = ()
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The rows of the given columns in the table's order; each batch comes with the number of its first row.

        The values of a CSV are text. A text that means a missing value is null, apart from empty text in the
        columns `empty`.

        Raises:
            UserError: the table lacks a column, cannot be read to its end, holds text that is not UTF-8, or has
                other rows than when it was checked.
        """
        self.require(columns)
        expected, first = self.n_rows, 0
        for batch in self.form.batches(columns, self._everywhere(columns, empty)):
            yield first, self._with_plain_texts(first, batch, empty)
            first += batch.num_rows
            if first > expected:
                break
        if first != expected:
            raise UserError(
                self.name,
                f"{counted(expected, 'row')} when it was checked, {first} now",
                "was it written meanwhile?",
            )

    def first_row(self, columns: Sequence[str]) -> pa.RecordBatch:
        """The first row of the given columns; no other row is parsed.

        Raises:
            UserError: the table has no row, or lacks a column.
        """
        self.require(columns)
        batch = self.form.first(columns, self._everywhere(columns, ()))
        if batch is None:
            raise UserError(self.name, "no rows")
        return self._with_plain_texts(0, batch, ())

    def _missing(self, column: str, empty: Sequence[str]) -> set[str]:
        return set(self.missing(column)) - ({""} if column in empty else set())

    def _everywhere(self, columns: Sequence[str], empty: Sequence[str]) -> tuple[str, ...]:
        """The texts that mean a missing value in each of the columns."""
        sets = [self._missing(column, empty) for column in columns]
        return tuple(sorted(set.intersection(*sets))) if sets else ()

    def _with_plain_texts(self, first: int, batch: pa.RecordBatch, empty: Sequence[str]) -> pa.RecordBatch:
        """The batch without dictionaries, with one type of text, and with null for texts that mean missing."""
        names = batch.schema.names
        found = self._everywhere(names, empty) if self.form.finds_missing else ()
        arrays = []
        for name, array in zip(names, batch.columns, strict=True):
            if pa.types.is_dictionary(array.type):
                if found_long := long_entry(array, FIELD_LIMIT):
                    k, length = found_long
                    what = f"holds {length} characters, at most {FIELD_LIMIT}"
                    raise UserError(self.where(name, first + k), what)
                array = array.dictionary_decode()
            if is_text(array.type):
                array = self.as_text(name, first, array)
                left = sorted(self._missing(name, empty) - set(found))
                if left:
                    array = pc.if_else(pc.is_in(array, value_set=pa.array(left, pa.string())), None, array)
            arrays.append(array)
        # setting one column after the other would copy all of them each time
        return pa.RecordBatch.from_arrays(arrays, names)

    def without_empty(self, column: str, array: pa.Array) -> pa.Array:
        """The values of a column of `empty` texts as any other column has them: null where empty text is missing."""
        if not is_text(array.type) or "" not in self.missing(column):
            return array
        return pc.if_else(pc.equal(array, ""), None, array)

    def as_text(self, column: str, first: int, array: pa.Array) -> pa.StringArray:
        """Text or bytes, in any of Arrow's forms, as text.

        Raises:
            UserError: a text is not UTF-8; the message names its row.
        """
        if self.form.finds_missing:
            return array  # a CSV was checked as a whole

        def read(part: pa.Array) -> pa.StringArray:
            part = part if pa.types.is_string(part.type) else part.cast(pa.string())
            part.validate(full=True)
            return part

        with suppress(pa.ArrowInvalid):
            return read(array)
        raise UserError(self.where(column, first + first_bad(array, read)), "not UTF-8 text")


class TableFile(Table):
    """A table in a file: CSV, Parquet, or .npz with one array per column; or in the Parquet files of a data set.

    Args:
        path: the file, or the folder or pattern of a data set.
        name: the file's name in messages; by default the last part of its path.
        delimiter: the text between the fields of a CSV; by default a comma, or a tab in .tsv.
        encoding: the encoding of a CSV.
        na_values, columns: as for `Table`.

    Raises:
        UserError: there is no such file, its suffix is unknown, or the data set has no files.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        delimiter: str | None = None,
        encoding: Encoding = "utf-8",
        na_values: Sequence[str] = ("",),
        columns: Mapping[str, ColumnForm] | None = None,
    ) -> None:
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES and not is_data_set(path):
            what = f"a table is one of {', '.join(SUFFIXES)}, not {quoted(path.suffix)}"
            todo = "save the sheet as CSV or Parquet" if suffix in SHEETS else ""
            raise UserError(str(path), what, todo, path=("path",))
        self._file = found_at(path)
        form: Form
        if isinstance(self._file, Parts):
            form = ParquetParts(self._file, name or self._file.name)
        elif suffix in PARQUET_SUFFIXES:
            form = Parquet(self._file, name or path.name)
        elif suffix == ".npz":
            form = Arrays(self._file, name or path.name)
        else:
            delimiter = delimiter or ("\t" if suffix == ".tsv" else ",")
            form = Csv(self._file, name or path.name, delimiter, encoding)
        super().__init__(form, form.name, path, na_values, columns)

    @property
    def folder(self) -> Path:
        """The folder that paths of images start from."""
        return self._file.folder if isinstance(self._file, Parts) else self.path.parent

    def once(self, what: Hashable, find: Callable[[], Found]) -> Found:
        """The result of `find`, computed once for all tables of this form on one opening; see `OpenFile.once`."""
        return self._file.once((getattr(self.form, "form", None), what), find)

    def sha256(self) -> str:
        """sha256 in hex, of the file's bytes, or of the names and bytes of the files of a data set."""
        return self._file.sha256

    def digests(self) -> Mapping[str, str]:
        """The name of each file that has rows -> sha256 of its bytes, in hex."""
        return self.form.digests() if isinstance(self.form, ParquetParts) else {self.name: self.sha256()}


class MemoryTable(Table):
    """A pyarrow Table; its rows are counted from 0.

    Args:
        table: the rows.
        na_values, columns: as for `Table`.

    Raises:
        UserError: a column appears twice.
    """

    def __init__(
        self,
        table: pa.Table,
        na_values: Sequence[str] = ("",),
        columns: Mapping[str, ColumnForm] | None = None,
    ) -> None:
        super().__init__(InMemory(table, "table"), "table", Path("table"), na_values, columns)


def release_memory() -> None:
    """Return the memory that pyarrow keeps for the next file: 76 MB after one of 2 million rows and 50 columns."""
    pa.default_memory_pool().release_unused()
