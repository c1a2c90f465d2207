"""Checkpoints on disk: a directory committed by one rename, with a manifest of sha256 digests.

No file is ever overwritten. A save makes `.tmp-<step>-<pid>-<random>`, writes and syncs each file, the
manifest last, syncs the directory, renames it to `step-<8 digits>` and syncs the parent. Whatever interrupts
it, each `step-*` folder that exists is whole, and loading checks every byte of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any

from mtl import __version__
from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.training import failpoints

SCHEMA_VERSION = 2
"""Of the manifest and the state: 2 since a checkpoint may lie within an epoch."""
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 1 << 20
"""Bytes that a manifest may have: one of ours has about 700."""
ASIDE = "set-aside-"
_NAME = re.compile(r"step-([0-9]{8})")
_REPLACED = re.compile(r"\.old-([0-9]{8})-[0-9a-f]{8}")


class Damaged(Exception):
    """A checkpoint that is not as it was written, and why."""


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and without infinite numbers: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def strict_json(data: bytes) -> Any:
    """Parse JSON, refusing NaN, infinity, numbers too large for a float and keys given twice.

    Raises:
        ValueError: the bytes are not such JSON.
    """

    def finite(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"{text[:40]} is too large")
        return value

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a key is given twice")
        return values

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not allowed")

    text = data.decode("utf-8")
    return json.loads(text, object_pairs_hook=distinct, parse_constant=refuse, parse_float=finite)


def commit(
    folder: Path, step: int, files: Mapping[str, bytes], run_id: str, parent: int | None = None
) -> Path:
    """Write one checkpoint; it is there whole or not at all.

    Args:
        folder: the run's `checkpoints`, made if it is not there.
        step: optimizer steps done.
        files: name -> content.
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
        failpoints.hit("save")
        make_folder(folder)
        with ThreadPoolExecutor(1) as pool:  # sha256 lets other threads run: it goes on beside the disk
            digests = {name: pool.submit(_entry, data) for name, data in files.items()}
            if _is_folder(path):
                health = _health(path)
                if health is not None and health["files"] == _results(digests):
                    return path
                prefix = ".del" if health is None else ".old"
                aside = folder / f"{prefix}-{step:08d}-{secrets.token_hex(4)}"
            temporary.mkdir()
            for name, data in files.items():
                _write(temporary / name, data)
            manifest = _manifest(step, run_id, parent, _results(digests))
        _write(temporary / MANIFEST, canonical_json(manifest))
        _sync(temporary)
        if aside is not None:
            os.rename(path, aside)
        os.rename(temporary, path)
        renamed = True
        _sync(folder)
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


def _entry(data: bytes) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


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


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _health(path: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint that is whole; None for a damaged one."""
    try:
        read(path)
        return manifest_of(path)
    except Damaged:
        return None


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
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
        _sync(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a small file so that a reader sees the old bytes or the new ones, never a part."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        _write(temporary, data)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise EnvironmentFault(
            str(path), f"cannot write: {(error.strerror or str(error)).lower()}"
        ) from error


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


def plain_size(path: Path) -> int:
    """Bytes of a file that is no link, pipe or device: reading one of those may never end.

    Raises:
        OSError: it is one of them, or is not there.
    """
    info = path.lstat()
    if not S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")
    return info.st_size


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of one checkpoint, brought up to this schema in memory.

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


def read(path: Path) -> dict[str, bytes]:
    """The files of one checkpoint, each checked against the manifest.

    Raises:
        Damaged: a file is missing, is too many, or differs by a single bit.
        UserError: a newer mtl wrote it.
    """
    manifest = manifest_of(path)
    expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    try:
        present = set(os.listdir(path)) - {MANIFEST}
    except OSError as error:
        raise Damaged(f"cannot be listed: {error.strerror or error}") from None
    for name in sorted(present ^ set(expected)):
        raise Damaged(f"{_shown(name)}: {'not in the manifest' if name in present else 'missing'}")
    files = {}
    for name, (size, digest) in expected.items():
        try:
            if plain_size(path / name) != size:
                raise Damaged(f"{_shown(name)}: size differs")
            data = (path / name).read_bytes()
        except OSError as error:
            raise Damaged(f"{_shown(name)}: {error.strerror or error}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise Damaged(f"{_shown(name)}: sha256 differs")
        files[name] = data
    return files


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
            read(path)
        except Damaged as reason:
            fault = f"damaged ({reason})"
        except UserError as error:
            fault = error.what
        size = sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path))
        found.append(Listed(step, size, created, fault, run_id))
    return found


def newest(folder: Path) -> tuple[int, dict[str, bytes], list[str]]:
    """The newest checkpoint that is whole: its step, its files, and a line for each damaged one passed over.

    Raises:
        UserError: there is none.
    """
    warnings: list[str] = []
    all_steps = steps(folder)
    for step in reversed(all_steps):
        try:
            files = read(folder / f"step-{step:08d}")
        except Damaged as reason:
            warnings.append(f"step-{step:08d} is damaged ({reason})")
            continue
        if warnings:
            warnings[-1] += f"; using step-{step:08d}"
        return step, files, warnings
    run = str(folder.parent)
    if not all_steps:
        raise UserError(run, "no checkpoint found")
    raise UserError(run, f"no usable checkpoint ({len(all_steps)} damaged)", f"see mtl checkpoints {run}")


def retain(folder: Path, run_id: str, keep: int, protect: Iterable[int]) -> str | None:
    """Delete all of this run's checkpoints but the last `keep` and the protected; a warning if that fails.

    Only folders that are checkpoints of this run by their manifest are deleted. A damaged one counts for nothing, and
    is deleted once it is older than those that are kept.
    """
    warning = None
    try:
        failpoints.hit("retain")
        own = {
            step: is_whole
            for step in steps(folder)
            if (is_whole := _is_of(folder / f"step-{step:08d}", run_id)) is not None
        }
        kept = [step for step, is_whole in own.items() if is_whole][-keep:]
        for step in sorted({step for step in own if kept and step < kept[0]}.difference(protect)):
            doomed = folder / f".del-{step:08d}-{secrets.token_hex(4)}"
            warning = _tried(os.rename, folder / f"step-{step:08d}", doomed) or warning
        doomed_now = [name for name in sorted(os.listdir(folder)) if name.startswith(".del-")]
        if doomed_now:
            _sync(folder)  # or a power cut may leave the old name, and a part of the files
        for name in doomed_now:  # also what an earlier time could not delete
            if _is_folder(folder / name):
                warning = _tried(shutil.rmtree, folder / name) or warning
    except OSError as error:
        warning = error.strerror or str(error)
    return warning and f"cannot delete an old checkpoint: {warning.lower()}"


def _tried(delete: Callable[..., object], *paths: Path) -> str | None:
    """What the disk said against it, if it did."""
    try:
        delete(*paths)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _is_of(path: Path, run_id: str) -> bool | None:
    """Whether a checkpoint of this run has files of the sizes that its manifest gives; None for any other folder."""
    try:
        manifest = manifest_of(path)
    except (Damaged, UserError):
        return None
    if manifest.get("run_id") != run_id:
        return None
    try:
        return all(plain_size(path / name) == entry["bytes"] for name, entry in manifest["files"].items())
    except OSError:
        return False


def set_aside_folders(folder: Path) -> list[tuple[Path, int]]:
    """What `set_aside` has made, with the bytes in each."""
    return [
        (path, sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir()))
        for path in sorted(folder.glob(f"{ASIDE}*"))
    ]


def set_aside(folder: Path, step: int) -> None:
    """Move the checkpoints after `step` into a folder of their own: the run goes on from an older one."""
    later = [other for other in steps(folder) if other > step]
    if later:
        place = folder / f"{ASIDE}{secrets.token_hex(4)}"
        place.mkdir()
        for other in later:
            os.rename(folder / f"step-{other:08d}", place / f"step-{other:08d}")


def clean(folder: Path) -> None:
    """Put right what interrupted saves and deletions left behind; only for the process that holds the run.

    Raises:
        EnvironmentFault: a checkpoint that was to be replaced cannot be put back.
    """
    if not folder.is_dir():
        return
    for entry in list(os.scandir(folder)):
        if not entry.is_dir(follow_symlinks=False):
            continue
        replaced = _REPLACED.fullmatch(entry.name)
        if (
            replaced and not (folder / f"step-{replaced[1]}").exists()
        ):  # the new one was never put in its place
            fault = _tried(os.rename, Path(entry.path), folder / f"step-{replaced[1]}")
            if fault is not None:
                raise EnvironmentFault(entry.path, f"cannot be put back: {fault.lower()}")
        elif replaced or entry.name.startswith((".tmp-", ".del-")):
            shutil.rmtree(entry.path, ignore_errors=True)
