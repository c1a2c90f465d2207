"""Reads CSV and Parquet files as batches of columns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from mtl.console import counted
from mtl.data.files.column_types import is_text, type_name
from mtl.data.files.csv_structure import Checked, check_csv, first_row, read_header, refuse_twice
from mtl.data.files.opening import opened
from mtl.data.types import no_column
from mtl.errors import UserError, printable, quoted

TEXT_SUFFIXES, PARQUET_SUFFIXES = (".csv", ".tsv", ".txt"), (".parquet", ".pq")
PARQUET_ROWS = 16_384
"""Rows of a Parquet file that are decoded at once."""
PARQUET_BUFFER = 1 << 17
"""Bytes of each column of a Parquet file that are read at once."""
BLOCK = 1 << 20
"""Bytes of a CSV that are parsed at once, unless a row is longer."""

Found = TypeVar("Found")


class TableFile:
    """One CSV or Parquet file.

    Args:
        path: the file.
        name: the file's name in messages; by default the last part of its path.
        delimiter: the text between the fields of a CSV; by default a comma, or a tab in .tsv.
        na_values: texts that mean a missing value.

    Raises:
        UserError: the file does not exist, or its suffix is unknown.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        delimiter: str | None = None,
        na_values: Sequence[str] = ("",),
    ) -> None:
        self.path, self.name = path, name or path.name
        suffix = path.suffix.lower()
        self.delimiter = delimiter or ("\t" if suffix == ".tsv" else ",")
        self.na_values = tuple(na_values)
        if suffix not in (*TEXT_SUFFIXES, *PARQUET_SUFFIXES):
            known = ", ".join((*TEXT_SUFFIXES, *PARQUET_SUFFIXES))
            raise UserError(
                str(path), f"a table is one of {known}, not {quoted(path.suffix)}", path=("path",)
            )
        self._file = opened(path)
        self.is_parquet = suffix in PARQUET_SUFFIXES

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, from the file's header."""
        if self.is_parquet:
            return tuple(self._schema.names)
        return self.once("header", lambda: read_header(self._file, self.name, self.delimiter))

    @cached_property
    def types(self) -> Mapping[str, str]:
        """Column -> text, number, integer, boolean, list, time or other; every column of a CSV is text."""
        if not self.is_parquet:
            return dict.fromkeys(self.column_names, "text")
        return {name: type_name(self._schema.field(name).type) for name in self.column_names}

    @cached_property
    def _schema(self) -> pa.Schema:
        """The schema of a Parquet file.

        Raises:
            UserError: a column appears twice.
        """
        try:
            names = (schema := self._parquet().schema_arrow).names
        except UnicodeDecodeError:
            raise UserError(self.name, "the name of a column is not UTF-8 text") from None
        refuse_twice(names, self.name)
        return schema

    @cached_property
    def n_rows(self) -> int:
        """The number of rows without the header; a CSV is read from end to end for it."""
        return int(self._parquet().metadata.num_rows) if self.is_parquet else self._checked().n_rows

    def check(self) -> None:
        """Refuse a faulty file, as `check_csv` does.

        Raises:
            UserError: the file has a fault; the message names the row.
        """
        if not self.is_parquet:
            self._checked()
        elif self.column_names and self.n_rows == 0:
            raise UserError(self.name, "no rows")

    def _checked(self) -> Checked:
        """The result of `check_csv`, for a CSV."""
        return self.once("check", lambda: check_csv(self._file, self.name, self.delimiter))

    def once(self, what: Hashable, find: Callable[[], Found]) -> Found:
        """The result of `find`, computed once for all tables of this form on one opening; see `OpenFile.once`."""
        return self._file.once((self.delimiter, what), find)

    def sha256(self) -> str:
        """sha256 of the file's bytes, in hex."""
        return self._file.sha256

    def row(self, i: int) -> str:
        """The name of row i in messages: i counts from 0, but the name counts a CSV's header as row 1."""
        return f"{self.name}:row {i if self.is_parquet else i + 2}"

    def where(self, column: str, i: int) -> str:
        """The name of the value of a column in row i."""
        return f"{self.row(i)}, column {quoted(column)}"

    def lacks(self, column: str) -> str:
        """The message on a missing column, with the nearest name and the columns of the file."""
        return no_column(column, self.column_names)

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a file that lacks one of these columns.

        Raises:
            UserError: it lacks one.
        """
        for name in columns:
            if name not in self.column_names:
                raise UserError(self.name, self.lacks(name))

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The rows of the given columns in the file's order; each batch comes with the number of its first row.

        The values of a CSV are text. A text that is one of `na_values` is null.

        Raises:
            UserError: the file lacks a column, cannot be read to its end, holds text that is not UTF-8, or has
                other rows than when it was checked.
        """
        self.require(columns)
        expected, first = self.n_rows, 0
        for batch in self._batches(columns):
            yield first, self._with_plain_texts(first, batch) if self.is_parquet else batch
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
            UserError: the file has no row, or lacks a column.
        """
        self.require(columns)
        if self.is_parquet:
            batch = next(self._parquet_batches(columns, rows=1), None)
            if batch is not None and batch.num_rows:
                return self._with_plain_texts(0, batch)
        elif (values := first_row(self._file, self.name, self.delimiter)) is not None:
            row = dict(zip(self.column_names, values, strict=True))
            texts = [None if row[name] in self.na_values else row[name] for name in columns]
            return pa.record_batch([pa.array([text], pa.string()) for text in texts], names=list(columns))
        raise UserError(self.name, "no rows")

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return self._parquet_batches(columns) if self.is_parquet else self._csv_batches(columns)

    def _with_plain_texts(self, first: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch as a CSV gives it: no dictionaries, one type of text, and null for texts that mean missing."""
        missing = pa.array(self.na_values, pa.string())
        for i, name in enumerate(batch.schema.names):
            array = batch.column(i)
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            if is_text(array.type):
                array = self.as_text(name, first, array)
                array = pc.if_else(pc.is_in(array, value_set=missing), None, array)
            batch = batch.set_column(i, batch.schema.field(i).with_type(array.type), array)
        return batch

    def as_text(self, column: str, first: int, array: pa.Array) -> pa.StringArray:
        """Text or bytes, in any of Arrow's forms, as text.

        Raises:
            UserError: a text is not UTF-8; the message names its row.
        """

        def read(part: pa.Array) -> pa.StringArray:
            part = part if pa.types.is_string(part.type) else part.cast(pa.string())
            part.validate(full=True)
            return part

        with suppress(pa.ArrowInvalid):
            return read(array)
        raise UserError(self.where(column, first + first_bad(array, read)), "not UTF-8 text")

    def _parquet(self) -> Any:
        """The reader of a Parquet file; it has read the footer."""
        import pyarrow.parquet as pq

        try:
            # a small buffer: without it, memory keeps all that was read of the file
            return self.once(
                "parquet",
                lambda: pq.ParquetFile(self._file.stream(), pre_buffer=False, buffer_size=PARQUET_BUFFER),
            )
        except (pa.ArrowException, OSError) as error:
            raise UserError(self.name, f"is not a Parquet file ({_first_line(error)})") from None

    def _parquet_batches(self, columns: Sequence[str], rows: int | None = None) -> Iterator[pa.RecordBatch]:
        reader = self._parquet().iter_batches(rows or PARQUET_ROWS, columns=list(columns), use_threads=False)
        while True:
            try:
                batch = next(reader, None)
            except (pa.ArrowException, OSError) as error:
                self._file.require_unchanged()
                raise UserError(self.name, f"cannot be read to its end ({_first_line(error)})") from None
            if batch is None:
                return self._file.require_unchanged()
            yield batch.select(list(columns))  # a name such as a.b also selects the field b of a column a

    def _csv_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow.csv as pv

        # the reader is up to 32 blocks ahead, and one block must hold a whole row
        block = max(BLOCK, 2 * self._checked().longest)
        try:
            yield from pv.open_csv(
                self._file.stream(),
                read_options=pv.ReadOptions(use_threads=False, block_size=block),
                parse_options=pv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                convert_options=pv.ConvertOptions(
                    column_types=dict.fromkeys(self.column_names, pa.string()),
                    include_columns=list(columns),
                    null_values=list(self.na_values),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid as error:
            raise UserError(self.name, f"cannot be read as CSV ({_first_line(error)})") from None
        self._file.require_unchanged()


def release_memory() -> None:
    """Return the memory that pyarrow keeps for the next file: 76 MB after one of 2 million rows and 50 columns."""
    pa.default_memory_pool().release_unused()


def first_bad(array: pa.Array, read: Callable[[pa.Array], object]) -> int:
    """The position of the first value for which `read` fails, found by halving."""
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            read(array.slice(low, middle - low))
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low


def _first_line(error: BaseException) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0][:100])
