"""The lock of a run folder: one process at a time writes to it."""

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
"""Seconds to wait for a lock: a look at a run's status holds it for microseconds."""


class RunLock:
    """`.lock` in a run folder, locked by flock(2): it goes with the process that holds it, however that ends.

    Args:
        run: the folder.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.path = run, run / LOCK
        self._file: FileIO | None = None

    def require_own(self) -> None:
        """The lock lies in the folder.

        Raises:
            UserError: it is a link, or no file.
        """
        require_own(self.path)

    def take(self) -> None:
        """Hold the lock until `release` or the end of the process; nothing if it is held already.

        Raises:
            UserError: another process has it.
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
        with suppress(OSError):  # who holds it is for people only
            file.truncate(0)
            file.write(f"pid {os.getpid()} on host {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def require_free(self) -> None:
        """No other process has the lock, as far as can be seen without making anything.

        Raises:
            UserError: one has.
        """
        with suppress(OSError), FileIO(open_own(self.path, os.O_RDONLY)) as file:
            if _is_locked(file):
                raise self._in_use(file)

    def taken(self) -> bool | None:
        """Whether another process has the lock; None where that cannot be known."""
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
    """Whether another process has a lock; a shared one is taken for a moment, which needs no right to write."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _lock(file: FileIO) -> None:
    """Take a lock, or find after PATIENCE that another process has it.

    Raises:
        BlockingIOError: it has.
    """
    end = monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > end:
                raise
            sleep(0.01)
