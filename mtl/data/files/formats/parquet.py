"""Reads a Parquet file as batches of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from mtl.data.files.column_types import is_text, type_name
from mtl.data.files.formats.csv_structure import FIELD_LIMIT, refuse_twice
from mtl.data.files.formats.form import first_line
from mtl.data.files.opening import OpenFile
from mtl.errors import EnvironmentFault, UserError, quoted

ROWS = 16_384
MUCH = 1 << 30
"""Bytes that a batch of texts could take, beyond which each different text is kept once."""
"""Rows that are decoded at once."""
BYTES = 1 << 28
"""Most bytes of texts and lists that are decoded at once."""
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
        return tuple(self._schema.names)

    @property
    def types(self) -> Mapping[str, str]:
        """Column -> the name of its type."""
        return {name: type_name(self._schema.field(name).type) for name in self.column_names}

    @cached_property
    def _schema(self) -> pa.Schema:
        """The schema.

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

        def opened(**more: Any) -> Any:
            # a small buffer: without it, memory keeps all that was read of the file
            return pq.ParquetFile(self.file.stream(), pre_buffer=False, buffer_size=BUFFER, **more)

        def read() -> Any:
            found = opened()
            names = _kept_once(found)
            return opened(metadata=found.metadata, read_dictionary=names) if names else found

        try:
            return self.file.once("parquet", read)
        except (pa.ArrowException, OSError) as error:
            raise UserError(self.name, f"is not a Parquet file ({first_line(error)})") from None

    def _rows_at_once(self, columns: Sequence[str]) -> int:
        """So few rows that their texts and lists take no more than `BYTES`, by the sizes that the footer has."""
        metadata, sizes = self._open().metadata, dict.fromkeys(columns, 1)
        for name in columns:
            kind = self._schema.field(name).type
            if pa.types.is_fixed_size_list(kind):
                sizes[name] = 8 * kind.list_size
        for group, chunk in _chunks(metadata):
            name, size = chunk.path_in_schema, chunk.total_uncompressed_size // max(1, group.num_rows)
            if name in sizes:
                sizes[name] = max(sizes[name], size)
                # a page of texts is read whole, so that fewer rows at a time would not help
                is_long = size > FIELD_LIMIT and chunk.total_uncompressed_size > MUCH
                if is_long and is_text(self._schema.field(name).type):
                    what = f"column {quoted(name)} holds texts of {size:,} bytes on average"
                    raise UserError(
                        self.name, what, f"leave it out: at most {FIELD_LIMIT:,} characters are read"
                    )
        return max(1, BYTES // max(1, sum(sizes.values())))

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


def _kept_once(file: Any) -> list[str]:
    """The columns of texts whose dictionary in the file is so large that a batch of copies could fill the memory."""
    schema, found = file.schema_arrow, set()
    for group, chunk in _chunks(file.metadata):
        name, most = chunk.path_in_schema, min(ROWS, group.num_rows) * chunk.total_uncompressed_size
        is_text_column = name in schema.names and is_text(schema.field(name).type)
        if is_text_column and chunk.has_dictionary_page and most > MUCH:
            found.add(name)
    return sorted(found)


def _chunks(metadata: Any) -> Iterator[tuple[Any, Any]]:
    """Each row group with each of its columns, in the footer."""
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        yield from ((group, group.column(i)) for i in range(group.num_columns))
