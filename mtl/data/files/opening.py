"""Opens a user's data file once; every reader then reads through this one opening."""

from __future__ import annotations

import hashlib
import io
import os
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from mtl.errors import UserError, did_you_mean, quoted

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SHOWN = 200
"""Most characters of a path that messages show whole."""
BUFFER = 1 << 18
"""Bytes that a pass reads from the system at once."""

Found = TypeVar("Found")
State = tuple[int, int, int, int]
"""Device, number, size and time of change of a file."""


class Shared(Protocol):
    """What is opened at a path, and shared by all that ask for the path."""

    def is_at_its_path(self) -> bool:
        """Whether the path still leads to it, and nobody has written to it."""

    def close(self) -> None:
        """Release its descriptors and the kept results."""


Opened = TypeVar("Opened", bound=Shared)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file.

    Raises:
        UserError: the file does not exist, is not a regular file, or may not be read; its path is `path`.
    """
    try:
        # a pipe would wait for a writer, and a device may never end
        if path.is_dir():
            what = "is a directory"
        elif not S_ISREG(path.stat().st_mode):
            what = "is not a regular file"
        else:
            return path.open("rb")
    except FileNotFoundError:
        beside: list[str] = []
        with suppress(OSError):
            beside = [other.name for other in path.parent.iterdir()]
        what = f"no such file{did_you_mean(path.name, beside)}"
    except PermissionError:
        what = "permission denied"
    except (OSError, ValueError) as error:
        what = f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    shown = str(path)
    raise UserError(
        shown if shown.isprintable() and len(shown) <= SHOWN else quoted(shown), what, path=("path",)
    )


class OpenFile:
    """An open regular file. It is read in passes, and keeps the results of earlier passes.

    Args:
        path: the file.

    Raises:
        UserError: as `open_file`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _Descriptor(open_file(path))
        self.state = self._now()
        self._found: dict[Hashable, Any] = {}

    def stream(self) -> FilePass:
        """A new pass over the file from its beginning; passes are independent, even in different threads."""
        return FilePass(_Pass(self._descriptor), BUFFER)

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.state[2]

    def once(self, what: Hashable, find: Callable[[], Found]) -> Found:
        """The result of `find`, which is called only the first time that `what` is asked for."""
        if what not in self._found:
            self._found[what] = find()
        found: Found = self._found[what]
        return found

    @cached_property
    def sha256(self) -> str:
        """sha256 of the file's bytes, in hex."""
        digest = hashlib.file_digest(self.stream(), "sha256").hexdigest()
        self.require_unchanged()
        return digest

    def require_unchanged(self, since: State | None = None) -> None:
        """Refuse a file that was written to since it was opened, because results of its passes may disagree.

        Args:
            since: the state of an earlier opening, if results of its passes count too.

        Raises:
            UserError: its size or its time of change differs from that at the opening.
        """
        if self._now() != (self.state if since is None else since):
            raise UserError(self.path.name, "was changed while it was read", "start again once it is whole")

    def is_at_its_path(self) -> bool:
        """Whether the path still leads to this file, and nobody has written to it."""
        try:
            return state_of(self.path.stat()) == self.state
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Release the descriptor and the kept results; passes that have not ended fail."""
        self._descriptor.close()
        self._found.clear()

    def _now(self) -> State:
        return state_of(os.fstat(self._descriptor.file.fileno()))


class FilePass(io.BufferedReader):
    """A buffered pass over an open file."""

    _most: int | None = None

    @contextmanager
    def no_more_than(self, most: int) -> Iterator[None]:
        """Refuse to read more bytes at once, inside: a library takes the number from the file, and memory for it.

        Raises:
            ValueError: inside, more bytes were asked for.
        """
        self._most = most
        try:
            yield
        finally:
            self._most = None

    def read(self, size: int | None = -1, /) -> bytes:
        """As any reader."""
        if self._most is not None and size is not None and size > self._most:
            raise ValueError(f"{size} bytes are asked for at once")
        return super().read(size)


class _Descriptor:
    """The system's descriptor of a file; it is closed after the last pass that needs it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.close = weakref.finalize(self, file.close)


class _Pass(io.RawIOBase):
    """An independent reading position in an open file."""

    def __init__(self, descriptor: _Descriptor) -> None:
        self._descriptor, self._at = descriptor, 0
        self.name = descriptor.file.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        wanted = memoryview(buffer).cast("B")
        data = os.pread(self._descriptor.file.fileno(), len(wanted), self._at)
        wanted[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = os.fstat(self._descriptor.file.fileno()).st_size
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: size}[whence]
        if at < 0:
            raise OSError("a position before the beginning of the file")
        self._at = at
        return at


def state_of(found: os.stat_result) -> State:
    """Numbers that change when a file is written to or replaced."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@dataclass
class _Command:
    """What one command has opened and found so far."""

    files: dict[tuple[Path, Callable[[Path], Any]], Any] = field(default_factory=dict)
    found: dict[Hashable, Any] = field(default_factory=dict)


_COMMAND: ContextVar[_Command | None] = ContextVar("files that are opened once", default=None)


@contextmanager
def opened_once() -> Iterator[None]:
    """While this context lasts, `opened` gives the same file for the same path. Each command runs in one.

    The end of the context closes the files. A context inside a longer one does so too; the outer one then opens
    them again when a reader asks.
    """
    command = _COMMAND.get() or _Command()
    before = _COMMAND.set(command)
    try:
        yield
    finally:
        _COMMAND.reset(before)
        for file in command.files.values():
            file.close()
        command.files.clear()
        command.found.clear()


def opened(path: Path) -> OpenFile:
    """The file at a path; callers share it for as long as any of them holds it, and within `opened_once` until its end.

    A file that was written to or replaced since is opened again.

    Raises:
        UserError: as `open_file`.
    """
    return shared(path, OpenFile)


def shared(path: Path, open_at: Callable[[Path], Opened]) -> Opened:
    """As `opened`, for what else can be opened at a path: `open_at` opens it."""
    command = _COMMAND.get()
    if command is None:
        return open_at(path)
    known: Opened | None = command.files.get((path, open_at))
    if known is None or not known.is_at_its_path():
        known = command.files[path, open_at] = open_at(path)
    return known


def once_in_command(what: Hashable, find: Callable[[], Found]) -> Found:
    """The result of `find`; within `opened_once` it is called only the first time that `what` is asked for."""
    command = _COMMAND.get()
    if command is None:
        return find()
    if what not in command.found:
        command.found[what] = find()
    found: Found = command.found[what]
    return found
