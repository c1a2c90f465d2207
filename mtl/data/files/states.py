"""What the system says of many files, which tells that one was written to without reading it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from time import sleep, time_ns

QUIET = 2 * 10**9
"""Nanoseconds after which a second change of a file surely has another time: the coarsest file systems count in 2 s."""


def state_of_all(root: Path, paths: Iterable[str | None]) -> str:
    """sha256 over path, size, number and times of each file; it changes when a file is written to or replaced.

    The time of the last change (ctime) is that of the system's clock, and no program can set it back. A file that
    changed in the last 2 s may change again without another time, so the function waits until these are over; rows that
    are read afterwards are those of this state, or have a later time.

    Args:
        root: the folder of the files.
        paths: their paths below it; a path that leads nowhere has no state, and its reader reports it.
    """
    digest, newest = hashlib.sha256(), 0
    folder = os.fspath(root)
    for path in paths:
        found = _state(os.path.join(folder, path or ""))
        digest.update(f"{path}\0{found}\0".encode())
        newest = max(newest, found[-1])
    now = time_ns()
    if now - QUIET < newest <= now:
        sleep((newest + QUIET - now) / 1e9)
    return digest.hexdigest()


def _state(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return (0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
