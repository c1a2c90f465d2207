"""The store of encoded rows, for data that are larger than memory: written once, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mtl.console import file_size
from mtl.data import room
from mtl.data.files.download import ROWS, cache_folder, cannot_write, locked, say
from mtl.dataset.batch import Dataset
from mtl.dataset.stored import arrays
from mtl.dataset.stored.arrays import DamagedError, Entry
from mtl.dataset.stored.facts import arrays_of, facts_of, put_together
from mtl.dataset.stored.key import key_of
from mtl.recipe.keys.recipe import Recipe

ARRAYS = "arrays"
"""The folder of all arrays; every other folder beside it is a store, named by its key."""
INDEX = "store.json"
"""The file of a store that names its arrays. It is written last: a store without it does not exist."""
ENTRIES = TypeAdapter(dict[str, Entry])


def store_folder() -> Path:
    """The folder of all stores; removing it frees their room on the disk."""
    return cache_folder() / ROWS


def stored(recipe: Recipe, read: Callable[[], Dataset]) -> Dataset:
    """The data set that `read` gives, with its rows in files.

    It comes from the store of the recipe's key. If there is none, or a damaged one, `read` makes the data set with its
    arrays in files without a name, and the store is written. One process at a time does so; others wait.

    Raises:
        UserError: as `read`.
        EnvironmentFault: the disk has no room, or refused.
    """
    home = store_folder()
    folder = home / key_of(recipe)
    with locked(folder):
        try:
            (dataset, n_bytes), done = _opened(folder), "are read from"
        except (FileNotFoundError, DamagedError) as fault:
            say(f"encoding the rows once, into {home}")
            with room.in_files(folder):
                _write(read(), folder)
            (dataset, n_bytes), done = _opened(folder), "were encoded into"
            if isinstance(fault, DamagedError):
                done = f"were encoded anew ({fault}) into"
    notice = f"rows of {file_size(n_bytes)} {done} {home}; to free the disk, remove this folder"
    return replace(dataset, notices=(*dataset.notices, notice))


def _opened(folder: Path) -> tuple[Dataset, int]:
    """The data set of a store, and the bytes of its arrays.

    Raises:
        FileNotFoundError: there is no store.
        DamagedError: a file is not what was written.
    """
    entries, facts = _read_index(folder / INDEX)
    home = folder.parent / ARRAYS
    now = {name: arrays.verified(entry, home) for name, entry in entries.items()}
    if now != entries:  # the content was read, since the files were copied or moved
        _write_index(folder, now, facts)
    return put_together(now, facts, home), sum(entry.n_bytes for entry in now.values())


def _read_index(path: Path) -> tuple[dict[str, Entry], dict[str, Any]]:
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if digest.decode(errors="replace") != hashlib.sha256(text).hexdigest():
        raise DamagedError(f"{path} holds other bytes than were written")
    try:
        index = json.loads(text)
        return ENTRIES.validate_python(index["arrays"]), index["facts"]
    except (ValueError, KeyError, ValidationError) as error:  # whole, but of no version that this one knows
        raise DamagedError(f"{path} is no index of a store: {type(error).__name__}") from None


def _write(dataset: Dataset, folder: Path) -> None:
    """Write the store of a data set; what it lacks until its last file is written, nobody sees.

    Raises:
        EnvironmentFault: the disk has no room, or refused.
    """
    home = folder.parent / ARRAYS
    try:
        home.mkdir(exist_ok=True)
        _remove_left_overs(folder)
        found = dict(arrays_of(dataset))
        digests = {name: arrays.digest(values) for name, values in found.items()}
        new = {d: found[name].nbytes for name, d in digests.items() if not (home / d).exists()}
        room.require_disk(home, sum(new.values()), "the encoded rows")
        entries = {name: arrays.write(values, digests[name], home, folder) for name, values in found.items()}
        _write_index(folder, entries, facts_of(dataset))
    except OSError as error:
        cannot_write(folder.parent, error)


def _write_index(folder: Path, entries: dict[str, Entry], facts: dict[str, Any]) -> None:
    index = {"arrays": ENTRIES.dump_python(entries, mode="json"), "facts": facts}
    text = json.dumps(index).encode()
    arrays.write_file(folder / INDEX, folder, (hashlib.sha256(text).hexdigest().encode(), b"\n", text))


def _remove_left_overs(own: Path) -> None:
    """Remove the unfinished files of processes that were killed; a folder in use by a living one is left alone."""
    for part in own.parent.glob(f"*/*{arrays.PART}"):
        with _unless_in_use(part.parent, own) as is_free:
            if is_free:
                part.unlink(missing_ok=True)


@contextmanager
def _unless_in_use(folder: Path, own: Path) -> Iterator[bool]:
    """Whether a store is this process's own, or no process has its lock; it keeps the lock meanwhile."""
    if folder == own:
        yield True
        return
    with open(folder / ".lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
