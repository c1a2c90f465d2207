"""One pass over a CSV before it is parsed: what a parser lets through that its user did not mean."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mtl.errors import UserError, quoted

FIELD_LIMIT = 131_072
"""Characters of one field, as in Python's csv module."""
DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Checked:
    """A CSV that is sound: its rows (without the header and blank lines) and the sha256 of its bytes."""

    n_rows: int
    sha256: str


def read_header(path: Path, name: str, delimiter: str) -> tuple[str, ...]:
    """The names in the first row.

    Raises:
        UserError: the file is empty, not UTF-8, or has a name twice or none.
    """
    with path.open("rb") as file:
        records = _Records(file, name, delimiter)
        header = records.header()
    if len(header) == 1 and delimiter not in header[0]:
        other = next((d for d in DELIMITERS if d != delimiter and d in header[0]), None)
        if other is not None:
            raise UserError(
                name,
                f"one column {quoted(header[0])} found; the file seems to use {other!r}",
                f"write delimiter: {other!r} in data.source",
            )
    seen: set[str] = set()
    for number, column in enumerate(header, start=1):
        if not column.strip():
            raise UserError(name, f"column {number} has no name", "give every column of the first row a name")
        if column in seen:
            raise UserError(name, f"column {quoted(column)} appears twice", "rename one of them")
        seen.add(column)
    return header


def check_csv(path: Path, name: str, delimiter: str) -> Checked:
    """Read a CSV from end to end: UTF-8, quotes closed, as many fields in each row as the header has.

    Blank lines are skipped. Row numbers in messages count the header as row 1.

    Raises:
        UserError: something is not so; names the first row.
    """
    width = len(read_header(path, name, delimiter))
    with path.open("rb") as file:
        records = _Records(file, name, delimiter)
        records.header()
        n_rows = 0
        for record in records:
            if not record:
                continue
            n_rows += 1
            if len(record) != width:
                raise UserError(
                    f"{name}:row {n_rows + 1}", f"{len(record)} fields, header has {width}",
                    "a value that holds the delimiter must stand in quotes",
                )  # fmt: skip
    if n_rows == 0:
        raise UserError(name, "no rows")
    return Checked(n_rows, file_sha256(path))


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Records:
    """The records of a CSV, each error with the row it is in."""

    def __init__(self, file: BinaryIO, name: str, delimiter: str) -> None:
        self.file, self.name = file, name
        self.row = 1
        self.reader = csv.reader(self._lines(), delimiter=delimiter, strict=True)

    def _lines(self) -> Iterator[str]:
        first = True
        for raw in self.file:
            line = raw.removeprefix(b"\xef\xbb\xbf") if first else raw
            first = False
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise UserError(
                    f"{self.name}:row {self.row}",
                    f"not UTF-8 text (byte 0x{byte:02x})",
                    "save the file as UTF-8",
                ) from None
            if "\0" in text:
                raise UserError(f"{self.name}:row {self.row}", "holds a NUL byte", "is it a text file?")
            yield text

    def header(self) -> tuple[str, ...]:
        for record in self:
            if record:
                return tuple(record)
        raise UserError(self.name, "no rows: the file is empty")

    def __iter__(self) -> Iterator[list[str]]:
        limit = csv.field_size_limit(FIELD_LIMIT)
        try:
            while True:
                try:
                    record = next(self.reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    raise UserError(f"{self.name}:row {self.row}", _reason(str(error))) from None
                yield record
                self.row += bool(record)
        finally:
            csv.field_size_limit(limit)


def _reason(error: str) -> str:
    if "end of data" in error:
        return "quote is never closed"
    if "field limit" in error:
        return f"a field is longer than {FIELD_LIMIT} characters; maybe a quote is never closed"
    if "expected after" in error:
        return "text follows a closing quote"
    return f"cannot be read as CSV ({error})"
