"""Files and folders that a power cut cannot take back, and what else is asked of a disk."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from mtl.errors import EnvironmentFault, UserError

Content = bytes | Iterable[bytes | memoryview]
"""What a file is to hold; pieces come one after the other, the same ones whenever they are gone through."""


def pieces(content: Content) -> Iterable[bytes | memoryview]:
    """The pieces of a content, which is one piece if it is plain bytes."""
    return (content,) if isinstance(content, bytes) else content


def write_new(path: Path, content: Content) -> None:
    """Write a file that is not there yet, and sync it.

    Raises:
        OSError: the disk refused, or the file is there.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for piece in pieces(content):
            view = memoryview(piece)
            while view:  # a disk that fills up takes a part
                view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk for good."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, so that a power cut leaves them there."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a small file so that a reader sees the old bytes or the new ones, never a part."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write_new(temporary, data)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise EnvironmentFault(
            str(path), f"cannot write: {(error.strerror or str(error)).lower()}"
        ) from error


def plain_size(path: Path) -> int:
    """Bytes of a file that is no link, pipe or device: reading one of those may never end.

    Raises:
        OSError: it is one of them, or is not there.
    """
    info = path.lstat()
    if not S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")
    return info.st_size


def require_own(path: Path, is_right: Callable[[int], bool] = S_ISREG) -> None:
    """What a run writes to is a file of its own, or with `S_ISDIR` a folder; or is not there yet.

    Raises:
        UserError: it is a link, which may lead out of the run, or something else, which may never end.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:  # whoever opens it is told
        return
    if not is_right(mode):
        raise _not_own(path, "a regular file" if is_right is S_ISREG else "a folder of the run's own")


def open_own(path: Path, flags: int) -> int:
    """Open a file that a run writes; a link is not followed, and no pipe is waited for.

    Raises:
        UserError: it is no regular file.
        OSError: the disk refused, or it is not there.
    """
    require_own(path)
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError:
        require_own(path)  # it may just have become something else
        raise
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_own(path, "a regular file")
    return descriptor


def _not_own(path: Path, kind: str) -> UserError:
    return UserError(str(path), f"is not {kind}", "put back what the run wrote")


def lacks_space(folder: Path, size: int) -> str | None:
    """A warning if the disk has less room than twice the last checkpoint's bytes; nothing is deleted to make room."""
    try:
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    except OSError:
        return None
    if free >= 2 * size:
        return None
    return (
        f"{folder}: {free / 2**20:,.0f} MB are free, and a checkpoint takes {size / 2**20:,.0f} MB; make room"
    )
