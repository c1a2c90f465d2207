"""test_details.json: what the pictures of a report need of the test rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mtl.errors import UserError, quoted
from mtl.runs.disk import write_whole
from mtl.runs.record import Shape, Step, Word

TEST_DETAILS = "test_details.json"

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
        steps: task -> the step whose weights were evaluated for it, where each task has a step of its own.
    """

    schema_version: Literal[1]
    step: Step
    headlines: dict[Word, Headline]
    tasks: dict[Word, TaskDetails]
    steps: dict[Word, Step] = {}


def write_test_details(
    folder: Path,
    step: int,
    headlines: Mapping[str, Mapping[str, Any]],
    tasks: Mapping[str, Any],
    steps: Mapping[str, int] | None = None,
) -> None:
    """Write test_details.json whole; see `DetailsFile`.

    Raises:
        UserError: a number is not finite.
        EnvironmentFault: the disk refused.
    """
    content: dict[str, Any] = {"schema_version": 1, "step": step}
    content |= {"headlines": dict(headlines), "tasks": dict(tasks)}
    if steps:
        content["steps"] = dict(steps)
    if unfit := [task for task, own in tasks.items() if not _is_finite(own)]:
        what = (
            f"the predictions of {', '.join(map(quoted, unfit[:5]))} are not finite numbers in the test split"
        )
        raise UserError("", what, "look for extreme inputs there; report.html has no pictures of these rows")
    text = json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n"  # keys keep the recipe's order
    write_whole(folder / TEST_DETAILS, text.encode())


def _is_finite(value: Any) -> bool:
    """Whether JSON can hold it."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
