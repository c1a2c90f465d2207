"""The run folder: recipe, records, logs, checkpoints, plots; and who holds it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from mtl.errors import EnvironmentFault, UserError, did_you_mean, quoted
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import to_yaml
from mtl.runs import checkpoint, logs
from mtl.runs.disk import make_folder, require_own, sync_folder, write_whole
from mtl.runs.lock import LOCK, RunLock
from mtl.runs.logs import METRICS
from mtl.runs.logs import TIMINGS as TIMINGS
from mtl.runs.record import SCHEMA_VERSION, digest_of_model, read_lines, read_record

RECORD, RESOLVED, DIVERGED = "run.json", "recipe.resolved.yaml", "diverged.json"
SIBLINGS = 1000
"""Folders beside a path that is no run, among which a misspelt one is looked for."""

_LEFTOVER = re.compile(r"\..+\.(json|csv|yaml|jsonl)-[0-9]+-[0-9a-f]{8}")  # of an interrupted `write_whole`
_BEGUN = re.compile(r"\.lock|recipe(\.resolved)?\.yaml|" + _LEFTOVER.pattern)


class RunFolder:
    """One run on disk, held by one process at a time.

    Args:
        path: the folder.
        record: the content of run.json.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, record
        self._lock = RunLock(path)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @classmethod
    def create(cls, path: Path | None, recipe: Recipe, facts: Mapping[str, Any]) -> RunFolder:
        """A new folder, held; `runs/<recipe>/<utc>-<suffix>` where no path is given.

        Raises:
            UserError: a run is there already, or another process is about to begin one.
            EnvironmentFault: the folder cannot be made.
        """
        path = path or _unused(Path("runs", recipe.name))
        run = cls(path, _first_record(recipe, facts))
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
        logs.require_own_logs(self.path)
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
        said, held = self._said_and_held()
        step = self.record.get("step", 0)
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

    def _said_and_held(self) -> tuple[str, bool | None]:
        """The status of run.json, and whether the lock is held; None where that cannot be known."""
        said, held = self.record.get("status", ""), self._lock.taken()
        if (
            said == "running" and held is False
        ):  # it may just have ended: its last word comes before the lock goes
            self.record = read_record(self.path / RECORD)
            said = self.record.get("status", "")
        return said, held

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def save_record(self, **facts: Any) -> None:
        """Bring run.json up to date."""
        self.record.update(facts)
        if "model" in self.record:
            self.record["model_sha256"] = digest_of_model(self.record)
        # keys stay in their order: towers and results are shown in the recipe's
        text = json.dumps(self.record, indent=1, allow_nan=False) + "\n"
        write_whole(self.path / RECORD, text.encode())

    def change_recipe(self, text: str, changed: Sequence[str]) -> None:
        """Go on under another recipe; run.json keeps what changed, and at which step."""
        content = text.encode()
        digests = [*self.record.get("resolved_sha256", []), hashlib.sha256(content).hexdigest()]
        notes = [*self.record.get("changes", []), {"step": self.record["step"], "changed": list(changed)}]
        self.save_record(resolved_sha256=digests, changes=notes)  # first: either text is then the run's own
        write_whole(self.path / RESOLVED, content)

    def log(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append lines to one of the logs.

        Raises:
            EnvironmentFault: the disk refused.
        """
        logs.append(self.path / name, rows)

    def rows(self, name: str = METRICS) -> list[dict[str, Any]]:
        """The lines of a log; a last line that was cut by a crash is left out.

        Raises:
            UserError: another line is not what a run writes.
        """
        return read_lines(self.path / name)

    def offsets(self) -> dict[str, int]:
        """The length of each log in bytes, all of them on the disk: a checkpoint is about to rely on it.

        Raises:
            EnvironmentFault: the disk cannot say that they are.
        """
        return logs.synced_lengths(self.path)

    def require_logs(self, offsets: Mapping[str, int]) -> None:
        """The logs hold at least what a checkpoint counts on.

        Raises:
            UserError: one has lost lines, or has others than a run writes.
        """
        logs.require_whole(self.path, offsets)

    def cut_logs(self, offsets: Mapping[str, int], epoch: int) -> None:
        """Put the logs back to where a checkpoint was; later lines belong to epochs that are run again.

        Raises:
            UserError: a log has lost lines that the checkpoint counts on.
        """
        logs.cut(self.path, offsets, epoch)
        for path in self.path.iterdir():
            if _LEFTOVER.fullmatch(path.name) and (path.is_symlink() or not path.is_dir()):
                path.unlink()

    def write_csv(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """metrics.csv: one row per evaluation, a column per metric without its split."""
        logs.write_csv(self.path / "metrics.csv", rows)


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Versions and machine, as run.json records them."""
    import numpy
    import torch

    from mtl import __version__

    return {
        "mtl": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _first_record(recipe: Recipe, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "id": str(uuid.uuid4()),
        "name": recipe.name,
        "status": "running",
        "started": _now(),
        "recipe_sha256": recipe.sha256(),
        "resolved_sha256": [hashlib.sha256(to_yaml(recipe).encode()).hexdigest()],
        **facts,
    }


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


def list_runs(root: Path, refused: Callable[[UserError], object] = lambda error: None) -> list[RunFolder]:
    """Every run below `root`, at most three levels down, oldest first; `refused` hears of those that are damaged."""
    found = []
    for pattern in (RECORD, f"*/{RECORD}", f"*/*/{RECORD}"):
        for path in sorted(root.glob(pattern)):
            try:
                found.append(RunFolder.open(path.parent))
            except UserError as error:
                refused(error)
    return sorted(found, key=lambda run: str(run.record.get("started", "")))


def recipe_of(run: RunFolder) -> Path:
    """The resolved recipe of a run.

    Raises:
        UserError: it is not there.
    """
    path = run.path / RESOLVED
    if not path.is_file():
        raise UserError(str(run.path), f"has no {quoted(RESOLVED)}")
    known = run.record.get("resolved_sha256", ())
    if known and hashlib.sha256(path.read_bytes()).hexdigest() not in known:
        raise UserError(
            str(run.path), f"{RESOLVED} is not as the run wrote it", "put it back, or start a new run"
        )
    return path
