"""Arrays from .npz files; nothing is ever unpickled, and nothing unpacked onto the disk."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from mtl.data.files.opening import open_file
from mtl.data.memory import require_memory
from mtl.data.types import Array
from mtl.errors import KeyPath, UserError, did_you_mean, quoted

MAX_ARRAYS = 10_000
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The ways in which numpy packs an array."""
DEFLATE_RATIO = 1032
"""Bytes that one packed byte can give at most. Source: zlib's technical details, "maximum compression factor"."""
OBJECTS = "holds Python objects, which are never loaded"
SHOWN_ARRAYS = 20

Shape = tuple[int, ...]
_FAULTS = (ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error, OSError, RuntimeError)
"""What numpy, zipfile and zlib raise on data that are not what they should be."""


def names(path: Path) -> dict[str, tuple[Shape, np.dtype[Any]]]:
    """Array name -> shape and dtype, from the headers alone.

    Raises:
        UserError: the file is no .npz, or an array cannot be what its header says.
    """
    with _opened(path) as archive:
        return {name: _header(archive, info, path, name) for name, info in _members(archive, path).items()}


def arrays(path: Path, wanted: Sequence[str]) -> Mapping[str, Array]:
    """Some arrays of an .npz file, in native byte order and C order.

    Raises:
        UserError: an array is missing, holds objects, or is damaged.
        EnvironmentFault: together they do not fit into memory.
    """
    with _opened(path) as archive:
        infos = _members(archive, path)
        for name in wanted:
            require_array(path.name, name, infos)
        for name in wanted:
            _header(archive, infos[name], path, name)
        needed = sum(infos[name].file_size for name in dict.fromkeys(wanted))
        require_memory(needed, path.name, "its arrays", "use a part of them, or a machine with more")
        return {name: _read(archive, infos[name], path, name) for name in wanted}


def require_array(file: str, name: str, there: Iterable[str], path: KeyPath = ()) -> None:
    """Raises:
    UserError: the file has no array of this name.
    """
    there = list(there)
    if name not in there:
        near = did_you_mean(name, there)
        raise UserError(file, f"no array {quoted(name)}{near}; arrays: {listed(there)}", path=path)


def listed(there: Sequence[str]) -> str:
    """Names of arrays as they may be printed, the first 20 of them."""
    shown = [name if name.isprintable() and len(name) <= 40 else quoted(name) for name in there]
    more = len(shown) - SHOWN_ARRAYS
    return (", ".join(shown[:SHOWN_ARRAYS]) + (f" and {more} more" if more > 0 else "")) or "none"


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with open_file(path) as file:
        start = file.read(6)
        try:
            archive = zipfile.ZipFile(file)
        except _FAULTS as error:
            raise UserError(path.name, *_no_archive(file, start, error), path=("path",)) from None
        with archive:
            yield archive


def _no_archive(file: IO[bytes], start: bytes, error: Exception) -> tuple[str, str]:
    """What a file is that is no .npz, and what to do about it."""
    if not start:
        return "the file is empty", ""
    if start.startswith(b"\x80"):
        return OBJECTS, "save arrays of numbers or text by np.savez"
    if start == np.lib.format.MAGIC_PREFIX:
        file.seek(0)
        try:
            has_objects = _parsed(file)[1].hasobject
        except _FAULTS:
            has_objects = False
        todo = "save inputs and labels together by np.savez"
        return (OBJECTS, todo) if has_objects else ("is a single array (.npy), not an .npz file", todo)
    if start.startswith(b"PK"):
        return f"is truncated or damaged ({_short(error)})", ""
    return f"is not an .npz file (it starts with {quoted(start)})", ""


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The arrays in an archive by name; a name is not a path, as nothing is unpacked."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            continue
        if name in found:
            raise UserError(path.name, f"array {quoted(name)} is in the file twice", "write the file again")
        found[name] = info
    if len(found) > MAX_ARRAYS:
        raise UserError(path.name, f"holds {len(found)} arrays, at most {MAX_ARRAYS} are read")
    return found


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.compress_type not in PACKINGS:
        raise ValueError("packed in a way that numpy does not write")
    if info.flag_bits & 1:
        raise ValueError("encrypted")
    return archive.open(info)


def _header(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str
) -> tuple[Shape, np.dtype[Any]]:
    """Shape and dtype of one array, checked against the sizes that the archive states."""
    what = f"array {quoted(name)}"
    try:
        with _member(archive, info) as file:
            shape, dtype, at = _parsed(file)
    except _FAULTS as error:
        raise UserError(path.name, f"{what} has no sound header ({_short(error)})") from None
    if dtype.hasobject:
        raise UserError(path.name, f"{what} {OBJECTS}", "save it as numbers or text")
    if dtype.names is not None:
        raise UserError(path.name, f"{what} is structured", "save each of its fields as an array")
    size, held = int(np.prod(shape, dtype=object)) * dtype.itemsize, info.file_size - at
    if min(shape, default=0) < 0 or dtype.itemsize == 0:
        raise UserError(path.name, f"{what} has no sound header (shape {shape} of {dtype})")
    if size != held:
        state = "is truncated" if held < size else "is damaged"
        raise UserError(path.name, f"{what} {state}: its header says {size} bytes, it holds {held}")
    if info.file_size > DEFLATE_RATIO * info.compress_size:
        packed = f"{info.compress_size} packed bytes"
        raise UserError(path.name, f"{what} is damaged: {packed} cannot hold {info.file_size} bytes")
    return shape, dtype


def _parsed(file: IO[bytes]) -> tuple[Shape, np.dtype[Any], int]:
    """Shape and dtype by the header, and where the values begin."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"unknown version {version[0]}.{version[1]}")
    old = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings(
        action="ignore"
    ):  # numpy warns of headers that Python 2 wrote, and reads them
        try:
            shape, _, dtype = read(file)
        except (
            TokenError,
            MemoryError,
        ):  # an open quote; brackets or signs nested too deep for Python's parser
            raise ValueError("it cannot be parsed") from None
    return tuple(shape), dtype, file.tell()


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str) -> Array:
    try:
        with _member(archive, info) as file, warnings.catch_warnings(action="ignore"):
            array = np.lib.format.read_array(file, allow_pickle=False)
    except _FAULTS as error:
        raise UserError(path.name, f"array {quoted(name)} is damaged ({_short(error)})") from None
    native = array.dtype.newbyteorder("=")
    return np.asarray(array, dtype=native, order="C")


def _short(error: Exception) -> str:
    """The first line of a library's message: printable, of bounded length, and the same each time."""
    text = (str(error).splitlines() or [""])[0].partition(" object at 0x")[0][:80] or type(error).__name__
    return text if text.isprintable() else ascii(text)
