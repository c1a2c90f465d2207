"""The content of compare.json and of timings.json beside it, checked on reading."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mtl.runs.record import Count, Shape, Word

Text = Annotated[str, Field(max_length=10_000)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Verdict = Literal["better", "worse", "equivalent", "cannot tell", "identical"]


class RecipeFacts(Shape):
    """The recipe that the arms come from."""

    name: Word
    description: Word
    sha256: Word


class DataFacts(Shape):
    """The data that all arms have in common."""

    sha256: Word
    generated: bool
    rows: dict[Word, Count]
    labels: dict[Word, dict[Word, Count]]


class TaskFacts(Shape):
    """The headline metric of a task, and the margin within which differences are equivalent."""

    kind: Word
    metric: Word
    higher_is_better: bool
    unit: Word
    margin: float | None
    weight: float


class ArmResult(Shape):
    """The test results of an arm in one task, one per seed."""

    values: list[float | None]
    mean: float | None
    sd: float | None


class Collapsed(Shape):
    """A seed with which a task learned nothing."""

    task: Word
    seed: int


class Arm(Shape):
    """One way to train the tasks."""

    what: Text
    role: Word
    parameters: Count | None
    models: Count
    changes: list[Text]
    results: dict[Word, ArmResult]
    collapsed: list[Collapsed]


class Comparison(Shape):
    """The difference of an arm against the baseline in one task."""

    arm: Word
    against: Word
    task: Word
    difference: float | None
    interval: Pair | None
    interval_seeds: Pair | None
    p: float | None
    p_adjusted: float | None
    verdict: Verdict
    words: Text
    n_seeds: Count
    seeds_needed: list[float | None] | None = None


class TaskVerdict(Shape):
    """What came out for one task."""

    arm: Word
    verdict: Word
    sentence: Text


class Transfer(Shape):
    """Whether a task gains from the labels of the others."""

    claimed: bool
    size: float | None
    sentence: Text


class DeltaM(Shape):
    """The mean relative gain over tasks."""

    by_score: float | None
    by_error: float | None
    sentence: Text


class Leading(Shape):
    """The arm that leads over all tasks."""

    arm: Word
    confirmed: bool
    sentence: Text


class LabelPoint(Shape):
    """Results of an arm with a part of the labels of a task."""

    task: Word
    fraction: float
    labels: Count
    arm: Word
    values: list[float | None]


class CompareFile(Shape):
    """The content of compare.json."""

    schema_version: Literal[1]
    recipe: RecipeFacts
    data: DataFacts
    pinned: list[Word]
    varied: list[Word]
    selection: Word
    seeds: list[int]
    looks: Count
    exploratory: bool
    tasks: dict[Word, TaskFacts]
    arms: dict[Word, Arm]
    baseline: dict[Word, Word]
    comparisons: list[Comparison]
    tasks_verdict: dict[Word, TaskVerdict]
    transfer: dict[Word, Transfer]
    delta_m: dict[Word, DeltaM] | None
    leading: Leading | None
    label_curve: list[LabelPoint] | None
    summary: list[Text]


class ArmSeconds(Shape):
    """The seconds of the runs of an arm, one per seed."""

    seconds: list[Annotated[float, Field(ge=0)] | None]
