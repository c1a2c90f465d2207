"""One pass over a CSV finds faults that a parser would accept."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain

from mtl.console import counted
from mtl.data.files.formats.csv_block import plain_block
from mtl.data.files.formats.encoding import Streams
from mtl.errors import UserError, quoted

FIELD_LIMIT = 131_072
"""Most characters of one field; Python's csv module has the same limit."""
LINE_LIMIT = 16 << 20
"""Most bytes of one line; a file without a line end is therefore not read as a whole."""
PART = 1 << 16
"""Bytes of records that are looked at together; twice as many leave the cache, and each takes 1.6 times as long."""
DELIMITERS = ",;\t|"
BEGINNINGS = {
    b"PAR1": "it is a Parquet file: name it .parquet",
    b"\x1f\x8b": "it is gzipped: unpack it",
    b"PK\x03\x04": "it is a zip archive or a spreadsheet: save it as CSV",
    b"\xff\xfe": "it is UTF-16: write encoding: utf-16 in data.source",
    b"\xfe\xff": "it is UTF-16: write encoding: utf-16 in data.source",
}
"""First bytes of a file that is no text -> what the file is."""
OTHER_ENCODING = "name its encoding in data.source, such as encoding: cp1252, or save it as UTF-8"
FAULTS = {
    "end of data": ("quote is never closed", ""),
    "field limit": (f"a field is longer than {FIELD_LIMIT} characters", "maybe a quote is never closed"),
    "expected after": ("text follows a closing quote", "write a quote inside a quoted value twice"),
    "new-line character": ("a line ends in CR alone", "save the file with LF or CRLF at the end of lines"),
}
"""Part of a message of the csv module -> the fault and the advice."""


@dataclass(frozen=True)
class Checked:
    """A CSV without faults: its rows (without the header and blank lines), and the bytes of its longest row."""

    n_rows: int
    longest: int


def read_header(file: Streams, name: str, delimiter: str) -> tuple[str, ...]:
    """The names in the first row, without the nameless index that pandas writes before them.

    Raises:
        UserError: the file is empty or not UTF-8, or a name is missing or appears twice.
    """
    names = _Records(file.stream(), name, delimiter).header()
    return names if names[0] else names[1:]


def refuse_twice(names: Sequence[str], file: str) -> None:
    """Refuse a column name that appears twice.

    Raises:
        UserError: one does.
    """
    if len(set(names)) < len(names):
        counts = Counter(names)
        twice = next(name for name in names if counts[name] > 1)
        raise UserError(file, f"column {quoted(twice)} appears twice", "rename one of them")


def first_row(file: Streams, name: str, delimiter: str) -> list[str] | None:
    """The texts of the first row below the header, or None if there is none; later rows are not read.

    The text of an index without a name comes first.

    Raises:
        UserError: the file has a fault in or before this row.
    """
    return next(_Records(file.stream(), name, delimiter).rows(), None)


def check_csv(file: Streams, name: str, delimiter: str) -> Checked:
    """Read a CSV from end to end: it must be UTF-8, close every quote, and have a field in each row for each column.

    Blank lines are skipped. Row numbers in messages count the header as row 1.

    Raises:
        UserError: the file has a fault; the message names the first faulty row.
    """
    records = _Records(file.stream(), name, delimiter)
    for record in records.rows():
        records.skip(len(record))
    if records.row < 2:
        raise UserError(name, "no rows")
    return Checked(records.row - 1, records.longest)


class _Records:
    """The records of a CSV, without blank lines; its errors name the row.

    Args:
        file: the file, opened at its beginning.
        name: the file's name in messages.
    """

    def __init__(self, file: BufferedReader, name: str, delimiter: str) -> None:
        self.file, self.name, self.delimiter = file, name, delimiter
        self.row = 0
        """Records so far."""
        self.longest = self.held = 0
        """Bytes of the longest record, and of the one that is being read."""
        self.at = self.parsed_to = 0
        """Bytes so far, and the bytes up to which records are parsed one by one."""
        self.ahead: list[str] | None = None
        """The first record below the header, if it was read to understand the header."""
        self.reader = csv.reader(self._lines(), delimiter=delimiter, strict=True)

    def _lines(self) -> Iterator[str]:
        line = self.file.readline(LINE_LIMIT + 1).removeprefix(b"\xef\xbb\xbf")
        while line:
            if len(line) > LINE_LIMIT:
                raise self._fault(f"the line is longer than {LINE_LIMIT} bytes")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                what = f"not UTF-8 text (byte 0x{line[error.start]:02x})"
                raise self._fault(what, self._instead(line, OTHER_ENCODING)) from None
            if "\0" in text:
                raise self._fault("holds a NUL byte", self._instead(line, "is it a text file?"))
            self.held += len(line)
            self.at += len(line)
            yield text
            line = self.file.readline(LINE_LIMIT + 1)

    def _fault(self, what: str, todo: str = "") -> UserError:
        return UserError(f"{self.name}:row {self.row + 1}", what, todo)

    def _instead(self, line: bytes, otherwise: str) -> str:
        if self.row:
            return otherwise
        return next((todo for start, todo in BEGINNINGS.items() if line.startswith(start)), otherwise)

    def header(self) -> tuple[str, ...]:
        """The names in the first record; that of an index is empty."""
        header = next(iter(self), None)
        if header is None:
            raise UserError(self.name, "no rows: the file is empty")
        if len(header) == 1 and self.delimiter not in header[0]:
            other = next((d for d in DELIMITERS if d != self.delimiter and d in header[0]), None)
            if other is not None:
                raise UserError(
                    self.name,
                    f"one column {quoted(header[0])} found; the file seems to use {other!r}",
                    f"write delimiter: {other!r} in data.source",
                )
        unnamed = next((i for i, column in enumerate(header, start=1) if not column.strip()), None)
        if unnamed is not None and not (unnamed == 1 and self._is_index(header)):
            raise UserError(
                self.name, f"column {unnamed} has no name", "give every column of the first row a name"
            )
        refuse_twice(header, self.name)
        return tuple(header)

    def _is_index(self, header: Sequence[str]) -> bool:
        """Whether the first column alone has no name and begins with a whole number: the index that pandas writes."""
        self.ahead = ahead = next(iter(self), None)
        return ahead is not None and ahead[0].isdecimal() and not header[0] and all(header[1:])

    def rows(self) -> Iterator[list[str]]:
        """The records below the header; each must be as wide as the header."""
        width = len(self.header())
        for record in chain([self.ahead] if self.ahead is not None else [], self):
            if len(record) != width:
                raise UserError(
                    f"{self.name}:row {self.row}", f"{counted(len(record), 'field')}, header has {width}",
                    "a value that holds the delimiter must stand in quotes",
                )  # fmt: skip
            yield record

    def skip(self, width: int) -> None:
        """Pass over the next records without parsing them, as far as their structure shows; each has `width` fields."""
        if self.at < self.parsed_to:
            return
        part = self.file.peek()[:PART]
        block = plain_block(part, self.delimiter, width)
        if block is None:
            self.parsed_to = self.at + len(part)
            return
        self.at += len(self.file.read(block.n_bytes))
        self.row += block.n_records
        self.longest = max(self.longest, block.longest)

    def __iter__(self) -> Iterator[list[str]]:
        limit = csv.field_size_limit(FIELD_LIMIT)
        try:
            while True:
                try:
                    record = next(self.reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    known = next((fault for part, fault in FAULTS.items() if part in str(error)), None)
                    raise self._fault(*known or (f"cannot be read as CSV ({error})",)) from None
                self.longest, self.held = max(self.longest, self.held), 0
                if record:
                    self.row += 1
                    yield record
        finally:
            csv.field_size_limit(limit)
