"""Reads a Parquet file as batches of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from mtl.data.files.column_types import type_name
from mtl.data.files.formats.csv_structure import refuse_twice
from mtl.data.files.formats.form import first_line
from mtl.data.files.opening import OpenFile
from mtl.errors import EnvironmentFault, UserError

ROWS = 16_384
"""Rows that are decoded at once."""
BYTES = 1 << 28
"""Most bytes of lists of fixed size that are decoded at once."""
BUFFER = 1 << 17
"""Bytes of each column that are read at once."""


class Parquet:
    """A Parquet file; its columns keep their types.

    Args:
        file: the file.
        name: its name in messages.
    """

    first_row: ClassVar[int] = 0
    finds_missing: ClassVar[bool] = False

    def __init__(self, file: OpenFile, name: str) -> None:
        self.file, self.name = file, name

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, from the footer."""
        return tuple(self.schema.names)

    @property
    def types(self) -> Mapping[str, str]:
        """Column -> the name of its type."""
        return {name: type_name(self.schema.field(name).type) for name in self.column_names}

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns and their types, from the footer.

        Raises:
            UserError: a column appears twice, or has a name that is no text.
        """
        try:
            names = (schema := self._open().schema_arrow).names
        except UnicodeDecodeError:
            raise UserError(self.name, "the name of a column is not UTF-8 text") from None
        refuse_twice(names, self.name)
        return schema

    @property
    def n_rows(self) -> int:
        """The number of rows, from the footer."""
        return int(self._open().metadata.num_rows)

    def row(self, i: int) -> str:
        """The name of row i in messages."""
        return f"{self.name}:row {i}"

    def check(self) -> None:
        """Refuse a file without rows."""
        if self.column_names and self.n_rows == 0:
            raise UserError(self.name, "no rows")

    def first(self, columns: Sequence[str], missing: Sequence[str]) -> pa.RecordBatch | None:
        """The first row of the given columns; no other row is decoded."""
        batch = next(self._batches(columns, rows=1), None)
        return batch if batch is not None and batch.num_rows else None

    def batches(self, columns: Sequence[str], missing: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of the given columns."""
        return self._batches(columns, ROWS)

    def _open(self) -> Any:
        """The reader; it has read the footer."""
        import pyarrow.parquet as pq

        def read() -> Any:
            # a small buffer: without it, memory keeps all that was read of the file
            return pq.ParquetFile(self.file.stream(), pre_buffer=False, buffer_size=BUFFER)

        try:
            return self.file.once("parquet", read)
        except (pa.ArrowException, OSError) as error:
            raise UserError(self.name, f"is not a Parquet file ({first_line(error)})") from None

    def _rows_at_once(self, columns: Sequence[str]) -> int:
        """So few rows that their lists of fixed size, as far as the schema says it, take no more than `BYTES`."""
        # the file may have been replaced meanwhile
        there = [name for name in columns if name in self.column_names]
        kinds = [self.schema.field(name).type for name in there]
        sizes: list[int] = [8 * kind.list_size for kind in kinds if pa.types.is_fixed_size_list(kind)]
        return max(1, BYTES // max(1, sum(sizes)))

    def _batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        rows = min(rows, self._rows_at_once(columns))
        reader = self._open().iter_batches(rows, columns=list(columns), use_threads=False)
        while True:
            try:
                batch = next(reader, None)
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, MemoryError) or "alloc of size" in str(error):
                    what = f"its rows do not fit into memory, {rows:,} at a time ({first_line(error)})"
                    raise EnvironmentFault(
                        self.name, what, "leave out columns of long texts or lists"
                    ) from None
                self.file.require_unchanged()
                raise UserError(self.name, f"cannot be read to its end ({first_line(error)})") from None
            if batch is None:
                return self.file.require_unchanged()
            yield batch.select(list(columns))  # a name such as a.b also selects the field b of a column a
