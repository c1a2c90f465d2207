"""The run folder: its recipe, record, logs, checkpoints and plots, and the lock on it."""

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
from mtl.runs.disk import make_folder, read_plain, require_own, sync_folder, write_whole
from mtl.runs.lock import LOCK, RunLock
from mtl.runs.logs import RunLogs
from mtl.runs.record import Change, RunRecord, read_record, unreadable

RECORD, RESOLVED, DIVERGED = "run.json", "recipe.resolved.yaml", "diverged.json"
LINKS = "links.json"
"""What `mtl sharing` measured; a run without it was not asked."""
SIBLINGS = 1000
"""If a path is not a run, at most this many folders beside it are searched for a similar name."""

_LEFTOVER = re.compile(
    r"\..+\.(json|csv|yaml|jsonl|html)-[0-9]+-[0-9a-f]{8}"
)  # an interrupted `write_whole` leaves it
_BEGUN = re.compile(r"\.lock|recipe(\.resolved)?\.yaml|" + _LEFTOVER.pattern)


def require_unused(path: Path) -> None:
    """Refuse a path at which no run can begin; nothing is made.

    Raises:
        UserError: a run is there already, or a folder with other files than those of a run that never began.
    """
    if (path / RECORD).exists():
        raise UserError(str(path), "a run is there already", f"mtl run --resume {path}, or another --out")
    if path.is_dir() and any(not _BEGUN.fullmatch(entry.name) for entry in path.iterdir()):
        raise UserError(str(path), "the folder is not empty", "give another --out")


class RunFolder:
    """One run on disk, which at most one process holds at a time.

    Args:
        path: the folder.
        record: the content of run.json; after a change the caller calls `save_record`.
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
        """Make a run folder and hold it; without a path it is `runs/<recipe>/<utc>-<suffix>`.

        Raises:
            UserError: the folder holds a run already, or another process is about to begin one there.
            EnvironmentFault: the folder cannot be made.
        """
        path = path or new_place(Path("runs", recipe.name))
        run = cls(path, record)
        try:
            run._make_room()
            run.hold()  # the lock comes before the record: if two runs begin here, one is refused
            run._make_room()
            for entry in path.iterdir():  # a run that was killed before its record may have left files
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
        """Make the folder; an existing one may hold only the files of a run that never began."""
        require_unused(self.path)
        make_folder(self.path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run.

        Raises:
            UserError: there is no run, its run.json cannot be read, or its lock is not a file.
        """
        try:
            run = cls(path, read_record(path / RECORD))
        except (FileNotFoundError, NotADirectoryError):
            raise _no_run(path) from None
        run._lock.require_own()
        return run

    def hold(self) -> None:
        """Take the run's lock until `release` or the end of the process; if this object has it, nothing happens.

        Raises:
            UserError: another process has the lock, or a log or folder of the run is a link or something else.
        """
        self._require_own()
        self._lock.take()
        self.logs.unshare()

    def require_held(self) -> None:
        """Require that this process still holds the folder that it took; without a lock, nothing is required.

        Raises:
            EnvironmentFault: the folder was moved, or its lock was removed.
        """
        self._lock.require_held()

    def _require_own(self) -> None:
        """Require that the run writes its files into this folder.

        Raises:
            UserError: a log or a folder of the run is a link or something else.
        """
        self.logs.require_own()
        for folder in (self.checkpoints, self.plots):
            require_own(folder, S_ISDIR)

    def require_free(self) -> None:
        """Check that `hold` would succeed; this neither takes the lock nor makes a file.

        Raises:
            UserError: as in `hold`.
            EnvironmentFault: this user may not write to the folder.
        """
        self._require_own()
        self._lock.require_free()
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise EnvironmentFault(str(self.path), "cannot be written to")

    def standing(self) -> tuple[str, int]:
        """The current status and step of the run, which may differ from run.json; this writes nothing.

        The status is `running` while a process holds the lock. If run.json says `running` and no process holds the
        lock, the status is `crashed`: the process was killed, or its machine failed. A run that waits to go on is at
        the step of its newest checkpoint. A running run is at that step or at the step in run.json, whichever is
        later; run.json changes once a minute and at the end of an epoch.
        """
        held = self._lock.taken()
        if self.record.status == "running" and held is False:
            self.reread()  # a run that ends writes run.json before it releases the lock
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
        """Release the lock."""
        self._lock.release()

    def reread(self) -> None:
        """Read the record again from run.json, which another process may have changed."""
        self.record = read_record(self.path / RECORD)

    def save_record(self) -> None:
        """Write the current record to run.json."""
        self.record.model_sha256 = self.record.model.sha256()
        # keys keep their order, since towers and results appear in the order of the recipe
        text = json.dumps(self.record.plain(), indent=1, allow_nan=False) + "\n"
        write_whole(self.path / RECORD, text.encode())

    def recipe(self) -> Path:
        """The resolved recipe of the run.

        Raises:
            UserError: the file is missing, or differs from what the run wrote.
        """
        path = self.path / RESOLVED
        try:
            digest = hashlib.sha256(read_plain(path)).hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(str(self.path), f"has no {quoted(RESOLVED)}") from None
        except OSError as error:
            raise unreadable(path, error) from None
        if digest not in self.record.resolved_sha256:
            what = f"{RESOLVED} is not as the run wrote it"
            raise UserError(str(self.path), what, "put it back, or start a new run")
        return path

    def change_recipe(self, text: str, changed: Sequence[str]) -> None:
        """Replace the recipe of the run; run.json keeps the changes and their step."""
        content, record = text.encode(), self.record
        record.resolved_sha256 = [*record.resolved_sha256, hashlib.sha256(content).hexdigest()]
        record.changes = [*(record.changes or ()), Change(step=record.step, changed=list(changed))]
        self.save_record()  # the record comes first: it then accepts the old text and the new one
        write_whole(self.path / RESOLVED, content)

    def remove_leftovers(self) -> None:
        """Delete the temporary files of interrupted writes; the caller must hold the run."""
        for path in self.path.iterdir():
            if _LEFTOVER.fullmatch(path.name) and (path.is_symlink() or not path.is_dir()):
                path.unlink()


def is_chain(folder: Path) -> bool:
    """Whether a folder holds the phases of a recipe: the recipe, and run folders in place of a record."""
    return not (folder / RECORD).exists() and (folder / RESOLVED).is_file()


def last_phase(folder: Path) -> Path:
    """The run of the last phase, if a folder holds the phases of a recipe (`1-<name>`, `2-<name>`); else the folder."""
    if not is_chain(folder):
        return folder
    phases = [
        path.parent for path in folder.glob(f"*/{RECORD}") if path.parent.name.split("-")[0].isdecimal()
    ]
    return max(phases, key=lambda path: int(path.name.split("-")[0]), default=folder)


def new_place(folder: Path) -> Path:
    """Make a new folder `<utc>-<suffix>` in `folder`, which no other process that starts at the same moment has.

    Raises:
        EnvironmentFault: the folder cannot be made.
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
    """The error for a path that is not a run; it suggests a run with a similar name."""
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
