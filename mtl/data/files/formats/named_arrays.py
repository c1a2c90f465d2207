"""Reads an .npz file with one array per column as batches of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa

from mtl.data.files.npz import archive_of
from mtl.data.files.npz_stream import stream
from mtl.data.files.opening import OpenFile
from mtl.data.types import Array
from mtl.errors import UserError, quoted

ROWS = 16_384
"""Rows that are read at once."""
KINDS = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "U": "text", "S": "text", "M": "time"}
"""The kind of a dtype -> the name of its type in a table."""


class Arrays:
    """An .npz file whose arrays (n,) are the columns of a table; an array (n, F) is a column of lists.

    NaN and "not a time" are missing. Empty text is missing where the table says so, as in a CSV.

    Args:
        file: the file.
        name: its name in messages.
    """

    first_row: ClassVar[int] = 0
    finds_missing: ClassVar[bool] = False

    def __init__(self, file: OpenFile, name: str) -> None:
        self.name, self.archive = name, archive_of(file)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return tuple(self.archive.members)

    @cached_property
    def types(self) -> Mapping[str, str]:
        """Column -> the name of its type."""
        held = self.archive.headers
        return {
            name: "list" if len(shape) == 2 else KINDS.get(dtype.kind, "other")
            for name, (shape, dtype) in held.items()
        }

    @cached_property
    def n_rows(self) -> int:
        """The length of the arrays.

        Raises:
            UserError: two arrays have other lengths, or an array has no rows or more than two axes.
        """
        lengths = {}
        for name, (shape, _) in self.archive.headers.items():
            if len(shape) not in (1, 2):
                what = f"array {quoted(name)} has shape {shape}; a column is (n,) or (n, F)"
                raise UserError(self.name, what, "use source kind: npz for other arrays")
            lengths[name] = shape[0]
        if len(set(lengths.values())) > 1:
            (one, n), *rest = lengths.items()
            other, m = next((name, m) for name, m in rest if m != n)
            raise UserError(self.name, f"array {quoted(other)} has {m} rows, {quoted(one)} has {n}")
        return next(iter(lengths.values()), 0)

    def row(self, i: int) -> str:
        """The name of row i in messages."""
        return f"{self.name}:row {i}"

    def check(self) -> None:
        """Refuse a file without rows."""
        if self.n_rows == 0:
            raise UserError(self.name, "no rows")

    def first(self, columns: Sequence[str], missing: Sequence[str]) -> pa.RecordBatch | None:
        """The first row of the given columns."""
        return next(self._batches(columns, 1), None) if self.n_rows else None

    def batches(self, columns: Sequence[str], missing: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of the given columns."""
        return self._batches(columns, ROWS)

    def _batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        for arrays in stream(self.archive, list(columns), rows):
            found = [self._column(name, arrays[name]) for name in columns]
            yield pa.record_batch(found, names=list(columns))

    def _column(self, name: str, values: Array) -> pa.Array:
        kind = values.dtype.kind
        if kind not in KINDS:
            raise UserError(self.name, f"array {quoted(name)} holds {values.dtype} values")
        if values.ndim == 2:
            flat = pa.array(np.ascontiguousarray(values).ravel(), from_pandas=True)
            return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        if kind == "U":
            return pa.array(values.tolist(), pa.string())
        if kind == "M":
            return pa.array(values.astype("datetime64[us]"))
        if kind == "f" and values.dtype.itemsize > 8:
            values = values.astype(np.float64)
        return pa.array(values, from_pandas=True)
