"""Reads a table in memory as batches of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from mtl.data.files.column_types import type_name
from mtl.data.files.formats.csv_structure import refuse_twice

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 16_384
"""Rows of one batch."""


class InMemory:
    """A pyarrow Table; its columns keep their types.

    Args:
        table: the rows.
        name: its name in messages.

    Raises:
        UserError: a column appears twice.
    """

    first_row: ClassVar[int] = 0
    finds_missing: ClassVar[bool] = False

    def __init__(self, table: pa.Table, name: str) -> None:
        refuse_twice(table.column_names, name)
        self.table, self.name = table, name

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.table.column_names)

    @property
    def types(self) -> Mapping[str, str]:
        """Column -> the name of its type."""
        return {name: type_name(self.table.schema.field(name).type) for name in self.column_names}

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return int(self.table.num_rows)

    def row(self, i: int) -> str:
        """The name of row i in messages."""
        return f"{self.name}:row {i}"

    def check(self) -> None:
        """Do nothing: a table in memory has no form that could be faulty."""

    def first(self, columns: Sequence[str], missing: Sequence[str]) -> pa.RecordBatch | None:
        """The first row of the given columns."""
        return next(iter(self.table.select(list(columns)).slice(0, 1).to_batches()), None)

    def batches(self, columns: Sequence[str], missing: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of the given columns."""
        yield from self.table.select(list(columns)).to_batches(ROWS)
