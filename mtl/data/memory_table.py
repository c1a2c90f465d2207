"""A table in memory, behind the interface of a table file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.data.table import TableFile
from mtl.errors import UserError, did_you_mean, quoted

if TYPE_CHECKING:
    import pyarrow as pa


class MemoryTable(TableFile):
    """A pyarrow Table that is read as a file would be.

    Args:
        table: the rows.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.name = "table"
        self.path = Path("table")
        self.column_names = tuple(table.column_names)
        self.n_rows = table.num_rows

    def check(self) -> None:
        """Nothing can be wrong with the form of a table that is in memory."""

    def row(self, i: int) -> str:
        return f"table:row {i}"

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        for name in columns:
            if name not in self.column_names:
                raise UserError(
                    self.name,
                    f"no column {quoted(name)}{did_you_mean(name, self.column_names)}; columns: "
                    f"{', '.join(self.column_names[:20])}",
                )
        first = 0
        for batch in self.table.select(list(columns)).to_batches():
            yield first, batch
            first += batch.num_rows
