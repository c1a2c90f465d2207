"""A table in memory that can be read like a table file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.data.files.csv_structure import refuse_twice
from mtl.data.files.table import PARQUET_ROWS, TableFile

if TYPE_CHECKING:
    import pyarrow as pa


class MemoryTable(TableFile):
    """A pyarrow Table with the interface of a Parquet file; its rows are counted from 0.

    Args:
        table: the rows.
        na_values: texts that mean a missing value.

    Raises:
        UserError: a column appears twice.
    """

    def __init__(self, table: pa.Table, na_values: Sequence[str] = ("",)) -> None:
        self.table, self.na_values = table, tuple(na_values)
        self.name, self.path = "table", Path("table")
        self.is_parquet = True
        refuse_twice(table.column_names, self.name)
        self._schema = table.schema
        self.n_rows = table.num_rows

    def check(self) -> None:
        """Do nothing: a table in memory has no form that could be faulty."""

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(list(columns)).to_batches(PARQUET_ROWS)
