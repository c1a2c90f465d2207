"""Fetches tables of an object store into the cache, once per version, so that they are read as files on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from mtl.console import counted, file_size
from mtl.data.files.download import cache_folder, cannot_write, locked, progress
from mtl.data.files.opening import once_in_command
from mtl.data.files.remote.address import is_address
from mtl.data.files.remote.listing import Listing, RemoteFile, explained, file_system, listing_of
from mtl.errors import EnvironmentFault
from mtl.signals import undoing

CHUNK = 1 << 23
"""Bytes that are asked for at once; a broken connection costs no more than these."""
THREADS = 8
"""Files of a data set that are fetched at once."""


def local(path: str | os.PathLike[str]) -> Path:
    """The path on disk of what a path or an address leads to: a file, a folder, or a pattern.

    What an address leads to is looked up once per command, and fetched into the cache unless this version of it is
    there. A folder or a pattern gives a folder of links to the files in the cache.

    Raises:
        UserError: the address is refused, or leads to nothing.
        EnvironmentFault: the store cannot be reached, denies access, or breaks off again and again; the cache cannot
            be written or has no room.
    """
    written = os.fspath(path)
    if not is_address(written):
        return Path(written)
    return once_in_command(("address", written), lambda: _fetched(written))


def _fetched(address: str) -> Path:
    files = file_system(address)
    listing = listing_of(files, address)
    folder = cache_folder() / "remote"
    lacking = [file for file in listing.files if not _is_there(folder, file)]
    if lacking:
        _require_room(folder, lacking)
        what = lacking[0].name if len(listing.files) == 1 else counted(len(lacking), "file")
        with undoing(), progress(what, sum(file.size for file in lacking), address) as advance:
            _fetch_all(files, lacking, folder, address, advance)
    if listing.folder is None:
        return _place(folder, listing.files[0])
    return _linked(folder, listing).joinpath(*listing.pattern)


def _place(folder: Path, file: RemoteFile) -> Path:
    return folder / "files" / file.key / file.name.rsplit("/", 1)[-1]


def _is_there(folder: Path, file: RemoteFile) -> bool:
    with suppress(OSError):
        return _place(folder, file).stat().st_size == file.size
    return False


def _require_room(folder: Path, lacking: list[RemoteFile]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        cannot_write(folder, error)
    needed = sum(file.size for file in lacking)
    if needed > free:
        what = f"{file_size(needed)} are to be fetched, {file_size(free)} are free"
        raise EnvironmentFault(str(folder), what, "set MTL_CACHE to another folder, or delete this one")


def _fetch_all(
    files: Any, lacking: list[RemoteFile], folder: Path, address: str, advance: Callable[[int], object]
) -> None:
    stop = Event()
    if len(lacking) == 1:
        return _fetch(files, lacking[0], folder, address, advance, stop)
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for _ in pool.map(lambda file: _fetch(files, file, folder, address, advance, stop), lacking):
                pass
        finally:
            stop.set()  # one that failed, or a signal, ends the others


def _fetch(
    files: Any,
    file: RemoteFile,
    folder: Path,
    address: str,
    advance: Callable[[int], object],
    stop: Event,
) -> None:
    """Fetch one file; it gets its name when it is whole."""
    target = _place(folder, file)
    part = target.with_name(f"{target.name}.part")
    with locked(target.parent):
        if _is_there(folder, file):
            return
        try:
            with explained(address):
                source = files.open(file.address, "rb", block_size=CHUNK, cache_type="none")
            with source, part.open("wb") as out:
                left = file.size
                while left and not stop.is_set():
                    with explained(address):
                        chunk = source.read(min(CHUNK, left))
                    if not chunk or len(chunk) > left:
                        what = f"{file.size - left:,} bytes came, of {file.size:,}"
                        raise EnvironmentFault(address, what, "start again")
                    out.write(chunk)
                    advance(len(chunk))
                    left -= len(chunk)
                out.flush()
                os.fsync(out.fileno())
            if not left:
                os.replace(part, target)
        except OSError as error:
            cannot_write(part, error)
        finally:
            part.unlink(missing_ok=True)


def _linked(folder: Path, listing: Listing) -> Path:
    """A folder with the names of the data set, in which each leads to the file of the cache."""
    assert listing.folder is not None
    said = repr([(file.name, file.key) for file in listing.files])
    key = hashlib.sha256(f"{listing.address}\0{said}".encode()).hexdigest()[:40]
    final = folder / "sets" / key
    if final.is_dir():
        return final / listing.folder
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".", dir=final.parent))
        try:
            for file in listing.files:
                link = made / listing.folder / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.relpath(_place(folder, file), link.parent))
            with suppress(OSError):  # another process made the same
                made.rename(final)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        cannot_write(final, error)
    return final / listing.folder
