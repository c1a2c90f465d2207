"""The run folder: recipe, records, logs, checkpoints, plots; and who holds it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from stat import S_ISDIR

from mtl.errors import EnvironmentFault, UserError, did_you_mean, quoted
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import to_yaml
from mtl.runs import checkpoint
from mtl.runs.disk import make_folder, require_own, sync_folder, write_whole
from mtl.runs.lock import LOCK, RunLock
from mtl.runs.logs import RunLogs
from mtl.runs.record import Change, RunRecord, read_record

RECORD, RESOLVED, DIVERGED = "run.json", "recipe.resolved.yaml", "diverged.json"
SIBLINGS = 1000
"""Folders beside a path that is no run, among which a misspelt one is looked for."""

_LEFTOVER = re.compile(r"\..+\.(json|csv|yaml|jsonl)-[0-9]+-[0-9a-f]{8}")  # of an interrupted `write_whole`
_BEGUN = re.compile(r"\.lock|recipe(\.resolved)?\.yaml|" + _LEFTOVER.pattern)


class RunFolder:
    """One run on disk, held by one process at a time.

    Args:
        path: the folder.
        record: the content of run.json; who changes it calls `save_record`.
    """

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path, self.record, self.logs = path, record, RunLogs(path)
        self._lock = RunLock(path)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        """The folder of the pictures."""
        return self.path / "plots"

    @classmethod
    def create(cls, path: Path | None, recipe: Recipe, record: RunRecord) -> RunFolder:
        """A new folder, held; `runs/<recipe>/<utc>-<suffix>` where no path is given.

        Raises:
            UserError: a run is there already, or another process is about to begin one.
            EnvironmentFault: the folder cannot be made.
        """
        path = path or _unused(Path("runs", recipe.name))
        run = cls(path, record)
        try:
            run._make_room()
            run.hold()  # before the record: of two that begin here, one is refused
            run._make_room()
            for entry in path.iterdir():  # of a run that was killed before it had begun
                if entry.name != LOCK:
                    entry.unlink()
            write_whole(path / "recipe.yaml", recipe.text or to_yaml(recipe).encode())
            write_whole(path / RESOLVED, to_yaml(recipe).encode())
            run.save_record()
        except OSError as error:
            run.release()
            raise _cannot_make(path, error) from error
        except BaseException:
            run.release()
            raise
        return run

    def _make_room(self) -> None:
        """Make the folder, or find it with nothing in it but what a run that never began has left."""
        if (self.path / RECORD).exists():
            todo = f"mtl run --resume {self.path}, or another --out"
            raise UserError(str(self.path), "a run is there already", todo)
        make_folder(self.path)
        if any(not _BEGUN.fullmatch(entry.name) for entry in self.path.iterdir()):
            raise UserError(str(self.path), "the folder is not empty", "give another --out")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run that is there.

        Raises:
            UserError: it is not, its run.json cannot be read, or its lock is no file.
        """
        try:
            run = cls(path, read_record(path / RECORD))
        except (FileNotFoundError, NotADirectoryError):
            raise _no_run(path) from None
        run._lock.require_own()
        return run

    def hold(self) -> None:
        """Take the run's lock until `release` or the end of the process; nothing if it is held already.

        Raises:
            UserError: another process has it, or what the run writes would not lie in its folder.
        """
        self._require_own()
        self._lock.take()

    def _require_own(self) -> None:
        """What is written later lies in this folder.

        Raises:
            UserError: a log or a folder is a link, or something else.
        """
        self.logs.require_own()
        for folder in (self.checkpoints, self.plots):
            require_own(folder, S_ISDIR)

    def require_free(self) -> None:
        """As `hold`, but takes and makes nothing.

        Raises:
            UserError: as `hold`.
            EnvironmentFault: the folder is not ours to write to.
        """
        self._require_own()
        self._lock.require_free()
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise EnvironmentFault(str(self.path), "cannot be written to")

    def standing(self) -> tuple[str, int]:
        """Status and step as they are now, whatever run.json says; writes nothing.

        A run is `running` while a process holds its lock. One that is said to run and is held by nobody `crashed`: it
        was killed, or lost its machine. The step of a run that waits to go on is that of its newest checkpoint; of one
        that runs, the later of that and run.json's, which changes at an epoch's end.
        """
        held = self._lock.taken()
        if self.record.status == "running" and held is False:
            self.reread()  # the run may just have ended: its last word comes before the lock goes
        said, step = self.record.status, self.record.step
        if said == "finished":
            return said, step
        with suppress(OSError):
            saved = max(checkpoint.steps(self.checkpoints), default=0)
            step = max(step, saved) if held else saved
        if held:
            return "running", step
        if said == "running":
            return ("unknown" if held is None else "crashed"), step
        return said, step

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def reread(self) -> None:
        """Take the record anew from run.json, which another process may have changed."""
        self.record = read_record(self.path / RECORD)

    def save_record(self) -> None:
        """Write the record as it is now to run.json."""
        self.record.model_sha256 = self.record.model.sha256()
        # keys stay in their order: towers and results are shown in the recipe's
        text = json.dumps(self.record.plain(), indent=1, allow_nan=False) + "\n"
        write_whole(self.path / RECORD, text.encode())

    def recipe(self) -> Path:
        """The resolved recipe of the run.

        Raises:
            UserError: it is not there, or is not as the run wrote it.
        """
        path = self.path / RESOLVED
        if not path.is_file():
            raise UserError(str(self.path), f"has no {quoted(RESOLVED)}")
        if hashlib.sha256(path.read_bytes()).hexdigest() not in self.record.resolved_sha256:
            what = f"{RESOLVED} is not as the run wrote it"
            raise UserError(str(self.path), what, "put it back, or start a new run")
        return path

    def change_recipe(self, text: str, changed: Sequence[str]) -> None:
        """Go on under another recipe; run.json keeps what changed, and at which step."""
        content, record = text.encode(), self.record
        record.resolved_sha256 = [*record.resolved_sha256, hashlib.sha256(content).hexdigest()]
        record.changes = [*(record.changes or ()), Change(step=record.step, changed=list(changed))]
        self.save_record()  # first: either text is then the run's own
        write_whole(self.path / RESOLVED, content)

    def remove_leftovers(self) -> None:
        """Delete the temporary files of writes that were interrupted; only for the process that holds the run."""
        for path in self.path.iterdir():
            if _LEFTOVER.fullmatch(path.name) and (path.is_symlink() or not path.is_dir()):
                path.unlink()


def _unused(folder: Path) -> Path:
    """A new folder `<utc>-<suffix>` in `folder`, made by this process and no other that starts at the same moment.

    Raises:
        EnvironmentFault: it cannot be made.
    """
    try:
        make_folder(folder)
        while True:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            path = folder / f"{stamp}-{secrets.token_hex(2)}"
            with suppress(FileExistsError):
                path.mkdir()
                sync_folder(folder)
                return path
    except OSError as error:
        raise _cannot_make(folder, error) from error


def _cannot_make(folder: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        str(folder), f"cannot make the run folder: {(error.strerror or str(error)).lower()}"
    )


def _no_run(path: Path) -> UserError:
    """What is wrong with a path that is no run, and which one may have been meant."""
    if not path.exists():
        near = did_you_mean(path.name, _runs_in(path.parent))
        return UserError(str(path), f"no checkpoint found: no such folder{near}")
    if not path.is_dir():
        return UserError(str(path), "no checkpoint found: it is a file, not the folder of a run")
    above = next((folder for folder in path.absolute().parents if (folder / RECORD).is_file()), None)
    if above is not None:
        return UserError(str(path), f"is inside a run, and no run itself; give {os.path.relpath(above)}")
    below = _runs_in(path)
    todo = f"it has runs in it: mtl runs {path}" if below else ""
    return UserError(str(path), f"no checkpoint found: it has no {RECORD}, so it is no run", todo)


def _runs_in(folder: Path) -> list[str]:
    with suppress(OSError):
        return [e.name for e in islice(folder.iterdir(), SIBLINGS) if (e / RECORD).is_file()]
    return []
