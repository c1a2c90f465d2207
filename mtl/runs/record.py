"""The content of run.json, as pydantic models that check it on reading."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WrapValidator,
    model_validator,
)

from mtl.errors import EnvironmentFault, UserError, dotted, quoted
from mtl.runs.disk import read_plain
from mtl.runs.json_text import canonical_json, shown, strict_json

SCHEMA_VERSION: Final = 1
PUT_BACK = "put back the one that the run wrote"
MOST_INPUTS = 2**28
"""A row of inputs has at most this many numbers (1 GB), since reading allocates them before it checks the weights."""

Word = Annotated[str, StringConstraints(max_length=1000)]
Line = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\p{C}\u2028\u2029]*$")]
"""A name that commands print: no line ends, and no characters that steer a terminal."""
Count = Annotated[int, Field(ge=0, lt=1 << 40)]
Step = Annotated[int, Field(ge=0, lt=10**8)]
MetricName = Annotated[str, StringConstraints(pattern=r"^[^/\p{C}]+/[^/\p{C}]+/[^/\p{C}]+$", max_length=200)]
Status = Literal["running", "interrupted", "failed", "diverged", "finished"]


def _as_it_is(value: Any, check: Callable[[Any], object]) -> Any:
    """Check a value and return it unconverted, so that a whole number stays whole."""
    check(value)
    return value


Number = Annotated[float | None, WrapValidator(_as_it_is)]


class Shape(BaseModel):
    """A section of a file that a run writes: known keys are checked, and keys of a later release are kept."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class DataRecord(Shape):
    """The data of a run.

    Args:
        sha256: the fingerprint of all data that were read.
        generated: whether the rows are synthetic.
        rows: split -> its number of rows.
        labels: task with missing labels -> split -> its number of labels.
        best_possible_accuracy: task -> the best accuracy that any predictor can reach, where known.
    """

    sha256: Word
    generated: bool
    rows: dict[Line, Count]
    labels: dict[Line, dict[Line, Count]]
    best_possible_accuracy: dict[Word, float]


class LayoutRecord(Shape):
    """The input columns of a table, and how their values become numbers."""

    model_config = ConfigDict(extra="forbid")

    numeric: list[Word]
    vectors: dict[Word, Count]
    categorical: list[Word]
    values: dict[Word, list[str]]
    missing: Literal["error", "mean", "median"]
    indicator: bool
    embedding: Annotated[int, Field(ge=1, le=65536)] | None
    dates: list[Word]

    @model_validator(mode="after")
    def _values_of_each(self) -> Self:
        if set(self.values) != set(self.categorical):
            raise ValueError("values are not those of the categorical columns")
        return self


class ModelRecord(Shape):
    """The values that a run learned beside its weights; `mtl.data.learned` writes and reads them."""

    input_shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    outputs: dict[Word, Annotated[list[str], Field(min_length=1)]]
    constants: dict[Word, dict[Word, list[float]]]
    scaled: bool
    scale_shape: list[Count]
    layout: LayoutRecord | None
    indicators: list[Count]

    @model_validator(mode="after")
    def _of_sane_size(self) -> Self:
        if max(prod(self.input_shape), prod(self.scale_shape)) > MOST_INPUTS:
            raise ValueError(f"more than {MOST_INPUTS} inputs")
        return self

    def sha256(self) -> str:
        """The digest that run.json keeps of this section, since a wrong scale or class gives wrong predictions."""
        return hashlib.sha256(canonical_json(self.model_dump())).hexdigest()


class Selected(Shape):
    """The step whose weights are the result of the run, and its epoch."""

    step: Step
    epoch: Count


class TaskResult(Selected):
    """The metrics of one task at the step that was selected for this task alone.

    Args:
        validation: metric -> value; empty without labels there.
        test: metric -> value.
    """

    validation: dict[Line, Number]
    test: dict[Line, Number]


class Change(Shape):
    """The keys of the recipe that changed when the run was resumed, and the step at which it was resumed."""

    step: Step
    changed: list[str]


class RunRecord(Shape):
    """The content of run.json; a key with the value None is not in the file yet.

    Args:
        status: the status that the run wrote last; `RunFolder.standing` gives the current one.
        resolved_sha256: the digests of recipe.resolved.yaml; the last one is that of the current recipe.
        threads: the number of threads of torch.
        processes: how many processes trained together when it began; None: one.
        classes: task -> the names of its outputs.
        towers: tower -> its tasks, in the order of the recipe.
        step, epoch: the position of the run when the record was written.
        results: the last row of each split with the selected weights; a finished run has it.
        task_results: task -> its results at its own step, where the recipe says `train.select: best_of_each`.
        baselines: `test/<task>/constant`, `test/<task>/linear` and, for a task with `derived_from`,
            `test/<task>/derived` -> the headline metric of the trivial baselines.
        selected: a finished run has it, as it has `baselines`, `decisions`, `stopped_early` and `skipped_steps`.
        decisions: task -> its thresholds and temperatures, which were fitted on validation.
        untold: the streams that refused the output of the run, and why; training went on without them.
    """

    schema_version: Literal[1]
    id: Line
    name: Line
    status: Status
    started: Line
    recipe_sha256: Word
    resolved_sha256: list[Word]
    description: Word
    seeds: dict[Word, Count]
    plugins: list[str]
    plugin_sha256: dict[str, Word]
    environment: dict[Line, Line]
    device: Line
    threads: Annotated[int, Field(ge=1, le=1024)]
    processes: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    data: DataRecord
    model: ModelRecord
    parameters: Count
    classes: dict[Line, list[str]]
    towers: dict[Line, list[Line]]
    step: Step
    results: dict[MetricName, Number]
    model_sha256: Word
    epoch: Count | None = None
    changes: list[Change] | None = None
    task_results: dict[Line, TaskResult] | None = None
    baselines: dict[MetricName, Number] | None = None
    decisions: dict[Line, dict[Line, list[float]]] | None = None
    selected: Selected | None = None
    stopped_early: bool | None = None
    skipped_steps: Count | None = None
    untold: list[str] | None = None

    def plain(self) -> dict[str, Any]:
        """The content of run.json as plain values, without the keys that are None."""
        absent = {key for key in type(self).model_fields if getattr(self, key) is None}
        return self.model_dump(exclude=absent)


def read_record(path: Path) -> RunRecord:
    """The content of run.json.

    Raises:
        UserError: the file cannot be read, or its content is not what a run writes.
        FileNotFoundError, NotADirectoryError: the file does not exist.
    """
    try:
        values = strict_json(read_plain(path))
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"cannot be read: {shown(str(error))}") from None
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        raise UserError(str(path), f"is not a run record of schema {SCHEMA_VERSION}")
    for key in RunRecord.model_fields:
        if values.get(key, "absent") is None:
            raise UserError(str(path), f"{key} is None, which no run writes", PUT_BACK)
    try:
        return RunRecord.model_validate(values)
    except ValidationError as error:
        raise UserError(str(path), fault_in(error), PUT_BACK) from None


def unreadable(path: Path, error: OSError) -> UserError:
    """The error for a run's file that cannot be read: missing permission is a fault of the environment."""
    kind = EnvironmentFault if isinstance(error, PermissionError) else UserError
    return kind(str(path), f"cannot be read: {(error.strerror or str(error)).lower()}")


def fault_in(error: ValidationError) -> str:
    """The first finding of a validation, in words."""
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
