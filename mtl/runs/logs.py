"""The logs of a run: a run appends lines of JSON; a resumed run cuts them back to the length at its checkpoint."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from mtl import stages
from mtl.errors import EnvironmentFault, UserError
from mtl.runs.disk import open_own, read_plain, require_own, unshare, write_whole
from mtl.runs.json_text import shown, strict_json
from mtl.runs.record import (
    PUT_BACK,
    Count,
    Line,
    MetricName,
    Number,
    Shape,
    Step,
    fault_in,
    unreadable,
)

METRICS, SHARING = LOGS = ("metrics.jsonl", "sharing.jsonl")
TIMINGS = "timings.jsonl"  # it holds clock times, so its length is not part of a repeatable state


class _Metrics(Shape):
    """A line of metrics.jsonl; every other key is a metric."""

    __pydantic_extra__: dict[MetricName, Number] = Field(init=False)

    split: Line
    epoch: Count
    step: Step


class Matrix(Shape):
    """How much each target takes from each source, at one place of the network."""

    targets: list[Line]
    sources: list[Line]
    values: list[list[float]]

    @model_validator(mode="after")
    def _fits_its_names(self) -> Self:
        if len(self.values) != len(self.targets) or {len(r) for r in self.values} != {len(self.sources)}:
            raise ValueError("the values are not a row for each target and a column for each source")
        return self


class _Sharing(Shape):
    """A line of sharing.jsonl: place in the network -> its matrix."""

    epoch: Count
    step: Step
    sharing: Annotated[dict[Line, Matrix], Field(min_length=1)]


class _Timing(Shape):
    """A line of timings.jsonl: the seconds of each activity in an epoch."""

    epoch: Count
    seconds: dict[Line, Annotated[float, Field(ge=0)]]
    rows_per_second: Annotated[float, Field(ge=0)]


LINES: Mapping[str, type[Shape]] = {METRICS: _Metrics, SHARING: _Sharing}


class RunLogs:
    """The logs in the folder of one run.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append lines to a log, each in a single write, or in several if the disk accepts only a part.

        Raises:
            UserError: the log is not a regular file.
            EnvironmentFault: the disk refused.
        """
        path = self.folder / name
        try:
            with FileIO(open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a") as file:
                stages.reached("log")
                for row in rows:
                    _append_line(file, json.dumps(row, allow_nan=False).encode() + b"\n")
        except OSError as error:
            what = f"cannot write: {(error.strerror or str(error)).lower()}"
            raise EnvironmentFault(str(path), what) from error

    def rows(self, name: str = METRICS) -> list[dict[str, Any]]:
        """The lines of a log, without a last line that a crash has cut.

        Raises:
            UserError: another line is not what a run writes.
        """
        return read_lines(self.folder / name)

    def synced_lengths(self) -> dict[str, int]:
        """Sync all logs, and return the length of each in bytes, on which a checkpoint then relies.

        Raises:
            UserError: a log is not a regular file.
            EnvironmentFault: the disk cannot sync a log.
        """
        lengths = {}
        for name in LOGS:
            try:
                with FileIO(open_own(self.folder / name, os.O_RDONLY)) as file:
                    os.fsync(file.fileno())
                    lengths[name] = os.fstat(file.fileno()).st_size
            except FileNotFoundError:
                continue
            except OSError as error:
                what = f"cannot be synced: {(error.strerror or str(error)).lower()}"
                raise EnvironmentFault(str(self.folder / name), what) from error
        return lengths

    def require_own(self) -> None:
        """Require that every log is a regular file or does not exist.

        Raises:
            UserError: a log is a link, a pipe or something else.
        """
        for name in (*LOGS, TIMINGS):
            require_own(self.folder / name)

    def unshare(self) -> None:
        """Give each log a file of its own, so that a copy made of hard links leaves the original alone."""
        for name in (*LOGS, TIMINGS):
            unshare(self.folder / name)

    def require_whole(self, offsets: Mapping[str, int]) -> None:
        """Require that each log still has the lines that it had at a checkpoint.

        Raises:
            UserError: a log has lost lines, or has a line that no run writes.
        """
        self._require_lengths(offsets)
        for name in LOGS:
            read_lines(self.folder / name, offsets.get(name, 0))

    def _require_lengths(self, offsets: Mapping[str, int]) -> None:
        for name in LOGS:
            path = self.folder / name
            length = path.stat().st_size if path.exists() else 0
            if length < offsets.get(name, 0):
                raise UserError(
                    str(self.folder),
                    f"{name} is shorter than the checkpoint says ({length} bytes, {offsets[name]} expected)",
                    "put it back, or start a new run",
                )

    def cut(self, offsets: Mapping[str, int], epoch: int) -> None:
        """Cut the logs to their lengths at a checkpoint, since the run will repeat the epochs of later lines.

        Raises:
            UserError: a log is shorter than at the checkpoint, or is not a regular file; then no log is changed.
        """
        self.require_own()
        self._require_lengths(offsets)
        for name in LOGS:
            path = self.folder / name
            with suppress(FileNotFoundError), FileIO(open_own(path, os.O_RDWR), "r+") as file:
                file.seek(offsets.get(name, 0))
                _keep(path, file.read())
                file.truncate(offsets.get(name, 0))
        _cut_timings(self.folder / TIMINGS, epoch)

    def write_csv(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv, with a row for each evaluation of a split and a column for each metric of each task."""
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
        write_whole(self.folder / "metrics.csv", text.getvalue().encode())


def read_lines(path: Path, length: int | None = None) -> list[dict[str, Any]]:
    """The lines of a log, or of its first `length` bytes, without a last line that a crash has cut; [] without a file.

    Raises:
        UserError: another line is not what a run writes.
    """
    try:
        lines = read_plain(path)[:length].split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(path, error) from None
    shape, rows = LINES.get(path.name), []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_row(line, shape))
        except _NoRow as fault:
            raise UserError(f"{path}:{number}", str(fault), PUT_BACK) from None
    return rows


def read_timings(path: Path) -> list[dict[str, Any]]:
    """The lines of timings.jsonl without those that a power cut damaged, since timings are not synced.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = read_plain(path).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(path, error) from None
    rows = []
    for line in lines:
        with suppress(_NoRow):
            rows.append(_row(line, _Timing))
    return rows


class _NoRow(Exception):
    """A line of a log is malformed; the text says how."""


def _row(line: bytes, shape: type[Shape] | None) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise _NoRow(f"cannot be read: {shown(str(error))}") from None
    if not isinstance(row, dict):
        raise _NoRow("is no object")
    try:
        if shape is not None:
            shape.model_validate(row)
    except ValidationError as error:
        raise _NoRow(fault_in(error)) from None
    return row


def _append_line(file: FileIO, line: bytes) -> None:
    """Append one line, whole or not at all: if a full disk takes only a part of it, that part is removed."""
    length = os.fstat(file.fileno()).st_size
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with suppress(OSError):
            os.truncate(file.fileno(), length)
        raise


def _cut_timings(path: Path, epoch: int) -> None:
    """Drop the timings after an epoch, and lines that a power cut damaged: timings are not synced."""
    if not path.exists():
        return
    kept = []
    try:
        lines = read_plain(path).split(b"\n")
    except OSError as error:
        raise unreadable(path, error) from None
    for line in lines:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            if strict_json(line)["epoch"] <= epoch:
                kept.append(line + b"\n")
    write_whole(path, b"".join(kept))


def _keep(path: Path, rest: bytes) -> None:
    """Save the bytes that a cut removes from a log in `<name>.discarded-<n>.jsonl`, for people."""
    if rest:
        n = 1
        while (kept := path.with_name(f"{path.stem}.discarded-{n}.jsonl")).exists():
            n += 1
        write_whole(kept, rest)
