"""Checkpoints on disk: a directory committed by one rename, with a manifest of sha256 digests.

No file is ever overwritten. A save makes `.tmp-<step>-<pid>-<random>`, writes and syncs each file, the manifest last,
syncs the directory, renames it to `step-<8 digits>` and syncs the parent. So each `step-*` folder is whole even if
the save was interrupted, and loading checks every byte of it. Files are written and hashed in pieces, so that memory
never holds a whole file. `verified` returns paths, and the caller reads their content.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mtl import __version__, stages
from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.runs.disk import (
    Content,
    make_folder,
    move_folder,
    pieces,
    plain_size,
    read_plain,
    sync_folder,
    write_new,
)
from mtl.runs.json_text import canonical_json, shown, strict_json

SCHEMA_VERSION = 1
"""The version of the manifest and of the state."""
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 1 << 20
"""A manifest has at most this many bytes; one that mtl writes has about 700."""
_NAME = re.compile(r"step-([0-9]{8})")


class Damaged(Exception):
    """A checkpoint differs from what was written; the text says how.

    Args:
        fault: how it differs.
        missing: whether nothing is left of it.
    """

    def __init__(self, fault: str, missing: bool = False) -> None:
        super().__init__(fault)
        self.told = "is missing" if missing else f"is damaged ({fault})"


def commit(
    folder: Path, step: int, files: Mapping[str, Content], run_id: str, parent: int | None = None
) -> Path:
    """Write one checkpoint, which then exists whole or not at all.

    Args:
        folder: the run's `checkpoints`; it is made if it does not exist.
        step: the number of optimizer steps done.
        files: name -> content, which is hashed as it is written; no other thread is needed, which may not start.
        run_id: the run of the checkpoint.
        parent: the step that this process resumed from, or None.

    Returns:
        The committed directory. If it exists already with the same content, it stays. A different checkpoint of this
        step is replaced: it is damaged, or was saved before the epoch's evaluation. If the process dies between the
        two renames of a replacement, `retention.clean` puts the old checkpoint back.

    Raises:
        EnvironmentFault: the disk refused.
    """
    path, aside, renamed = folder / f"step-{step:08d}", None, False
    temporary = folder / f".tmp-{step:08d}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        stages.reached("save")
        make_folder(folder)
        if is_folder(path):
            health = _health(path)
            if health is not None and health["files"] == {name: _entry(own) for name, own in files.items()}:
                return path
            prefix = ".del" if health is None else ".old"
            aside = folder / f"{prefix}-{step:08d}-{secrets.token_hex(4)}"
        temporary.mkdir()
        entries = {name: _entry(own, partial(write_new, temporary / name)) for name, own in files.items()}
        write_new(temporary / MANIFEST, canonical_json(_manifest(step, run_id, parent, entries)))
        sync_folder(temporary)
        if aside is not None:
            move_folder(path, aside)
        os.rename(temporary, path)
        renamed = True
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            if aside is not None and aside.exists() and not path.exists():
                os.rename(aside, path)
        what = f"cannot write checkpoint at step {step}: {(error.strerror or str(error)).lower()}"
        # a checkpoint that was renamed but not synced may be lost in a power cut
        raise EnvironmentFault(
            str(folder), f"{what}; {_last_good(folder, step if renamed else None)}"
        ) from error
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    return path


_drop: Callable[[Iterator[bytes | memoryview]], object] = partial(deque, maxlen=0)
"""Reads pieces and keeps none."""


def _entry(content: Content, use: Callable[[Iterator[bytes | memoryview]], object] = _drop) -> dict[str, Any]:
    """The entry of a file in the manifest, which is hashed while `use` takes its pieces."""
    size, digest = 0, hashlib.sha256()

    def passed() -> Iterator[bytes | memoryview]:
        nonlocal size
        for piece in pieces(content):
            size += len(piece)
            digest.update(piece)
            yield piece

    use(passed())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _manifest(step: int, run_id: str, parent: int | None, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "mtl": __version__,
        "run_id": run_id,
        "step": step,
        "parent": parent,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
    }


def _last_good(folder: Path, but: int | None) -> str:
    try:
        saved = [step for step in steps(folder) if step != but]
    except OSError:
        return "which others are there cannot be read"
    return f"last good: step-{saved[-1]:08d}" if saved else "none was saved before"


def is_folder(path: Path) -> bool:
    """Whether a path is a folder itself, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def _health(path: Path) -> dict[str, Any] | None:
    """The manifest of a whole checkpoint; None for a damaged one."""
    try:
        verified(path)
        return manifest_of(path)
    except Damaged:
        return None


def steps(folder: Path) -> list[int]:
    """The steps of all committed checkpoints in ascending order; links and other names are ignored."""
    if not folder.is_dir():
        return []
    found = [
        int(match[1])
        for entry in os.scandir(folder)
        if (match := _NAME.fullmatch(entry.name)) and entry.is_dir(follow_symlinks=False)
    ]
    return sorted(found)


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of one checkpoint.

    Raises:
        Damaged: the manifest is missing or malformed.
        UserError: a newer mtl wrote it.
    """
    if not os.path.lexists(path):
        raise Damaged("the folder is missing", missing=True)
    try:
        if plain_size(path / MANIFEST) > MANIFEST_LIMIT:
            raise Damaged(f"{MANIFEST}: larger than {MANIFEST_LIMIT} bytes")
        manifest = strict_json(read_plain(path / MANIFEST))
        version, step = manifest["schema_version"], manifest["step"]
        for entry in manifest["files"].values():
            if type(entry["bytes"]) is not int or type(entry["sha256"]) is not str:
                raise ValueError("a file's size or sha256 has the wrong type")
    except OSError as error:
        raise Damaged(f"{MANIFEST}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST}: {shown(str(error) or type(error).__name__)}") from None
    if type(version) is not int or type(step) is not int:
        raise Damaged(f"{MANIFEST}: schema_version is {quoted(version)}, step {quoted(step)}")
    if version > SCHEMA_VERSION:
        raise UserError(
            str(path),
            f"written by mtl {shown(str(manifest.get('mtl', '?')))} (schema {version}), "
            f"this is {__version__} (schema {SCHEMA_VERSION})",
            "upgrade mtl",
        )
    if version < 1:
        raise Damaged(f"{MANIFEST}: schema_version is {quoted(version)}")
    if (match := _NAME.fullmatch(path.name)) and step != int(match[1]):
        raise Damaged(f"{MANIFEST}: is of step {quoted(step)}")
    return dict(manifest)


def verified(path: Path, run_id: str | None = None) -> dict[str, Path]:
    """File name -> path for one checkpoint, after every file was read and agreed with the manifest.

    Args:
        path: the checkpoint.
        run_id: the run that the checkpoint must belong to; None accepts any run.

    Raises:
        Damaged: a file is missing, differs or is not in the manifest, or the checkpoint belongs to another run.
        UserError: a newer mtl wrote it.
    """
    manifest = manifest_of(path)
    if run_id not in (None, manifest.get("run_id")):
        raise Damaged(f"{MANIFEST}: is of another run")
    expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    try:
        present = set(os.listdir(path)) - {MANIFEST}
    except OSError as error:
        raise Damaged(f"cannot be listed: {error.strerror or error}") from None
    for name in sorted(present ^ set(expected)):
        raise Damaged(f"{shown(name)}: {'not in the manifest' if name in present else 'missing'}")
    for name, (size, digest) in expected.items():
        try:
            if plain_size(path / name) != size:
                raise Damaged(f"{shown(name)}: size differs")
            with (path / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Damaged(f"{shown(name)}: {error.strerror or error}") from None
        if found != digest:
            raise Damaged(f"{shown(name)}: sha256 differs")
    return {name: path / name for name in expected}


def size_of(path: Path) -> int:
    """The bytes of the files of one checkpoint with its manifest; 0 if it was deleted meanwhile."""
    try:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path))
    except OSError:
        return 0


def newest(folder: Path, run_id: str) -> tuple[int, dict[str, Path], list[str]]:
    """The step and the files of the newest whole checkpoint of a run, and a warning for each newer, damaged one.

    Raises:
        UserError: the run has no whole checkpoint.
    """
    warnings: list[str] = []
    all_steps = steps(folder)
    for step in reversed(all_steps):
        try:
            files = verified(folder / f"step-{step:08d}", run_id)
        except Damaged as reason:
            warnings.append(f"step-{step:08d} {reason.told}")
            continue
        if warnings:
            warnings[-1] += f"; using step-{step:08d}"
        return step, files, warnings
    run = str(folder.parent)
    if not all_steps:
        raise UserError(run, "no checkpoint found")
    what = f"no usable checkpoint in {run if run.isprintable() else quoted(run)} ({len(all_steps)} damaged)"
    raise UserError("", what, f"see mtl checkpoints {run}")
