"""Reads arrays from .npz files; it never unpickles an object and never unpacks onto the disk."""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from mtl.data.files.opening import OpenFile, opened
from mtl.data.memory import require_memory
from mtl.data.types import Array
from mtl.errors import KeyPath, UserError, did_you_mean, quoted

MAX_ARRAYS = 10_000
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The ways in which numpy packs an array."""
MAX_HEADER = 10_000
"""The size of a header that numpy reads, in bytes."""
MAX_DIRECTORY = 64 << 20
"""The size of an archive's directory, in bytes: room for 10,000 names of 6,000 characters."""
DEFLATE_RATIO = 1032
"""Most unpacked bytes per packed byte. Source: zlib's technical details, "maximum compression factor"."""
OBJECTS = "holds Python objects, which are never loaded"
SHOWN_ARRAYS = 20

Shape = tuple[int, ...]
Header = tuple[Shape, np.dtype[Any]]
"""Shape and type of an array."""
FAULTS = (ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error, OSError, RuntimeError)
"""The exceptions that numpy, zipfile and zlib raise on faulty data."""


class Archive:
    """An open .npz file; its directory and the header of each array are read once.

    Args:
        file: the file.

    Raises:
        UserError: the file is no .npz, or holds an array twice.
    """

    def __init__(self, file: OpenFile) -> None:
        self.name, stream = file.path.name, file.stream()
        start = stream.read(6)
        try:
            with stream.no_more_than(MAX_DIRECTORY):
                self.zip = zipfile.ZipFile(stream)
        except FAULTS as error:
            raise UserError(self.name, *_no_archive(stream, start, error), path=("path",)) from None
        self.members = _members(self.zip, self.name)
        self._headers: dict[str, Header] = {}

    @property
    def headers(self) -> dict[str, Header]:
        """Array name -> shape and dtype.

        Raises:
            UserError: the header of an array contradicts the archive.
        """
        return {name: self.header(name) for name in self.members}

    def header(self, name: str) -> Header:
        """The shape and dtype of one array."""
        if name not in self._headers:
            self._headers[name] = _header(self.zip, self.members[name], self.name, name)
        return self._headers[name]

    def arrays(
        self, wanted: Sequence[str], todo: str = "use a part of them, or a machine with more"
    ) -> Mapping[str, Array]:
        """The wanted arrays, in native byte order and C order; `todo` is advice where memory does not suffice.

        Raises:
            UserError: an array is missing, holds objects, or is damaged.
            EnvironmentFault: the arrays together do not fit into memory.
        """
        for name in wanted:
            require_array(self.name, name, self.members)
        for name in wanted:
            self.header(name)
        needed = sum(self.members[name].file_size for name in dict.fromkeys(wanted))
        require_memory(needed, self.name, "its arrays", todo)
        return {name: _read(self.zip, self.members[name], self.name, name) for name in wanted}


def archive(path: Path) -> Archive:
    """The .npz file at a path; callers within one command share it for as long as any of them holds it.

    Raises:
        UserError: the file is no .npz.
    """
    return archive_of(opened(path))


def archive_of(file: OpenFile) -> Archive:
    """The .npz file behind an opening; its directory is read once.

    Raises:
        UserError: the file is no .npz.
    """
    return file.once(Archive, lambda: Archive(file))


def require_array(file: str, name: str, there: Iterable[str], path: KeyPath = ()) -> None:
    """Refuse a name that no array of the file has.

    Raises:
        UserError: the file lacks the array.
    """
    there = list(there)
    if name not in there:
        near = did_you_mean(name, there)
        raise UserError(file, f"no array {quoted(name)}{near}; arrays: {listed(there)}", path=path)


def listed(there: Sequence[str]) -> str:
    """The names of arrays in printable form, at most the first 20."""
    shown = [name if name.isprintable() and len(name) <= 40 else quoted(name) for name in there]
    more = len(shown) - SHOWN_ARRAYS
    return (", ".join(shown[:SHOWN_ARRAYS]) + (f" and {more} more" if more > 0 else "")) or "none"


def _no_archive(file: IO[bytes], start: bytes, error: Exception) -> tuple[str, str]:
    """What a file is instead of an .npz, and advice to the user."""
    if not start:
        return "the file is empty", ""
    if start.startswith(b"\x80"):
        return OBJECTS, "save arrays of numbers or text by np.savez"
    if start == np.lib.format.MAGIC_PREFIX:
        file.seek(0)
        try:
            has_objects = parsed_header(file)[2].hasobject
        except FAULTS:
            has_objects = False
        todo = "save inputs and labels together by np.savez"
        return (OBJECTS, todo) if has_objects else ("is a single array (.npy), not an .npz file", todo)
    if start.startswith(b"PK"):
        return f"is truncated or damaged ({_short(error)})", ""
    return f"is not an .npz file (it starts with {quoted(start)})", ""


def _members(archive: zipfile.ZipFile, file: str) -> dict[str, zipfile.ZipInfo]:
    """The arrays in an archive by name; a name may look like a path, but nothing is written to it."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            continue
        if name in found:
            raise UserError(file, f"array {quoted(name)} is in the file twice", "write the file again")
        found[name] = info
    if len(found) > MAX_ARRAYS:
        raise UserError(file, f"holds {len(found)} arrays, at most {MAX_ARRAYS} are read")
    return found


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.compress_type not in PACKINGS:
        raise ValueError("packed in a way that numpy does not write")
    if info.flag_bits & 1:
        raise ValueError("encrypted")
    return archive.open(info)


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: str, name: str) -> Header:
    """Shape and dtype of one array; they must agree with the sizes in the archive."""
    what = f"array {quoted(name)}"
    try:
        with _member(archive, info) as stream:
            shape, _, dtype, at = parsed_header(stream)
    except FAULTS as error:
        raise UserError(file, f"{what} has no sound header ({_short(error)})") from None
    if dtype.hasobject:
        raise UserError(file, f"{what} {OBJECTS}", "save it as numbers or text")
    if dtype.names is not None:
        raise UserError(file, f"{what} is structured", "save each of its fields as an array")
    size, held = int(np.prod(shape, dtype=object)) * dtype.itemsize, info.file_size - at
    if min(shape, default=0) < 0 or dtype.itemsize == 0:
        raise UserError(file, f"{what} has no sound header (shape {shape} of {dtype})")
    if size != held:
        state = "is truncated" if held < size else "is damaged"
        raise UserError(file, f"{what} {state}: its header says {size} bytes, it holds {held}")
    if info.file_size > DEFLATE_RATIO * info.compress_size:
        packed = f"{info.compress_size} packed bytes"
        raise UserError(file, f"{what} is damaged: {packed} cannot hold {info.file_size} bytes")
    return shape, dtype


def parsed_header(file: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any], int]:
    """Shape, whether it is in Fortran order, and dtype from the header; and the position at which the values begin.

    Raises:
        ValueError: it is no header that numpy reads.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"unknown version {version[0]}.{version[1]}")
    old = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    length = file.read(2 if old else 4)
    size = int.from_bytes(length, "little")
    if size > MAX_HEADER:  # numpy would read all of it before it looks at the size
        raise ValueError(f"of {size} bytes, at most {MAX_HEADER} are read")
    text = io.BytesIO(length + file.read(size))
    with warnings.catch_warnings(
        action="ignore"
    ):  # numpy warns of headers that Python 2 wrote, but reads them
        try:
            shape, fortran, dtype = read(text)
        except (
            TokenError,
            MemoryError,
        ):  # an open quote, or brackets or signs nested too deep for Python's parser
            raise ValueError("it cannot be parsed") from None
    return tuple(shape), fortran, dtype, file.tell()


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: str, name: str) -> Array:
    try:
        with _member(archive, info) as stream, warnings.catch_warnings(action="ignore"):
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except FAULTS as error:
        raise UserError(file, f"array {quoted(name)} is damaged ({_short(error)})") from None
    native = array.dtype.newbyteorder("=")
    return np.asarray(array, dtype=native, order="C")


def _short(error: Exception) -> str:
    """The first line of a library's message: printable, of bounded length, and the same each time."""
    text = (str(error).splitlines() or [""])[0].partition(" object at 0x")[0][:80] or type(error).__name__
    return text if text.isprintable() else ascii(text)
