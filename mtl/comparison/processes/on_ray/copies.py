"""A run folder is copied between two machines piece by piece, while the run writes it.

Each moment of the copy is a state that the folder could have after a kill: the logs are at least as long as the
checkpoints beside them need, a checkpoint has its name once it is whole, and run.json says `finished` last of all.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mtl.runs import checkpoint
from mtl.runs.disk import make_folder, sync_folder
from mtl.runs.folder import RECORD

PIECE = 1 << 22
"""Bytes of a file that are sent at a time."""
CHECKPOINTS = "checkpoints"

Stamp = tuple[int, int, int]
"""Inode, size and time of change of a file; a file with the same ones has the same bytes."""


@dataclass(frozen=True)
class Piece:
    """A part of a file, or word that something is gone.

    Args:
        path: relative to the run folder: a file, or a checkpoint that is gone.
        data: the bytes; None: the checkpoint is gone.
        is_last: whether the file ends with these bytes.
    """

    path: str
    data: bytes | None
    is_last: bool = True


class Outgoing:
    """What the copy of a run folder lacks.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._sent: dict[str, Stamp] = {}

    def mark(self) -> None:
        """Take what is there as sent."""
        for path in (*self._files(), *self._checkpoints().values(), self.run / RECORD):
            with suppress(FileNotFoundError):
                self._sent[self._name(path)] = _stamp(path)

    def is_due(self) -> bool:
        """Whether a checkpoint was committed that the copy lacks."""
        return any(self._lacks(path) for path in self._checkpoints().values())

    def round(self, is_over: bool) -> Iterator[Piece]:
        """Bring the copy up to date.

        Args:
            is_over: whether the run has ended. Before, a record that says `finished` waits for all other files.
        """
        saved = self._checkpoints()  # looked up first, so that the logs reach at least as far
        for path in self._files():
            yield from self._file(path)
        if not is_over and self._is_running():
            yield from self._file(self.run / RECORD)
        for folder in saved.values():
            yield from self._checkpoint(folder)
        if is_over:
            yield from self._file(self.run / RECORD)
        for name in [name for name in self._sent if name.startswith(CHECKPOINTS)]:
            if not (self.run / name).exists():
                del self._sent[name]
                yield Piece(os.path.dirname(name), None)

    def _files(self) -> list[Path]:
        """The files at the top of the folder but its record; names with a dot are locks and unfinished writes."""
        if not self.run.is_dir():
            return []
        found = sorted(path for path in self.run.iterdir() if path.is_file() and not path.is_symlink())
        return [path for path in found if not path.name.startswith(".") and path.name != RECORD]

    def _checkpoints(self) -> dict[int, Path]:
        """Step -> the manifest of its checkpoint, which is the last file of it."""
        folder = self.run / CHECKPOINTS
        return {step: folder / f"step-{step:08d}" / checkpoint.MANIFEST for step in checkpoint.steps(folder)}

    def _is_running(self) -> bool:
        with suppress(OSError, ValueError):
            return bool(json.loads((self.run / RECORD).read_bytes())["status"] == "running")
        return False

    def _lacks(self, path: Path) -> bool:
        try:
            return self._sent.get(self._name(path)) != _stamp(path)
        except FileNotFoundError:
            return False

    def _checkpoint(self, manifest: Path) -> Iterator[Piece]:
        """The files of a checkpoint, the manifest last; one that is deleted meanwhile is taken back."""
        if not self._lacks(manifest):
            return
        try:
            files = sorted(path for path in manifest.parent.iterdir() if path != manifest)
            for path in (*files, manifest):
                yield from self._pieces(path)
        except FileNotFoundError:
            yield Piece(self._name(manifest.parent), None)

    def _file(self, path: Path) -> Iterator[Piece]:
        if self._lacks(path):
            yield from self._pieces(path)

    def _pieces(self, path: Path) -> Iterator[Piece]:
        """A file as long as it is now; a log may grow meanwhile."""
        with path.open("rb") as file:
            stamp = _stamp(path)
            left = os.fstat(file.fileno()).st_size
            while True:
                data = file.read(min(PIECE, left))
                left -= len(data)
                is_last = left == 0 or not data
                yield Piece(self._name(path), data, is_last)
                if is_last:
                    break
        self._sent[self._name(path)] = stamp

    def _name(self, path: Path) -> str:
        return path.relative_to(self.run).as_posix()


class Incoming:
    """Writes the pieces of a run folder.

    Args:
        run: the folder of the copy.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._file: BinaryIO | None = None
        self._at = run
        self._unfinished: Path | None = None

    def take(self, piece: Piece) -> None:
        """Write a piece; pieces come in the order in which they were sent.

        Raises:
            OSError: the disk refused.
        """
        folder, name = os.path.split(piece.path)
        assert folder in ("", CHECKPOINTS) or os.path.dirname(folder) == CHECKPOINTS
        if piece.data is None:
            self._drop()
            shutil.rmtree(self.run / piece.path, ignore_errors=True)
            return
        if self._file is None:
            self._at = self._begin(folder) / (name if folder else _temporary(name))
            self._file = self._at.open("wb")
        self._file.write(piece.data)
        if piece.is_last:
            self._file.close()
            self._file = None
            sync_folder(self._at)
            if folder == "":
                os.replace(self._at, self.run / name)
                sync_folder(self.run)
            elif name == checkpoint.MANIFEST:
                self._commit(folder)

    def close(self) -> None:
        """Delete what has not come as a whole."""
        self._drop()

    def _begin(self, folder: str) -> Path:
        """The folder that the next file is written to: a checkpoint has a name for the time until it is whole."""
        make_folder(self.run)
        if folder == "":
            return self.run
        if self._unfinished is None:
            step = os.path.basename(folder).removeprefix("step-")
            name = f".tmp-{step}-{os.getpid()}-{secrets.token_hex(4)}"
            self._unfinished = self.run / CHECKPOINTS / name
            make_folder(self._unfinished)
        return self._unfinished

    def _commit(self, folder: str) -> None:
        assert self._unfinished is not None
        path, aside = self.run / folder, None
        sync_folder(self._unfinished)
        if path.exists():
            step = path.name.removeprefix("step-")
            aside = path.with_name(f".old-{step}-{secrets.token_hex(4)}")
            os.rename(path, aside)
        os.rename(self._unfinished, path)
        sync_folder(path.parent)
        self._unfinished = None
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._at.unlink(missing_ok=True)
        if self._unfinished is not None:
            shutil.rmtree(self._unfinished, ignore_errors=True)
            self._unfinished = None


def _stamp(path: Path) -> Stamp:
    info = path.stat()
    return info.st_ino, info.st_size, info.st_mtime_ns


def _temporary(name: str) -> str:
    """A name as that of an interrupted write, which a run that goes on deletes."""
    return f".{name}-{os.getpid()}-{secrets.token_hex(4)}"
