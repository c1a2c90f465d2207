"""The logs of a run: lines of JSON that are appended, relied on by checkpoints, and cut back to where one was."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from mtl import stages
from mtl.errors import EnvironmentFault, UserError
from mtl.runs.disk import open_own, require_own, write_whole
from mtl.runs.json_text import strict_json
from mtl.runs.record import read_lines

METRICS, SHARING = LOGS = ("metrics.jsonl", "sharing.jsonl")
TIMINGS = "timings.jsonl"  # has clocks in it, so its length is no part of a state that repeats


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append lines to a log, each in a single write (or more, if the disk takes less).

    Raises:
        UserError: it is no regular file.
        EnvironmentFault: the disk refused.
    """
    try:
        with FileIO(open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a") as file:
            stages.reached("log")
            for row in rows:
                _append_line(file, json.dumps(row, allow_nan=False).encode() + b"\n")
    except OSError as error:
        what = f"cannot write: {(error.strerror or str(error)).lower()}"
        raise EnvironmentFault(str(path), what) from error


def _append_line(file: FileIO, line: bytes) -> None:
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


def synced_lengths(folder: Path) -> dict[str, int]:
    """The length of each log in bytes, all of them on the disk.

    Raises:
        UserError: one is no regular file.
        EnvironmentFault: the disk cannot say that they are.
    """
    lengths = {}
    for name in LOGS:
        try:
            with FileIO(open_own(folder / name, os.O_RDONLY)) as file:
                os.fsync(file.fileno())
                lengths[name] = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            continue
        except OSError as error:
            what = f"cannot be synced: {(error.strerror or str(error)).lower()}"
            raise EnvironmentFault(str(folder / name), what) from error
    return lengths


def require_lengths(folder: Path, offsets: Mapping[str, int]) -> None:
    """Each log is at least as long as a checkpoint says.

    Raises:
        UserError: one has lost lines.
    """
    for name in LOGS:
        length = (folder / name).stat().st_size if (folder / name).exists() else 0
        if length < offsets.get(name, 0):
            raise UserError(
                str(folder),
                f"{name} is shorter than the checkpoint says ({length} bytes, {offsets[name]} expected)",
                "put it back, or start a new run",
            )


def require_own_logs(folder: Path) -> None:
    """No log leads out of the run, or is without end.

    Raises:
        UserError: one is no regular file.
    """
    for name in (*LOGS, TIMINGS):
        require_own(folder / name)


def require_whole(folder: Path, offsets: Mapping[str, int]) -> None:
    """What a checkpoint counts on is there, and is what a run writes.

    Raises:
        UserError: a log has lost lines, or has others.
    """
    require_lengths(folder, offsets)
    for name in LOGS:
        read_lines(folder / name, offsets.get(name, 0))


def cut(folder: Path, offsets: Mapping[str, int], epoch: int) -> None:
    """Put the logs back to where a checkpoint was.

    Raises:
        UserError: one has lost lines that the checkpoint counts on, or is no regular file; none is touched then.
    """
    require_own_logs(folder)
    require_lengths(folder, offsets)
    for name in LOGS:
        with suppress(FileNotFoundError), FileIO(open_own(folder / name, os.O_RDWR), "r+") as file:
            file.seek(offsets.get(name, 0))
            _keep(folder / name, file.read())
            file.truncate(offsets.get(name, 0))
    _cut_timings(folder / TIMINGS, epoch)


def _cut_timings(path: Path, epoch: int) -> None:
    """Nothing depends on the timings and nobody synced them: a line that a power cut spoiled is left out."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            if strict_json(line)["epoch"] <= epoch:
                kept.append(line + b"\n")
    write_whole(path, b"".join(kept))


def _keep(path: Path, rest: bytes) -> None:
    """Keep what is about to be cut off a log in `<name>.discarded-<n>.jsonl`, for people."""
    if rest:
        n = 1
        while (kept := path.with_name(f"{path.stem}.discarded-{n}.jsonl")).exists():
            n += 1
        write_whole(kept, rest)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows of metrics as a table: one row per evaluation, a column per metric without its split."""
    fixed = ("split", "epoch", "step")
    table = [
        {key if key in fixed else key.split("/", 1)[1]: value for key, value in row.items()} for row in rows
    ]
    columns = list(dict.fromkeys([*fixed, *(key for row in table for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_whole(path, text.getvalue().encode())
