"""Text files in other encodings than UTF-8, read as if they were UTF-8."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from mtl.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Encoding = Literal[
    "utf-8", "utf-16", "latin-1", "iso8859-2", "iso8859-15", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254",
    "cp437", "cp850", "mac-roman", "koi8-r", "shift-jis", "cp932", "euc-jp", "euc-kr", "gb18030", "big5",
]  # fmt: skip
"""Encodings of text, by their Python names. UTF-16 needs its byte order mark, or is little-endian."""
BUFFER = 1 << 18
"""Bytes that are recoded at once."""


class Streams(Protocol):
    """A file that can be read any number of times from its beginning."""

    def stream(self) -> io.BufferedReader:
        """A new pass over the file's bytes."""


class Utf8:
    """A text file in any encoding as a file of UTF-8.

    Args:
        file: the file.
        encoding: its encoding.
        name: its name in messages.
    """

    def __init__(self, file: Streams, encoding: Encoding, name: str) -> None:
        self.file, self.encoding, self.name = file, encoding, name

    def stream(self) -> io.BufferedReader:
        """A new pass over the text as UTF-8."""
        return io.BufferedReader(_Recoded(self.file.stream(), self.encoding, self.name), BUFFER)


class _Recoded(io.RawIOBase):
    """One pass: bytes of the encoding go in, bytes of UTF-8 come out."""

    def __init__(self, file: BinaryIO, encoding: Encoding, name: str) -> None:
        self.file, self.encoding, self.name = file, encoding, name
        self.ahead = file.read(2)
        marked = self.ahead in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        codec = "utf-16-le" if encoding == "utf-16" and not marked else encoding
        self.decoder = codecs.getincrementaldecoder(codec)("strict")
        self.waiting, self.line = b"", 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        out = memoryview(buffer).cast("B")
        while not self.waiting:
            part = self.ahead + self.file.read(BUFFER)
            self.ahead = b""
            self.waiting = self._decoded(part).encode()
            if not part:
                break
        n = min(len(out), len(self.waiting))
        out[:n], self.waiting = self.waiting[:n], self.waiting[n:]
        return n

    def _decoded(self, part: bytes) -> str:
        try:
            text = self.decoder.decode(part, final=not part)
        except UnicodeDecodeError as error:
            line = self.line + error.object[: error.start].decode(self.encoding, "ignore").count("\n")
            what = f"not {self.encoding} text (byte 0x{error.object[error.start]:02x})"
            raise UserError(f"{self.name}:line {line}", what, "name its encoding in data.source") from None
        self.line += text.count("\n")
        return text
