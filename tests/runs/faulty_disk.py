"""Checkpoints to try things on, and a disk whose calls are recorded or fail."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from mtl.runs.checkpoint import commit

FILES = {"a.bin": b"\0" * 5000, "b.json": b"{}", "empty": b""}
PIECES = [b"\0" * 3000, memoryview(b""), memoryview(b"\0" * 2000)]
"""The first of them, in pieces."""


def save(folder: Path, *at: int) -> None:
    """Commit a checkpoint of each step; one of its files comes in pieces."""
    for step in at:
        commit(folder, step, {**FILES, "a.bin": PIECES, "step": str(step).encode()}, "run")


def tree(folder: Path) -> dict[str, bytes]:
    """Name -> bytes, of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Recorder:
    """Records the calls that reach the disk, by the name of what they are about."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        names: dict[int, str] = {}
        real = {name: getattr(os, name) for name in ("open", "write", "fsync", "rename", "mkdir")}

        def short(path: Any) -> str:
            return re.sub(r"\.tmp-.*", "<tmp>", Path(os.fspath(path)).name)

        def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            descriptor: int = real["open"](path, flags, *args, **kwargs)
            names[descriptor] = short(path)
            if flags & os.O_CREAT:
                assert flags & os.O_EXCL, "a file might be overwritten"
                self.calls.append(("create", short(path)))
            return descriptor

        def write(descriptor: int, data: Any) -> int:
            self.calls.append(("write", names[descriptor]))
            written: int = real["write"](descriptor, data)
            return written

        def fsync(descriptor: int) -> None:
            self.calls.append(("fsync", names[descriptor]))
            real["fsync"](descriptor)

        def rename(source: Any, target: Any, **kwargs: Any) -> None:
            self.calls.append(("rename", f"{short(source)} {short(target)}"))
            real["rename"](source, target, **kwargs)

        def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
            self.calls.append(("mkdir", short(path)))
            real["mkdir"](path, *args, **kwargs)

        for name, function in (
            ("open", open_), ("write", write), ("fsync", fsync), ("rename", rename), ("mkdir", mkdir),
        ):  # fmt: skip
            patch.setattr(os, name, function)


class FailAt:
    """Lets the n-th call (from 0) of one of the calls raise, and counts."""

    def __init__(self, patch: pytest.MonkeyPatch, call: str, n: int, number: int) -> None:
        self.count, self.fired = 0, False
        real = getattr(os, call)

        def fail(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == n + 1:
                self.fired = True
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        patch.setattr(os, call, fail)
