"""Files beside run.json that reports read: what pictures need of the test rows, and resamples of the test results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from mtl.errors import UserError, quoted
from mtl.runs.disk import plain_size, write_whole
from mtl.runs.json_text import strict_json
from mtl.runs.record import PUT_BACK, Count, Shape, Step, Word, fault_in, shown, unreadable

TEST_DETAILS, BOOTSTRAP = "test_details.json", "bootstrap.json"
MOST_BYTES = 64_000_000
"""A larger file is refused, since reading takes ten times as much memory."""

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Bin = Annotated[list[float], Field(min_length=3, max_length=3)]


class Curve(Shape):
    """Recall and precision at falling thresholds."""

    recall: list[Share]
    precision: list[Share]


class Residuals(Shape):
    """Counts of prediction - label in equal bins, and beyond either end."""

    edges: Annotated[list[float], Field(min_length=2)]
    counts: list[Amount]
    below: Amount
    above: Amount


class TaskDetails(Shape):
    """What `mtl.evaluation.details` found for one task; which parts there are depends on its form."""

    form: Literal["classes", "yes_or_no", "labels", "number"]
    n: Amount
    support: list[Amount] = []
    predicted: list[Amount] = []
    precision: list[Share | None] = []
    recall: list[Share | None] = []
    f1: list[Share | None] = []
    confusion: list[list[Amount]] | None = None
    confusions: list[Annotated[list[Amount], Field(min_length=3, max_length=3)]] | None = None
    threshold: float | None = None
    calibration: list[Bin] = []
    curves: list[Curve | None] = []
    residuals: Residuals | None = None
    groups: list[Annotated[list[float], Field(min_length=5, max_length=5)]] = []


class Headline(Shape):
    """The metric that represents a task."""

    kind: Word
    metric: Word
    higher_is_better: bool
    unit: Word


class DetailsFile(Shape):
    """The content of test_details.json.

    Args:
        step: the step whose weights were evaluated.
        headlines: task -> its headline metric, for every task in the order of the recipe.
        tasks: task -> its details; a task without test labels has none.
    """

    schema_version: Literal[1]
    step: Step
    headlines: dict[Word, Headline]
    tasks: dict[Word, TaskDetails]


class TaskResult(Shape):
    """The result of one task at the step that was selected for it."""

    step: Step
    epoch: Count
    test: dict[Word, float | None]


class Resampled(Shape):
    """The headline metric of one task on resamples of the test rows; a metric may be undefined on one."""

    metric: Word
    value: float | None
    replicates: list[float | None]


class Bootstrap(Shape):
    """The content of bootstrap.json."""

    schema_version: Literal[1]
    units: Word
    n_units: Annotated[int, Field(ge=0)]
    tasks: dict[Word, Resampled]


Content = TypeVar("Content", bound=Shape)


def write_test_details(
    folder: Path, step: int, headlines: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Any]
) -> None:
    """Write test_details.json whole.

    Raises:
        EnvironmentFault: the disk refused.
    """
    content = {"schema_version": 1, "step": step, "headlines": dict(headlines), "tasks": dict(tasks)}
    text = json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n"  # keys keep the recipe's order
    write_whole(folder / TEST_DETAILS, text.encode())


def read_checked(path: Path, shape: type[Content]) -> Content | None:
    """The content of a JSON file that mtl has written, or None without the file.

    Raises:
        UserError: the file cannot be read, is too large, or its content is not what mtl writes.
    """
    values = read_object(path)
    try:
        return None if values is None else shape.model_validate(values)
    except ValidationError as error:
        raise UserError(str(path), fault_in(error), PUT_BACK) from None


def read_object(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file, or None without the file.

    Raises:
        UserError: the file cannot be read, is too large, or holds no object.
    """
    try:
        if plain_size(path) > MOST_BYTES:
            raise UserError(str(path), f"is larger than {MOST_BYTES // 10**6} MB", PUT_BACK)
        values = strict_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"cannot be read: {shown(str(error))}") from None
    if not isinstance(values, dict):
        raise UserError(str(path), f"holds {quoted(values)}, which is no object", PUT_BACK)
    return values
