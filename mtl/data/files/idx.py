"""Reads IDX files, plain or gzipped, and trusts none of their contents; MNIST and its relatives have this format.

Layout: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
uint32, then the values. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database".
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.errors import UserError, quoted

UNSIGNED_BYTE = 8
GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20
LIMIT = 1 << 30
"""Most bytes of one unpacked file, whatever its header says."""
MAX_DIMENSIONS = 32
"""Most dimensions of an array; every version of numpy can hold these."""

_AGAIN = "get the file again"


def read(stream: IO[bytes], name: str, limit: int = LIMIT) -> bytearray:
    """The unpacked bytes of an IDX file, exactly as many as its header announces.

    Memory holds at most the announced size (never more than `limit`) and one chunk, however much the stream
    would unpack to.

    Args:
        stream: the file, opened for reading bytes; the first two bytes show whether it is gzipped.
        name: the file's name in errors.
        limit: the most bytes accepted.

    Raises:
        UserError: the stream is not one whole gzip member, or not one whole IDX file.
    """
    start = stream.read(CHUNK)
    if not start:
        raise UserError(name, "the file is empty", _AGAIN)
    if start.startswith(GZIP_MAGIC):
        pieces = _gunzip(stream, start, name)
    elif start.startswith(b"\0\0"):
        pieces = _plain(stream, start)
    else:
        raise UserError(name, f"is neither gzip nor IDX: it starts with {quoted(start[:9])}", _AGAIN)
    data = bytearray()
    size = None
    for piece in pieces:
        data += piece
        size = _announced_size(data, name, limit) if size is None else size
        if size is not None and len(data) > size:
            raise UserError(name, f"unpacks to more than the {size:,} bytes that its IDX header announces")
    if size is None:
        raise UserError(name, f"holds {counted(len(data), 'byte')}, which is less than an IDX header", _AGAIN)
    if len(data) < size:
        raise UserError(
            name, f"holds {counted(len(data), 'byte')}, its IDX header announces {size:,}", _AGAIN
        )
    return data


def parse(data: bytearray) -> npt.NDArray[np.uint8]:
    """The values in the bytes that `read` gave, in the shape of the header; they share memory with `data`."""
    shape = _dimensions(data)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def write(values: npt.NDArray[np.uint8]) -> bytes:
    """The bytes of a plain IDX file that holds `values`."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, UNSIGNED_BYTE, values.ndim)) + sizes + values.tobytes()


def _dimensions(data: bytearray) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, 4 + 4 * data[3], 4))


def _announced_size(data: bytearray, name: str, limit: int) -> int | None:
    """Bytes of the whole file according to its header, or None while the header is incomplete.

    The limit counts a dimension of 0 as 1, because numpy cannot hold an empty array either if its other
    dimensions are too large.
    """
    if len(data) < 4:
        return None
    if data[:3] != bytes((0, 0, UNSIGNED_BYTE)) or data[3] == 0:
        raise UserError(
            name,
            f"is not an IDX file of bytes: its magic number is 0x{data[:4].hex()}, expected 0x000008 and the "
            "number of dimensions",
        )
    if data[3] > MAX_DIMENSIONS:
        raise UserError(
            name, f"its IDX header announces {data[3]} dimensions; at most {MAX_DIMENSIONS} are read"
        )
    header = 4 + 4 * data[3]
    if len(data) < header:
        return None
    shape = _dimensions(data)
    largest = header + math.prod(size or 1 for size in shape)
    if largest > limit:
        raise UserError(name, f"its IDX header announces {largest:,} bytes, more than the {limit:,} allowed")
    return header + math.prod(shape)


def _plain(stream: IO[bytes], start: bytes) -> Iterator[bytes]:
    while start:
        yield start
        start = stream.read(CHUNK)


def _gunzip(stream: IO[bytes], packed: bytes, name: str) -> Iterator[bytes]:
    """Unpack a single gzip member in pieces of at most `CHUNK` bytes; the CRC is checked at the end."""
    member = zlib.decompressobj(wbits=31)
    n_packed, n_unpacked = len(packed), 0
    while not member.eof:
        try:
            piece = member.decompress(packed, CHUNK)
        except zlib.error as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise UserError(
                name, f"the gzip data are damaged after {n_unpacked:,} unpacked bytes ({reason})", _AGAIN
            ) from error
        n_unpacked += len(piece)
        yield piece
        packed = member.unconsumed_tail
        if not packed and not member.eof and len(piece) < CHUNK:
            packed = stream.read(CHUNK)
            n_packed += len(packed)
            if not packed:
                raise UserError(name, f"the gzip data end too early, after {n_packed:,} bytes", _AGAIN)
    rest = member.unused_data or stream.read(CHUNK)
    if rest.startswith(GZIP_MAGIC):
        raise UserError(name, "holds more than one gzip member", "keep the first one only")
    if rest:
        raise UserError(name, f"{quoted(rest[:9])} follows the end of the gzip data", _AGAIN)
