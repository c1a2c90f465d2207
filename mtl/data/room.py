"""Gives the arrays of all rows their room: memory, or files, where the rows are larger than memory."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from mtl.console import file_size
from mtl.data.files.download import cannot_write
from mtl.data.memory import require_memory
from mtl.errors import EnvironmentFault

Held = TypeVar("Held", bound=np.generic)

PERIOD = 0.05
"""Seconds between two sweeps. A pass over an array touches 1 to 2 GB a second, so that about 100 MB stay mapped."""
PIECE = 1 << 20
"""Bytes that are written at once where the system cannot reserve room on a disk."""
COPIES = 2
"""An array lies on the disk once while it is encoded, and once in the store."""


class _Files:
    """Arrays in files without a name in one folder; a file is gone when its array is, or when the process ends.

    Pages of a mapped file count as memory of the process while they are mapped. `sweep` unmaps them: their content
    stays in the file, and the next look at them maps them again.

    Args:
        folder: where the files lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._maps: WeakSet[mmap.mmap] = WeakSet()
        self._making = Lock()

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array of zeros in a new file.

        Raises:
            EnvironmentFault: the disk has no room for it.
        """
        size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                _reserve(file.fileno(), size)
                mapped = mmap.mmap(file.fileno(), max(size, 1))
        except OSError as error:
            cannot_write(self.folder, error)
        with self._making:
            self._maps.add(mapped)
        return np.ndarray(shape, dtype, buffer=mapped)

    def sweep(self) -> None:
        """Unmap the pages of all arrays."""
        with self._making:
            maps = list(self._maps)
        for mapped in maps:
            mapped.madvise(mmap.MADV_DONTNEED)


def _reserve(descriptor: int, size: int) -> None:
    """Reserve room for a file; a disk that is full later would end the process by a signal."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, max(size, 1))
        return
    for at in range(0, max(size, 1), PIECE):  # macOS
        os.pwrite(descriptor, bytes(min(PIECE, max(size, 1) - at)), at)


_FILES: ContextVar[_Files | None] = ContextVar("the files in which arrays of all rows lie", default=None)


@contextmanager
def in_files(folder: Path) -> Iterator[None]:
    """While this context lasts, `zeros` and `kept` give arrays in files of this folder instead of memory."""
    files, ended = _Files(folder), Event()

    def sweep() -> None:
        while not ended.wait(PERIOD):
            files.sweep()

    before = _FILES.set(files)
    sweeper = Thread(target=sweep, daemon=True)
    sweeper.start()
    try:
        yield
    finally:
        _FILES.reset(before)
        ended.set()
        sweeper.join()


def is_in_files() -> bool:
    """Whether arrays of all rows lie in files."""
    return _FILES.get() is not None


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A new array of zeros for all rows."""
    files = _FILES.get()
    return np.zeros(shape, dtype) if files is None else files.zeros(shape, dtype)


def kept(values: npt.NDArray[Held]) -> npt.NDArray[Held]:
    """Values of all rows that are kept: the array itself, or its copy in a file."""
    files = _FILES.get()
    if files is None or _is_mapped(values):
        return values
    found = files.zeros(values.shape, values.dtype)
    found[...] = values
    return found


def _is_mapped(values: npt.NDArray[np.generic]) -> bool:
    base: object = values
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def require(needed: int, place: str, what: str, todo: str, free: int | None = None) -> None:
    """Refuse arrays that have no room.

    Args:
        needed: their bytes.
        place: the place in the message, such as a file.
        what: the arrays, as a plural subject of a sentence.
        todo: advice to the user where memory does not suffice.
        free: free bytes of memory; by default those that the system reports.

    Raises:
        EnvironmentFault: memory, or the disk if arrays lie in files, does not suffice.
    """
    files = _FILES.get()
    if files is None:
        return require_memory(needed, place, what, todo, free)
    require_disk(files.folder, COPIES * needed, f"{place}: {what}" if place else what)


def require_disk(folder: Path, needed: int, what: str) -> None:
    """Refuse files that have no room on the disk of a folder.

    Raises:
        EnvironmentFault: more bytes are needed than are free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise EnvironmentFault(
            str(folder),
            f"{what} take {file_size(needed)} on disk, {file_size(free)} are free",
            "make room, or set MTL_CACHE to a folder on another disk",
        )
