"""Which checkpoints stay: deleting old ones, setting later ones aside, and putting right what was interrupted."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from mtl import stages
from mtl.errors import EnvironmentFault, UserError
from mtl.runs.checkpoint import Damaged, is_folder, manifest_of, steps
from mtl.runs.disk import plain_size, sync_folder

ASIDE, DOOMED = "set-aside-", ".del-"
_REPLACED = re.compile(r"\.old-([0-9]{8})-[0-9a-f]{8}")


def retain(folder: Path, run_id: str, keep: int, protect: Iterable[int]) -> str | None:
    """Delete all of this run's checkpoints but the last `keep` and the protected; a warning if that fails.

    Only folders that are checkpoints of this run by their manifest are deleted. A damaged one counts for nothing, and
    is deleted once it is older than those that are kept.
    """
    try:
        stages.reached("retain")
        refused = _doom(folder, _old_steps(folder, run_id, keep, protect))
        refused = _delete_doomed(folder) or refused
    except OSError as error:
        refused = error.strerror or str(error)
    return refused and f"cannot delete an old checkpoint: {refused.lower()}"


def _old_steps(folder: Path, run_id: str, keep: int, protect: Iterable[int]) -> list[int]:
    """The steps of this run's checkpoints that are neither among the last `keep` whole ones nor protected."""
    health = {step: _is_of(folder / f"step-{step:08d}", run_id) for step in steps(folder)}
    own = [step for step, is_whole in health.items() if is_whole is not None]
    kept = [step for step in own if health[step]][-keep:]
    return sorted({step for step in own if kept and step < kept[0]}.difference(protect))


def _doom(folder: Path, old: Iterable[int]) -> str | None:
    """Rename checkpoints, so that none of them is half deleted under its own name; what the disk said against it."""
    refused = None
    for step in old:
        doomed = folder / f"{DOOMED}{step:08d}-{secrets.token_hex(4)}"
        refused = _tried(os.rename, folder / f"step-{step:08d}", doomed) or refused
    return refused


def _delete_doomed(folder: Path) -> str | None:
    """Delete what was renamed, now or at an earlier time that could not delete it; what the disk said against it."""
    refused, doomed = None, [name for name in sorted(os.listdir(folder)) if name.startswith(DOOMED)]
    if doomed:
        sync_folder(folder)  # or a power cut may leave the old name, and a part of the files
    for name in doomed:
        if is_folder(folder / name):
            refused = _tried(shutil.rmtree, folder / name) or refused
    return refused


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
    """Move the checkpoints after `step` into a folder of their own: the run goes on from an older one.

    The newest goes first, so that those which a power cut leaves are older ones; the logs are cut once all of it is
    on the disk, or a checkpoint that came back would count on lines that are gone.

    Raises:
        EnvironmentFault: the disk refused.
    """
    later = [other for other in steps(folder) if other > step]
    if not later:
        return
    place = folder / f"{ASIDE}{secrets.token_hex(4)}"
    try:
        os.mkdir(place)
        sync_folder(folder)  # before the renames: their target has to be there
        for other in reversed(later):
            os.rename(folder / f"step-{other:08d}", place / f"step-{other:08d}")
        sync_folder(place)
        sync_folder(folder)
    except OSError as error:
        what = f"later checkpoints cannot be set aside: {(error.strerror or str(error)).lower()}"
        raise EnvironmentFault(str(folder), what) from error


def clean(folder: Path) -> None:
    """Put right what interrupted saves and deletions left behind; only for the process that holds the run.

    Raises:
        EnvironmentFault: a checkpoint that was to be replaced cannot be put back, or none can be saved there.
    """
    if not folder.is_dir():
        return
    if not os.access(folder, os.W_OK):  # told now rather than at the first save
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
    """Give a checkpoint its name again: the new one never took its place."""
    fault = _tried(os.rename, old, path)
    if fault is not None:
        raise EnvironmentFault(str(old), f"cannot be put back: {fault.lower()}")
