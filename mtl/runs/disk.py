"""Files and folders that survive a power cut, and further questions to a disk."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from mtl.console import file_size
from mtl.errors import EnvironmentFault, UserError

Content = bytes | Iterable[bytes | memoryview]
"""The content of a file: bytes, or pieces in order. Each iteration over it must give the same pieces."""


def pieces(content: Content) -> Iterable[bytes | memoryview]:
    """The pieces of a content; plain bytes are one piece."""
    return (content,) if isinstance(content, bytes) else content


def write_new(path: Path, content: Content) -> None:
    """Write a new file, and sync it.

    Raises:
        OSError: the disk refused, or the file exists.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for piece in pieces(content):
            view = memoryview(piece)
            while view:  # a disk that fills up may write only a part
                view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that the names of its files survive a power cut; or a file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, and sync them, so that they survive a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def move_folder(old: Path, new: Path) -> None:
    """Rename a folder of files. Where the disk cannot, it is copied as a whole and then deleted.

    An overlay cannot rename a folder of its lower layer, as that of a run in a container's image. The copy has its new
    name before the first file of the old folder is deleted; those are deleted in the order of their names.

    Raises:
        OSError: the disk refused; the old folder is whole then, or the new one.
    """
    try:
        os.rename(old, new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    copy = old.with_name(f".tmp-{old.name}-{secrets.token_hex(4)}")
    try:
        shutil.copytree(old, copy, symlinks=True)
        for path in copy.iterdir():
            if path.is_file():
                sync_folder(path)
        os.rename(copy, new)
        sync_folder(new.parent)
    except OSError:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    for name in sorted(os.listdir(old)):
        (old / name).unlink()
    old.rmdir()


def write_whole(path: Path, data: bytes) -> None:
    """Replace a small file in one step, so that a reader sees either all old bytes or all new bytes."""
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
    """The bytes of a regular file. A read of a pipe or a device may never end, so they are refused.

    Raises:
        OSError: the path is a link, a pipe or a device, or does not exist.
    """
    info = path.lstat()
    if not S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")
    return info.st_size


MOST_BYTES = {".json": 64_000_000, ".yaml": 64_000_000, ".jsonl": 1_000_000_000}
"""The largest file of a run that is read whole, by its ending, since reading takes ten times as much memory.

The logs of a month have some hundred million bytes.
"""


def read_plain(path: Path) -> bytes:
    """The bytes of a file of a run, which may be anything if somebody gave the run away.

    Raises:
        OSError: the path is a link, a pipe, a device or a folder, is too large, or does not exist.
    """
    size, most = plain_size(path), MOST_BYTES[path.suffix]
    if size <= most:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            info = os.fstat(file.fileno())
            if not S_ISREG(info.st_mode):  # another one since the question
                raise OSError(errno.EINVAL, "is not a regular file")
            if info.st_size <= most:
                return file.read(info.st_size)
    raise OSError(errno.EFBIG, f"is larger than {most // 10**6} MB")


def unshare(path: Path) -> None:
    """Give a file that has other names, by hard links, bytes of its own; a file that does not exist is left out.

    Raises:
        EnvironmentFault: the disk refused, or the file is larger than any that a run writes.
    """
    try:
        if path.lstat().st_nlink > 1:
            write_whole(path, read_plain(path))
    except FileNotFoundError:
        return
    except OSError as error:
        what = f"cannot be copied: {(error.strerror or str(error)).lower()}"
        raise EnvironmentFault(str(path), what) from error


def require_own(path: Path, is_right: Callable[[int], bool] = S_ISREG) -> None:
    """Require that a path is a regular file (with `S_ISDIR` a folder) or does not exist.

    Raises:
        UserError: the path is a link, which may lead out of the run, or a pipe or device, which may never end.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:  # the same error meets the caller when it opens the path
        return
    if not is_right(mode):
        raise _not_own(path, "a regular file" if is_right is S_ISREG else "a folder of the run's own")


def open_own(path: Path, flags: int) -> int:
    """Open a file that a run writes, without following a link and without waiting for a pipe.

    Raises:
        UserError: the path is not a regular file.
        OSError: the disk refused, or the file does not exist.
    """
    require_own(path)
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError:
        require_own(path)  # another process may have replaced the file meanwhile
        raise
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_own(path, "a regular file")
    return descriptor


def _not_own(path: Path, kind: str) -> UserError:
    return UserError(str(path), f"is not {kind}", "put back what the run wrote")


def lacks_space(folder: Path, size: int) -> str | None:
    """A warning if the free space is less than twice the bytes of the last checkpoint, otherwise None."""
    try:
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    except OSError:
        return None
    if free >= 2 * size:
        return None
    return f"{folder}: {file_size(free)} are free, and a checkpoint takes {file_size(size)}; make room"
