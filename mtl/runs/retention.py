"""This module deletes old checkpoints, sets later ones aside, and repairs interrupted saves and deletions."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mtl import stages
from mtl.errors import EnvironmentFault, UserError
from mtl.runs.checkpoint import Damaged, is_folder, manifest_of, steps
from mtl.runs.disk import move_folder, plain_size, sync_folder

ASIDE, DOOMED = "set-aside-", ".del-"
_REPLACED = re.compile(r"\.old-([0-9]{8})-[0-9a-f]{8}")


def retain(folder: Path, run_id: str, keep: int, protect: Iterable[int]) -> str | None:
    """Delete this run's checkpoints except the last `keep` and the protected ones; return a warning if that fails.

    A folder is deleted only if its manifest names this run. A damaged checkpoint does not count among the last `keep`,
    and is deleted once it is older than all of those.
    """
    try:
        stages.reached("retain")
        refused = _doom(folder, _old_steps(folder, run_id, keep, protect))
        refused = _delete_doomed(folder) or refused
    except OSError as error:
        refused = error.strerror or str(error)
    return refused and f"cannot delete an old checkpoint: {refused.lower()}"


def _old_steps(folder: Path, run_id: str, keep: int, protect: Iterable[int]) -> list[int]:
    """The steps of this run's checkpoints that are unprotected and older than the last `keep` whole ones."""
    health = {step: _is_of(folder / f"step-{step:08d}", run_id) for step in steps(folder)}
    own = [step for step, is_whole in health.items() if is_whole is not None]
    kept = [step for step in own if health[step]][-keep:]
    return sorted({step for step in own if kept and step < kept[0]}.difference(protect))


def _doom(folder: Path, old: Iterable[int]) -> str | None:
    """Rename old checkpoints before their deletion, so that a `step-*` folder is never half deleted.

    Returns:
        The error text of the disk, or None.
    """
    refused = None
    for step in old:
        doomed = folder / f"{DOOMED}{step:08d}-{secrets.token_hex(4)}"
        refused = _tried(move_folder, folder / f"step-{step:08d}", doomed) or refused
    return refused


def _delete_doomed(folder: Path) -> str | None:
    """Delete the renamed checkpoints, also those that an earlier call could not delete.

    Returns:
        The error text of the disk, or None.
    """
    refused, doomed = None, [name for name in sorted(os.listdir(folder)) if name.startswith(DOOMED)]
    if doomed:
        sync_folder(folder)  # otherwise a power cut may leave the old name with only a part of the files
    for name in doomed:
        if is_folder(folder / name):
            refused = _tried(shutil.rmtree, folder / name) or refused
    return refused


def _tried(delete: Callable[..., object], *paths: Path) -> str | None:
    """Call `delete`, and return the error text of the disk, or None."""
    try:
        delete(*paths)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _is_of(path: Path, run_id: str) -> bool | None:
    """Whether the files of this run's checkpoint have the sizes in its manifest; None for any other folder."""
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
    """The folders that `set_aside` has made, each with its size in bytes."""
    return [
        (path, sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir()))
        for path in sorted(folder.glob(f"{ASIDE}*"))
    ]


def set_aside(folder: Path, step: int) -> None:
    """Move the checkpoints after `step` into a folder of their own, since the run goes on from an older one.

    The newest is moved first, so that a power cut leaves the older ones in place. All moves are synced when this
    function returns. Only then may the caller cut the logs: if a power cut undid a move later, that checkpoint would
    rely on lines that are gone.

    Raises:
        EnvironmentFault: the disk refused.
    """
    later = [other for other in steps(folder) if other > step]
    if not later:
        return
    place = folder / f"{ASIDE}{secrets.token_hex(4)}"
    try:
        os.mkdir(place)
        sync_folder(folder)  # the target of the renames has to exist first
        for other in reversed(later):
            move_folder(folder / f"step-{other:08d}", place / f"step-{other:08d}")
        sync_folder(place)
        sync_folder(folder)
    except OSError as error:
        with suppress(OSError):
            os.rmdir(place)  # it stays if something was moved there
        what = f"later checkpoints cannot be set aside: {(error.strerror or str(error)).lower()}"
        raise EnvironmentFault(str(folder), what) from error


def clean(folder: Path) -> None:
    """Repair the leftovers of interrupted saves and deletions; the caller must hold the run.

    Raises:
        EnvironmentFault: a replaced checkpoint cannot be put back, or this user may not write to the folder.
    """
    if not folder.is_dir():
        return
    if not os.access(folder, os.W_OK):  # the user learns this now, not at the first save
        raise EnvironmentFault(str(folder), "checkpoints cannot be written there: permission denied")
    for entry in list(os.scandir(folder)):
        replaced = _REPLACED.fullmatch(entry.name)
        if not entry.is_dir(follow_symlinks=False):
            continue
        if replaced and not (folder / f"step-{replaced[1]}").exists():
            _put_back(Path(entry.path), folder / f"step-{replaced[1]}")
        elif replaced or entry.name.startswith((".tmp-", DOOMED)):
            shutil.rmtree(entry.path, ignore_errors=True)


def _put_back(old: Path, path: Path) -> None:
    """Give a checkpoint its old name, since the new one never took its place."""
    fault = _tried(move_folder, old, path)
    if fault is not None:
        raise EnvironmentFault(str(old), f"cannot be put back: {fault.lower()}")
