"""The shapes of what a run folder holds as JSON: run.json, and the lines of the logs. Checked when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from mtl.errors import EnvironmentFault, UserError, dotted, quoted
from mtl.runs.disk import plain_size
from mtl.runs.json_text import canonical_json, strict_json

SCHEMA_VERSION = 1
PUT_BACK = "put back the one that the run wrote"
MOST_INPUTS = 2**28
"""Numbers in a row of inputs, 1 GB: what a record may make us allocate before its weights are looked at."""

Word = Annotated[str, StringConstraints(max_length=1000)]
Count = Annotated[int, Field(ge=0, lt=1 << 40)]
Step = Annotated[int, Field(ge=0, lt=10**8)]
MetricName = Annotated[str, StringConstraints(pattern=r"^[^/]+/[^/]+/[^/]+$", max_length=200)]
Number = float | None
ABSENT: Any = None
"""The default of keys that need not be there; what is given is checked, and None is no value of theirs."""
Status = Literal["running", "interrupted", "diverged", "finished"]


class _Shape(BaseModel):
    """Keys that a later release adds are let pass; those that are here have the type that is given."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Data(_Shape):
    sha256: Word
    generated: bool
    rows: dict[Word, Count]
    labels: dict[Word, dict[Word, Count]]
    best_possible_accuracy: dict[Word, float]


class _Layout(_Shape):
    model_config = ConfigDict(extra="forbid")

    numeric: list[Word]
    vectors: dict[Word, Count]
    categorical: list[Word]
    values: dict[Word, list[str]]
    missing: Literal["error", "mean", "median"]
    indicator: bool
    embedding: Annotated[int, Field(ge=1, le=65536)] | None

    @model_validator(mode="after")
    def _values_of_each(self) -> Self:
        if set(self.values) != set(self.categorical):
            raise ValueError("values are not those of the categorical columns")
        return self


class _Model(_Shape):
    input_shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    outputs: dict[Word, Annotated[list[str], Field(min_length=1)]]
    constants: dict[Word, dict[Word, list[float]]]
    scaled: bool
    scale_shape: list[Count]
    layout: _Layout | None
    indicators: list[Count]

    @model_validator(mode="after")
    def _of_sane_size(self) -> Self:
        if max(prod(self.input_shape), prod(self.scale_shape)) > MOST_INPUTS:
            raise ValueError(f"more than {MOST_INPUTS} inputs")
        return self


class _Selected(_Shape):
    step: Step
    epoch: Count


class _Change(_Shape):
    step: Step
    changed: list[str]


class _Record(_Shape):
    """Every key of run.json. None has to be there: a run adds some when it ends, and `Record` names a missing one."""

    schema_version: Literal[1]
    id: Word = ABSENT
    name: Word = ABSENT
    status: Status = ABSENT
    started: Word = ABSENT
    recipe_sha256: Word = ABSENT
    resolved_sha256: list[Word] = ABSENT
    description: Word = ABSENT
    seeds: dict[Word, Count] = ABSENT
    plugins: list[str] = ABSENT
    plugin_sha256: dict[str, Word] = ABSENT
    environment: dict[Word, Word] = ABSENT
    device: Word = ABSENT
    threads: Annotated[int, Field(ge=1, le=1024)] = ABSENT
    data: _Data = ABSENT
    model: _Model = ABSENT
    model_sha256: Word = ABSENT
    parameters: Count = ABSENT
    classes: dict[Word, list[str]] = ABSENT
    towers: dict[Word, list[Word]] = ABSENT
    step: Step = ABSENT
    epoch: Count = ABSENT
    results: dict[MetricName, Number] = ABSENT
    changes: list[_Change] = ABSENT
    decisions: dict[Word, dict[Word, list[float]]] = ABSENT
    selected: _Selected = ABSENT
    stopped_early: bool = ABSENT
    skipped_steps: Count = ABSENT


class _Metrics(_Shape):
    """A line of metrics.jsonl; what is not named here is a metric."""

    __pydantic_extra__: dict[MetricName, Number] = Field(init=False)

    split: Word
    epoch: Count
    step: Step


class _Matrix(_Shape):
    """Who takes how much from whom, at one place."""

    targets: list[Word]
    sources: list[Word]
    values: list[list[float]]

    @model_validator(mode="after")
    def _fits_its_names(self) -> Self:
        if len(self.values) != len(self.targets) or {len(r) for r in self.values} != {len(self.sources)}:
            raise ValueError("the values are not a row for each target and a column for each source")
        return self


class _Sharing(_Shape):
    """A line of sharing.jsonl: place -> its matrix."""

    epoch: Count
    step: Step
    sharing: dict[Word, _Matrix]


LINES: Mapping[str, type[BaseModel]] = {"metrics.jsonl": _Metrics, "sharing.jsonl": _Sharing}


class Record(dict[str, Any]):
    """The content of a run.json that was read: a key that it should have is named when it is missed."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise UserError(str(self.path), f"has no {quoted(key)}", PUT_BACK)


def digest_of_model(record: Mapping[str, Any]) -> str:
    """sha256 of what a run has learned beside its weights: a wrong scale or class would give wrong predictions."""
    return hashlib.sha256(canonical_json(record["model"])).hexdigest()


def read_record(path: Path) -> Record:
    """The content of run.json.

    Raises:
        UserError: it cannot be read, or is not what a run writes.
        FileNotFoundError, NotADirectoryError: it is not there.
    """
    try:
        plain_size(path)
        values = strict_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"cannot be read: {_shown(str(error))}") from None
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        raise UserError(str(path), f"is not a run record of schema {SCHEMA_VERSION}")
    if fault := _fault(_Record, values):
        raise UserError(str(path), fault, PUT_BACK)
    return Record(values, path)


def read_lines(path: Path, length: int | None = None) -> list[dict[str, Any]]:
    """The lines of a log, or of its first `length` bytes; none without the file. A last line that a crash has cut is
    left out.

    Raises:
        UserError: another line is not what a run writes.
    """
    try:
        plain_size(path)
        lines = path.read_bytes()[:length].split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(path, error) from None
    shape, rows = LINES.get(path.name), []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line.decode())
            fault = "is no object" if not isinstance(row, dict) else _fault(shape, row) if shape else ""
        except (ValueError, RecursionError) as error:
            fault = f"cannot be read: {_shown(str(error))}"
        if fault:
            raise UserError(f"{path}:{number}", fault, PUT_BACK)
        rows.append(row)
    return rows


def unreadable(path: Path, error: OSError) -> UserError:
    """Permissions are the machine's; anything else that keeps a file of a run from being read is not as it was."""
    kind = EnvironmentFault if isinstance(error, PermissionError) else UserError
    return kind(str(path), f"cannot be read: {(error.strerror or str(error)).lower()}")


def _fault(shape: type[BaseModel], values: dict[str, Any]) -> str:
    """The first thing that is not of this shape, in words; nothing if all is."""
    try:
        shape.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        *above, last = first["loc"] or ("",)
        where = f"{dotted(first['loc'])}: " if first["loc"] else ""
        if first["type"] == "missing":
            return f"{dotted(tuple(above))} has no {quoted(last)}".lstrip()
        if first["type"] == "value_error":
            return f"{where}{first['ctx']['error']}"
        is_extra = first["type"].startswith("string_") and first["loc"] == (first["input"],)
        if last == "[key]" or is_extra:
            place = dotted(tuple(above[:-1])) if last == "[key]" else ""
            return f"{place} has a key {quoted(first['input'])}, which no run writes".lstrip()
        return f"{where.removesuffix(': ')} is {quoted(first['input'])}, which no run writes"
    return ""


def _shown(text: str) -> str:
    return text if text.isprintable() and len(text) <= 200 else quoted(text)
