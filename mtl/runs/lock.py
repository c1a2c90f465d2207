"""The lock of a run folder lets one process at a time write to it."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from io import FileIO
from pathlib import Path
from time import monotonic, sleep

from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.runs.disk import open_own, require_own

LOCK = ".lock"
PATIENCE = 0.25
"""Seconds to wait for a lock, since a look at a run's status holds the lock for microseconds."""


class RunLock:
    """The file `.lock` in a run folder, locked by flock(2); the kernel releases it when the holding process ends.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.path = run, run / LOCK
        self._file: FileIO | None = None

    def require_own(self) -> None:
        """Require that the lock is a file in the folder, or does not exist.

        Raises:
            UserError: the lock is a link or something else.
        """
        require_own(self.path)

    def take(self) -> None:
        """Take the lock until `release` or the end of the process; if this object has it, nothing happens.

        Raises:
            UserError: another process has the lock.
            EnvironmentFault: the disk refused.
        """
        if self._file is not None:
            return
        file = None
        try:
            file = FileIO(open_own(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+")
            _lock(file)
        except BlockingIOError:
            assert file is not None
            with file:
                raise self._in_use(file) from None
        except OSError as error:
            if file is not None:
                file.close()
            why = (error.strerror or str(error)).lower()
            raise EnvironmentFault(str(self.run), f"cannot be locked: {why}") from error
        self._file = file
        with suppress(OSError):  # the holder's name is for people only
            file.truncate(0)
            file.write(f"pid {os.getpid()} on host {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Release the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def require_held(self) -> None:
        """Require that the lock which this process took is still that of the run folder.

        Raises:
            EnvironmentFault: the folder was moved, or the lock was removed, so that another process may have taken it.
        """
        if self._file is None:
            return
        own = os.fstat(self._file.fileno())
        try:
            there = self.path.lstat()
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            what = f"was moved, or its {LOCK} was removed, while it trained"
            raise EnvironmentFault(str(self.run), what, "its checkpoints stand: resume it where it is now")

    def require_free(self) -> None:
        """Require that no other process has the lock; this makes no file.

        Raises:
            UserError: another process has the lock.
        """
        with suppress(OSError), FileIO(open_own(self.path, os.O_RDONLY)) as file:
            if _is_locked(file):
                raise self._in_use(file)

    def taken(self) -> bool | None:
        """Whether another process has the lock; None if the file system does not tell."""
        try:
            with FileIO(open_own(self.path, os.O_RDONLY)) as file:
                return _is_locked(file)
        except FileNotFoundError:
            return False
        except OSError:
            return None

    def _in_use(self, file: FileIO) -> UserError:
        file.seek(0)
        holder = file.read(200).decode(errors="replace").strip() or "another process"
        return UserError(str(self.run), f"is in use by {holder if holder.isprintable() else quoted(holder)}")


def _is_locked(file: FileIO) -> bool:
    """Whether another process has the lock: this takes a shared lock for a moment, which needs no right to write."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _lock(file: FileIO) -> None:
    """Take the lock, and wait for it up to PATIENCE seconds.

    Raises:
        BlockingIOError: another process still has it.
    """
    end = monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > end:
                raise
            sleep(0.01)
