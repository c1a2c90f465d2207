"""Reads arrays of an .npz file a few rows at a time, so that memory does not grow with the rows."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

import numpy as np

from mtl.console import counted
from mtl.data import room
from mtl.data.files.npz import Archive, parsed_header
from mtl.data.types import Array
from mtl.errors import UserError, did_you_mean, quoted


def stream(archive: Archive, wanted: Sequence[str], rows: int) -> Iterator[dict[str, Array]]:
    """The wanted arrays, all equally long, `rows` rows at a time and in native byte order.

    An array in Fortran order is read as a whole.

    Raises:
        UserError: an array is missing, damaged, or of another length than the first.
    """
    known = archive.headers
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, known)
            raise UserError(archive.name, f"no array {quoted(name)}{near}; arrays: {', '.join(known)}")
    lengths = {name: known[name][0][0] if known[name][0] else 0 for name in wanted}
    n_rows = lengths[wanted[0]]
    for name, length in lengths.items():
        if length != n_rows:
            what = f"array {quoted(name)} has {counted(length, 'row')}, {quoted(wanted[0])} has {n_rows}"
            raise UserError(archive.name, what)
    with ExitStack() as open_files:
        readers = {
            name: _Rows(archive, name, open_files.enter_context(archive.zip.open(archive.members[name])))
            for name in wanted
        }
        for start in range(0, n_rows, rows):
            yield {name: reader.next(min(rows, n_rows - start)) for name, reader in readers.items()}


ROWS = 4096
"""Rows that are read at once."""


def arrays(archive: Archive, wanted: Sequence[str]) -> Mapping[str, Array]:
    """The wanted arrays, as `Archive.arrays`; where arrays of all rows lie in files, they are never whole in memory.

    Raises:
        UserError: an array is missing, holds objects, or is damaged.
        EnvironmentFault: the arrays together have no room.
    """
    known = [name for name in dict.fromkeys(wanted) if name in archive.members]
    if not room.is_in_files() or len(known) < len(set(wanted)):
        return archive.arrays(wanted, "set data.in_memory: false, or use a part of them")
    room.require(sum(archive.members[name].file_size for name in known), archive.name, "its arrays", "")
    found: dict[str, Array] = {}
    for name in known:
        shape, dtype = archive.header(name)
        if not shape:
            return archive.arrays(wanted)
        found[name], at = room.zeros(shape, dtype.newbyteorder("=")), 0
        for part in stream(archive, [name], ROWS):
            found[name][at : at + len(part[name])] = part[name]
            at += len(part[name])
    return found


class _Rows:
    """Reads the rows of one array from first to last; `names` has checked its header."""

    def __init__(self, archive: Archive, name: str, file: IO[bytes]) -> None:
        self.place, self.name, self.file = archive.name, name, file
        shape, fortran, self.dtype, _ = parsed_header(file)
        self.tail = tuple(shape[1:])
        self.whole: Array | None = archive.arrays([name])[name] if fortran and len(shape) > 1 else None
        self.at = 0

    def next(self, n: int) -> Array:
        """The next n rows."""
        start, self.at = self.at, self.at + n
        if self.whole is not None:
            return self.whole[start : self.at]
        size = int(np.prod((n, *self.tail), dtype=object)) * self.dtype.itemsize
        try:
            held = self.file.read(size)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(self.place, f"array {quoted(self.name)} is damaged ({error})") from None
        if len(held) < size:
            raise UserError(self.place, f"array {quoted(self.name)} ends at row {start}")
        rows: np.ndarray[Any, Any] = np.frombuffer(held, self.dtype).reshape((n, *self.tail))
        return rows.astype(self.dtype.newbyteorder("="), copy=False)
