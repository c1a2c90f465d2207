"""Arrays in files that are named by the sha256 of their bytes, so that stores with the same array share its file."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl.console import file_size
from mtl.data.types import Array, Rows
from mtl.errors import EnvironmentFault

PART = ".part"
"""The ending of a file that is being written."""
PIECE = 1 << 22
"""Bytes that are hashed and written at once."""
GAP = 1 << 14
"""Bytes between two rows that are read too, since that takes less time than a second read does."""
SPAN = 1 << 20
"""Bytes of a file that are read at once; a larger row is read alone."""
State = tuple[int, int, int, int]


class DamagedError(Exception):
    """A file of the store is not what was written."""


@dataclass(frozen=True)
class Entry:
    """One array of a store.

    Args:
        sha256: of its bytes in C order; the name of its file.
        dtype: as numpy writes it.
        shape: its shape.
        state: number, size and times of the file when its content was last known; they change if it is written to.
    """

    sha256: str
    dtype: str
    shape: tuple[int, ...]
    state: State

    @property
    def n_bytes(self) -> int:
        """The size of its file."""
        return int(np.prod(self.shape, dtype=object)) * np.dtype(self.dtype).itemsize


class RowFile:
    """Reads rows of an array by their numbers, without mapping its file.

    A map would be shorter, but Linux maps up to 2 MB for one byte that is read: a batch of 1024 rows made a file of
    800 MB take 545 MB of the process's memory.

    Args:
        path: the file.
        shape: the shape of the array.
        dtype: its type.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self.row_bytes = int(np.prod(shape[1:], dtype=object)) * self.dtype.itemsize
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, rows: Rows, cancelled: threading.Event | None = None) -> npt.NDArray[Any]:
        """(B, ...) the rows with these ascending numbers; those that lie near each other are read in one piece.

        Raises:
            EnvironmentFault: the file cannot be read, or is shorter than it was.
            CancelledError: the event was set meanwhile.
        """
        size = self.row_bytes
        found = np.empty((len(rows), size), np.uint8)
        apart = ((np.diff(rows) - 1) * size > GAP) | (np.diff(rows * size // SPAN) != 0)
        cuts = [0, *(np.flatnonzero(apart) + 1).tolist(), len(rows)] if len(rows) else []
        for start, stop in pairwise(cuts):
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            first, last = int(rows[start]), int(rows[stop - 1])
            if last - first == stop - start - 1:
                self._fill(found[start:stop], first, last)
                continue
            piece = np.empty((last - first + 1, size), np.uint8)
            self._fill(piece, first, last)
            np.take(piece, rows[start:stop] - first, axis=0, out=found[start:stop], mode="clip")
        return found.view(self.dtype).reshape(len(rows), *self.shape[1:])

    def _fill(self, piece: npt.NDArray[np.uint8], first: int, last: int) -> None:
        """Read the rows from `first` to `last` into an array."""
        left, at = piece.reshape(-1), first * self.row_bytes
        while len(left):  # some file systems give less than they are asked for
            try:
                read = os.pread(self._descriptor, len(left), at)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise EnvironmentFault(str(self.path), f"cannot be read: {why}") from error
            if not read:
                what = f"ends before row {last:,}, which it had when the run began"
                raise EnvironmentFault(str(self.path), what, "the last checkpoint stands: resume the run")
            left[: len(read)] = np.frombuffer(read, np.uint8)
            left, at = left[len(read) :], at + len(read)


def digest(values: Array) -> str:
    """sha256 of the bytes of an array in C order, in hex."""
    found = hashlib.sha256()
    for piece in _pieces(values):
        found.update(piece)
    return found.hexdigest()


def write(values: Array, sha256: str, folder: Path, beside: Path) -> Entry:
    """Write an array, unless the folder has it; its file gets its name only when it is whole and on the disk.

    Args:
        values: the array.
        sha256: its digest.
        folder: where arrays lie.
        beside: where its file grows, on the same disk.

    Raises:
        OSError: the disk refused.
    """
    path = folder / sha256
    if not path.is_file() or _digest_of_file(path) != sha256:
        write_file(path, beside, _pieces(values))
    return Entry(sha256, values.dtype.str, values.shape, _state(path))


def write_file(path: Path, beside: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a read-only file in one step: `path` leads to all of these bytes, or to what it led to before.

    Args:
        path: the file.
        beside: the folder where it grows, on the same disk.
        pieces: its bytes.

    Raises:
        OSError: the disk refused.
    """
    part = beside / (path.name + PART)
    with part.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(0o444)
    os.replace(part, path)
    _sync(path.parent)


def verified(entry: Entry, folder: Path) -> Entry:
    """The entry, with the state of its file as it is now.

    The size is compared each time. The content is read if the file was written to, copied or moved since it was known.

    Raises:
        DamagedError: the file is gone, or holds other bytes.
    """
    path = folder / entry.sha256
    try:
        state = _state(path)
        if state[1] != entry.n_bytes:
            what = f"{path} has {file_size(state[1])}, not {file_size(entry.n_bytes)}"
            raise DamagedError(what)
        if state == entry.state:
            return entry
        if _digest_of_file(path) != entry.sha256:
            raise DamagedError(f"{path} holds other bytes than were written")
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    return replace(entry, state=state)


def mapped(entry: Entry, folder: Path) -> npt.NDArray[Any]:
    """The array, read-only and mapped."""
    if entry.n_bytes == 0:
        return np.empty(entry.shape, entry.dtype)
    with (folder / entry.sha256).open("rb") as file:
        bytes_of = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(entry.shape, entry.dtype, buffer=bytes_of)


def _pieces(values: Array) -> Iterator[memoryview]:
    """The bytes of an array, some rows at a time."""
    rows = np.atleast_1d(values)
    step = max(1, PIECE // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(rows[start : start + step]).data


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> State:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
