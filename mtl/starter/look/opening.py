"""Finds the encoding and the delimiter of a CSV."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mtl.data.files.formats.csv_structure import DELIMITERS, read_header
from mtl.data.files.formats.encoding import Encoding, Streams, Utf8
from mtl.data.files.formats.form import ColumnForm
from mtl.data.files.opening import OpenFile, opened
from mtl.data.files.remote.address import is_address
from mtl.data.files.table import TEXT_SUFFIXES, TableFile
from mtl.errors import UserError, quoted

BUFFER = 1 << 20
UNUSED = b"\x81\x8d\x8f\x90\x9d"
"""Bytes that stand for no character in cp1252."""


@dataclass(frozen=True)
class Opening:
    """How a table is opened.

    Args:
        path: the file, or the folder or pattern of a data set.
        delimiter: the delimiter of a CSV, if it differs from the one that the suffix means; else None.
        encoding: the encoding of a CSV.
        note: why this encoding was chosen, if it was guessed.
        address: where the file was fetched from; empty for a file of this machine.
    """

    path: Path
    delimiter: str | None = None
    encoding: Encoding = "utf-8"
    note: str = ""
    address: str = ""

    def table(self, columns: Mapping[str, ColumnForm] | None = None) -> TableFile:
        """The table, whose columns are read in these forms."""
        return TableFile(self.path, delimiter=self.delimiter, encoding=self.encoding, columns=columns)


def opening_of(path: Path, written: str = "") -> Opening:
    """How to open the file; its bytes are read to their end if they are not UTF-8.

    Args:
        path: the file, as `local` gives it.
        written: what the user wrote; it is kept if it is an address.
    """
    address = written if is_address(written) else ""
    if path.suffix.lower() not in TEXT_SUFFIXES or not path.is_file():
        return Opening(path, address=address)
    file = opened(path)
    encoding, note = _encoding(file)
    text: Streams = file if encoding == "utf-8" else Utf8(file, encoding, path.name)
    return Opening(path, _delimiter(text, path), encoding, note, address)


def _encoding(file: OpenFile) -> tuple[Encoding, str]:
    """The encoding: that of the byte order mark, else UTF-8 if all bytes are, else cp1252 or latin-1."""
    start = file.stream().read(4096)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", ""
    if start[1::2].count(0) > len(start) / 4 and not start[::2].count(0):
        return "utf-16", "each second byte is 0, so that the file is read as UTF-16"
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for part in _parts(file):
            decoder.decode(part)
        decoder.decode(b"", final=True)
        return "utf-8", ""
    except UnicodeDecodeError:
        pass
    high = b"".join(part.translate(None, bytes(range(128))) for part in _parts(file))
    encoding: Encoding = "latin-1" if any(byte in high for byte in UNUSED) else "cp1252"
    return encoding, f"the file is not UTF-8 and is read as {encoding}{_example(file, encoding)}"


def _example(file: OpenFile, encoding: Encoding) -> str:
    """A word with a letter that is not ASCII, by which people see whether the encoding is right."""
    for part in _parts(file):
        for word in part.replace(b",", b" ").replace(b";", b" ").split():
            if not word.isascii():
                return f"; if {quoted(word.decode(encoding)[:20])} looks wrong, write another encoding"
    return ""


def _parts(file: OpenFile) -> Iterator[bytes]:
    stream = file.stream()
    while part := stream.read(BUFFER):
        yield part


def _delimiter(text: Streams, path: Path) -> str | None:
    """The delimiter of a CSV's header, if it differs from the one that the suffix means; else None."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        read_header(text, path.name, usual)
    except UserError:
        header = text.stream().readline(1 << 20)
        found = [d for d in DELIMITERS if d != usual and d.encode() in header]
        return found[0] if found and usual.encode() not in header else None
    return None
