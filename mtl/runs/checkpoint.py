"""Checkpoints on disk: a directory committed by one rename, with a manifest of sha256 digests.

No file is ever overwritten. A save makes `.tmp-<step>-<pid>-<random>`, writes and syncs each file, the
manifest last, syncs the directory, renames it to `step-<8 digits>` and syncs the parent. Whatever interrupts
it, each `step-*` folder that exists is whole, and loading checks every byte of it. Neither has a file in memory:
what is written comes in pieces, and what is read is read by whoever needs it once its digest was found good.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtl import __version__, stages
from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.runs.disk import Content, make_folder, pieces, plain_size, sync_folder, write_new
from mtl.runs.json_text import canonical_json, strict_json

SCHEMA_VERSION = 1
"""Of the manifest and the state."""
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 1 << 20
"""Bytes that a manifest may have: one of ours has about 700."""
_NAME = re.compile(r"step-([0-9]{8})")


class Damaged(Exception):
    """A checkpoint that is not as it was written, and why."""


def commit(
    folder: Path, step: int, files: Mapping[str, Content], run_id: str, parent: int | None = None
) -> Path:
    """Write one checkpoint; it is there whole or not at all.

    Args:
        folder: the run's `checkpoints`, made if it is not there.
        step: optimizer steps done.
        files: name -> content, which is gone through once to write it and once to hash it.
        run_id: the run it belongs to.
        parent: the step that this process resumed from, if any.

    Returns:
        The committed directory; the one that is there already if the same was saved before. Another one of this
        step is replaced: one that has been damaged, or one that was saved before the epoch's evaluation.
        Between the two renames of that, `clean` can put the old one back.

    Raises:
        EnvironmentFault: the disk refused.
    """
    path, aside, renamed = folder / f"step-{step:08d}", None, False
    temporary = folder / f".tmp-{step:08d}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        stages.reached("save")
        make_folder(folder)
        with ThreadPoolExecutor(1) as pool:  # sha256 lets other threads run: it goes on beside the disk
            digests = {name: pool.submit(_entry, content) for name, content in files.items()}
            if is_folder(path):
                health = _health(path)
                if health is not None and health["files"] == _results(digests):
                    return path
                prefix = ".del" if health is None else ".old"
                aside = folder / f"{prefix}-{step:08d}-{secrets.token_hex(4)}"
            temporary.mkdir()
            for name, content in files.items():
                write_new(temporary / name, content)
            manifest = _manifest(step, run_id, parent, _results(digests))
        write_new(temporary / MANIFEST, canonical_json(manifest))
        sync_folder(temporary)
        if aside is not None:
            os.rename(path, aside)
        os.rename(temporary, path)
        renamed = True
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            if aside is not None and aside.exists() and not path.exists():
                os.rename(aside, path)
        what = f"cannot write checkpoint at step {step}: {(error.strerror or str(error)).lower()}"
        # one that was renamed but not synced may be gone after a power cut
        raise EnvironmentFault(
            str(folder), f"{what}; {_last_good(folder, step if renamed else None)}"
        ) from error
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def _entry(content: Content) -> dict[str, Any]:
    """What a manifest says of a file."""
    size, digest = 0, hashlib.sha256()
    for piece in pieces(content):
        size += len(piece)
        digest.update(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _results(digests: Mapping[str, Future[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {name: digest.result() for name, digest in digests.items()}


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
    """Whether it is one, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def _health(path: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint that is whole; None for a damaged one."""
    try:
        verified(path)
        return manifest_of(path)
    except Damaged:
        return None


def steps(folder: Path) -> list[int]:
    """The steps of all committed checkpoints, ascending; other names and links are ignored."""
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
        Damaged: it is missing or is not a manifest.
        UserError: a newer mtl wrote it.
    """
    try:
        if plain_size(path / MANIFEST) > MANIFEST_LIMIT:
            raise Damaged(f"{MANIFEST}: larger than {MANIFEST_LIMIT} bytes")
        manifest = strict_json((path / MANIFEST).read_bytes())
        version, step = manifest["schema_version"], manifest["step"]
        for entry in manifest["files"].values():
            if type(entry["bytes"]) is not int or type(entry["sha256"]) is not str:
                raise ValueError("a file's size or sha256 has the wrong type")
    except OSError as error:
        raise Damaged(f"{MANIFEST}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST}: {_shown(str(error) or type(error).__name__)}") from None
    if type(version) is not int or type(step) is not int:
        raise Damaged(f"{MANIFEST}: schema_version is {quoted(version)}, step {quoted(step)}")
    if version > SCHEMA_VERSION:
        raise UserError(
            str(path),
            f"written by mtl {_shown(str(manifest.get('mtl', '?')))} (schema {version}), "
            f"this is {__version__} (schema {SCHEMA_VERSION})",
            "upgrade mtl",
        )
    if version < 1:
        raise Damaged(f"{MANIFEST}: schema_version is {quoted(version)}")
    if (match := _NAME.fullmatch(path.name)) and step != int(match[1]):
        raise Damaged(f"{MANIFEST}: is of step {quoted(step)}")
    return dict(manifest)


def _shown(text: str) -> str:
    return text if text.isprintable() and len(text) <= 80 else quoted(text)


def verified(path: Path, run_id: str | None = None) -> dict[str, Path]:
    """The files of one checkpoint by name, after each was read and found to be what the manifest says.

    Args:
        path: the checkpoint.
        run_id: the run that it must be of; None: of whichever.

    Raises:
        Damaged: a file is missing, is too many, or differs by a single bit; or it is of another run.
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
        raise Damaged(f"{_shown(name)}: {'not in the manifest' if name in present else 'missing'}")
    for name, (size, digest) in expected.items():
        try:
            if plain_size(path / name) != size:
                raise Damaged(f"{_shown(name)}: size differs")
            with (path / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Damaged(f"{_shown(name)}: {error.strerror or error}") from None
        if found != digest:
            raise Damaged(f"{_shown(name)}: sha256 differs")
    return {name: path / name for name in expected}


def size_of(path: Path) -> int:
    """Bytes of the files of one checkpoint, its manifest included; 0 for one that was deleted meanwhile."""
    try:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path))
    except OSError:
        return 0


@dataclass(frozen=True)
class Listed:
    """One checkpoint on disk; `fault` is what is wrong with it, if anything, `run_id` the run that it says it is of."""

    step: int
    size: int
    created: str
    fault: str
    run_id: str = ""


def listed(folder: Path) -> list[Listed]:
    """Every checkpoint of a run with its health, ascending; every byte is read."""
    found = []
    for step in steps(folder):
        path, fault, created, run_id = folder / f"step-{step:08d}", "", "", ""
        try:
            manifest = manifest_of(path)
            created, run_id = (str(manifest.get(key, ""))[:40] for key in ("created", "run_id"))
            verified(path)
        except Damaged as reason:
            fault = f"damaged ({reason})"
        except UserError as error:
            fault = error.what
        found.append(Listed(step, size_of(path), created, fault, run_id))
    return found


def newest(folder: Path, run_id: str) -> tuple[int, dict[str, Path], list[str]]:
    """The newest whole checkpoint of a run: its step, its files, and a line for each damaged one passed over.

    Raises:
        UserError: there is none.
    """
    warnings: list[str] = []
    all_steps = steps(folder)
    for step in reversed(all_steps):
        try:
            files = verified(folder / f"step-{step:08d}", run_id)
        except Damaged as reason:
            warnings.append(f"step-{step:08d} is damaged ({reason})")
            continue
        if warnings:
            warnings[-1] += f"; using step-{step:08d}"
        return step, files, warnings
    run = str(folder.parent)
    if not all_steps:
        raise UserError(run, "no checkpoint found")
    what = f"no usable checkpoint in {run if run.isprintable() else quoted(run)} ({len(all_steps)} damaged)"
    raise UserError("", what, f"see mtl checkpoints {run}")
