"""The run folder: recipe, records, logs, checkpoints, plots."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import secrets
import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO, Any

from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.recipe.load import to_yaml
from mtl.recipe.schema import Recipe
from mtl.training import failpoints
from mtl.training.checkpoint import make_folder, plain_size, strict_json, write_whole

SCHEMA_VERSION = 1
RECORD, RESOLVED, DIVERGED = "run.json", "recipe.resolved.yaml", "diverged.json"
LOGS = ("metrics.jsonl", "alpha.jsonl")
TIMINGS = "timings.jsonl"  # has clocks in it, so its length is no part of a state that repeats

TYPES = {
    **dict.fromkeys(("id", "name", "status", "device"), str),
    **dict.fromkeys(("step", "epoch", "threads"), int),
    **dict.fromkeys(("data", "model", "results", "environment", "towers", "classes"), dict),
    "plugins": list,
}
"""What run.json holds under some of its keys."""

_LEFTOVER = re.compile(r"\..+\.(json|csv|yaml|jsonl)-[0-9]+-[0-9a-f]{8}")  # of an interrupted `write_whole`
_BEGUN = re.compile(r"recipe(\.resolved)?\.yaml|" + _LEFTOVER.pattern)


class _Record(dict[str, Any]):
    """The content of a run.json that was read: a key that it should have is named when it is missed."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise UserError(str(self.path), f"has no {quoted(key)}", "put back the one that the run wrote")


class RunFolder:
    """One run on disk, held by one process at a time.

    Args:
        path: the folder.
        record: the content of run.json.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, record
        self._lock: IO[bytes] | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @classmethod
    def create(cls, path: Path | None, recipe: Recipe, facts: Mapping[str, Any]) -> RunFolder:
        """A new folder, `runs/<recipe>/<utc>-<suffix>` where no path is given.

        Raises:
            UserError: a run is there already.
            EnvironmentFault: the folder cannot be made.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = path or Path("runs", recipe.name, f"{stamp}-{secrets.token_hex(2)}")
        try:
            if (path / RECORD).exists():
                raise UserError(
                    str(path), "a run is there already", f"mtl run --resume {path}, or another --out"
                )
            make_folder(path)
            if any(not _BEGUN.fullmatch(entry.name) for entry in path.iterdir()):
                raise UserError(str(path), "the folder is not empty", "give another --out")
            for entry in path.iterdir():  # of a run that was killed before it had begun
                entry.unlink()
        except OSError as error:
            raise EnvironmentFault(
                str(path), f"cannot make the run folder: {(error.strerror or str(error)).lower()}"
            ) from error
        resolved = to_yaml(recipe).encode()
        record = {
            "schema_version": SCHEMA_VERSION,
            "id": str(uuid.uuid4()),
            "name": recipe.name,
            "status": "running",
            "started": _now(),
            "recipe_sha256": recipe.sha256(),
            "resolved_sha256": [hashlib.sha256(resolved).hexdigest()],
            **facts,
        }
        run = cls(path, record)
        write_whole(path / "recipe.yaml", recipe.text or to_yaml(recipe).encode())
        write_whole(path / RESOLVED, resolved)
        run.save_record()
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run that is there.

        Raises:
            UserError: it is not, or its run.json cannot be read.
        """
        try:
            plain_size(path / RECORD)
            record = strict_json((path / RECORD).read_bytes())
        except FileNotFoundError:
            raise UserError(str(path), f"no checkpoint found: it has no {RECORD}, so it is no run") from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(str(path / RECORD), f"cannot be read: {error}") from None
        if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
            raise UserError(str(path / RECORD), f"is not a run record of schema {SCHEMA_VERSION}")
        for key, kind in TYPES.items():
            if key in record and type(record[key]) is not kind:
                raise UserError(str(path / RECORD), f"{key} is {quoted(record[key])}, which no run writes")
        return cls(path, _Record(record, path / RECORD))

    def hold(self) -> None:
        """Take the run's lock until `release` or the end of the process; nothing if it is held already.

        Raises:
            UserError: another process has it.
        """
        if self._lock is not None:
            return
        file = None
        try:
            file = (self.path / ".lock").open("a+b", buffering=0)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert file is not None
            with file:
                file.seek(0)
                holder = file.read(200).decode(errors="replace").strip() or "another process"
            raise UserError(str(self.path), f"is in use by {_shown(holder)}") from None
        except OSError as error:
            if file is not None:
                file.close()
            raise EnvironmentFault(
                str(self.path), f"cannot be locked: {(error.strerror or str(error)).lower()}"
            ) from error
        self._lock = file
        with suppress(OSError):  # who holds it is for people only
            file.truncate(0)
            file.write(f"pid {os.getpid()} on host {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def save_record(self, **facts: Any) -> None:
        """Bring run.json up to date."""
        self.record.update(facts)
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
        """Append lines to one of the logs, each in a single write (or more, if the disk takes less).

        Raises:
            EnvironmentFault: the disk refused.
        """
        try:
            with (self.path / name).open("ab", buffering=0) as file:
                failpoints.hit("log")
                for row in rows:
                    _append(file, json.dumps(row, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise EnvironmentFault(
                str(self.path / name), f"cannot write: {(error.strerror or str(error)).lower()}"
            ) from error

    def offsets(self) -> dict[str, int]:
        """The length of each log in bytes, all of them on the disk: a checkpoint is about to rely on it.

        Raises:
            EnvironmentFault: the disk cannot say that they are.
        """
        lengths = {}
        for name in LOGS:
            try:
                with (self.path / name).open("rb") as file:
                    os.fsync(file.fileno())
                    lengths[name] = os.fstat(file.fileno()).st_size
            except FileNotFoundError:
                continue
            except OSError as error:
                what = f"cannot be synced: {(error.strerror or str(error)).lower()}"
                raise EnvironmentFault(str(self.path / name), what) from error
        return lengths

    def cut_logs(self, offsets: Mapping[str, int], epoch: int) -> None:
        """Put the logs back to where a checkpoint was; later lines belong to epochs that are run again.

        Raises:
            UserError: a log has lost lines that the checkpoint counts on.
        """
        for name in LOGS:
            length = (self.path / name).stat().st_size if (self.path / name).exists() else 0
            if length < offsets.get(name, 0):
                raise UserError(
                    str(self.path),
                    f"{name} is shorter than the checkpoint says ({length} bytes, {offsets[name]} expected)",
                    "put it back, or start a new run",
                )
        for name in LOGS:
            if (self.path / name).exists():
                self._discard(name, offsets.get(name, 0))
                os.truncate(self.path / name, offsets.get(name, 0))
        for path in self.path.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                path.unlink()
        self._cut_timings(epoch)

    def _cut_timings(self, epoch: int) -> None:
        """Nothing depends on the timings and nobody synced them: a line that a power cut spoiled is left out."""
        if not (self.path / TIMINGS).exists():
            return
        kept = []
        for line in (self.path / TIMINGS).read_bytes().split(b"\n"):
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                if strict_json(line)["epoch"] <= epoch:
                    kept.append(line + b"\n")
        write_whole(self.path / TIMINGS, b"".join(kept))

    def _discard(self, name: str, offset: int) -> None:
        """Keep what is about to be cut off a log in `<name>.discarded-<n>.jsonl`, for people."""
        with (self.path / name).open("rb") as file:
            file.seek(offset)
            rest = file.read()
        if rest:
            stem, n = name.removesuffix(".jsonl"), 1
            while (self.path / f"{stem}.discarded-{n}.jsonl").exists():
                n += 1
            write_whole(self.path / f"{stem}.discarded-{n}.jsonl", rest)

    def rows(self, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """The lines of a log; a last line that was cut by a crash is left out."""
        path = self.path / name
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1]]

    def write_csv(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """metrics.csv: one row per evaluation, a column per metric without its split."""
        fixed = ("split", "epoch", "step")
        table = [
            {key if key in fixed else key.split("/", 1)[1]: value for key, value in row.items()}
            for row in rows
        ]
        columns = list(dict.fromkeys([*fixed, *(key for row in table for key in row)]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        write_whole(self.path / "metrics.csv", text.getvalue().encode())


def _append(file: FileIO, line: bytes) -> None:
    """One line, whole or not at all, although a disk that fills up takes a part of what is written."""
    length = os.fstat(file.fileno()).st_size
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with suppress(OSError):
            os.truncate(file.fileno(), length)
        raise


def _shown(text: str) -> str:
    return text if text.isprintable() else quoted(text)


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


def list_runs(root: Path) -> list[RunFolder]:
    """Every run below `root`, at most three levels down, oldest first."""
    found = []
    for pattern in (RECORD, f"*/{RECORD}", f"*/*/{RECORD}"):
        for path in root.glob(pattern):
            try:
                found.append(RunFolder.open(path.parent))
            except UserError:
                continue
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
