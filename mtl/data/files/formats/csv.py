"""Reads a CSV as batches of texts."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from mtl.data.files.formats.csv_structure import Checked, check_csv, first_row, read_header
from mtl.data.files.formats.encoding import Encoding, Streams, Utf8
from mtl.data.files.formats.form import first_line
from mtl.data.files.opening import OpenFile
from mtl.errors import UserError

BLOCK = 1 << 20
"""Bytes that are parsed at once, unless a row is longer."""


class Csv:
    """A CSV; every column is text.

    Args:
        file: the file.
        name: its name in messages.
        delimiter: the text between its fields.
        encoding: the encoding of its text.
    """

    first_row: ClassVar[int] = 2
    finds_missing: ClassVar[bool] = True

    def __init__(self, file: OpenFile, name: str, delimiter: str, encoding: Encoding) -> None:
        self.file, self.name, self.delimiter = file, name, delimiter
        self.text: Streams = file if encoding == "utf-8" else Utf8(file, encoding, name)
        self.form: Hashable = (delimiter, encoding)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The names in the first row."""
        return self.file.once(
            (self.form, "header"), lambda: read_header(self.text, self.name, self.delimiter)
        )

    @property
    def types(self) -> Mapping[str, str]:
        """Column -> text."""
        return dict.fromkeys(self.column_names, "text")

    @property
    def n_rows(self) -> int:
        """The number of rows without the header; the file is read from end to end for it."""
        return self._checked().n_rows

    def row(self, i: int) -> str:
        """The name of row i in messages."""
        return f"{self.name}:row {i + self.first_row}"

    def check(self) -> None:
        """Refuse a faulty file, as `check_csv` does."""
        self._checked()

    def _checked(self) -> Checked:
        return self.file.once((self.form, "check"), lambda: check_csv(self.text, self.name, self.delimiter))

    def first(self, columns: Sequence[str], missing: Sequence[str]) -> pa.RecordBatch | None:
        """The first row of the given columns; no other row is parsed."""
        values = first_row(self.text, self.name, self.delimiter)
        if values is None:
            return None
        named = values[len(values) - len(self.column_names) :]
        row = dict(zip(self.column_names, named, strict=True))
        texts = [None if row[name] in missing else row[name] for name in columns]
        return pa.record_batch([pa.array([text], pa.string()) for text in texts], names=list(columns))

    def batches(self, columns: Sequence[str], missing: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of the given columns; a text that is one of `missing` is null."""
        import pyarrow.csv as pv

        # the reader is up to 32 blocks ahead, and one block must hold a whole row
        block = max(BLOCK, 2 * self._checked().longest)
        stream: Any = self.text.stream()
        try:
            yield from pv.open_csv(
                stream,
                read_options=pv.ReadOptions(use_threads=False, block_size=block),
                parse_options=pv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                convert_options=pv.ConvertOptions(
                    column_types=dict.fromkeys(self.column_names, pa.string()),
                    include_columns=list(columns),
                    null_values=list(missing),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid as error:
            raise UserError(self.name, f"cannot be read as CSV ({first_line(error)})") from None
        self.file.require_unchanged()
