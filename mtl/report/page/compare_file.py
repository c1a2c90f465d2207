"""The content of compare.json and of timings.json beside it, checked on reading."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mtl.runs.record import Count, Shape, Word

Text = Annotated[str, Field(max_length=10_000)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Verdict = Literal["better", "ahead", "worse", "equivalent", "cannot tell", "identical"]


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
    """The test results of an arm in one task, one per seed; a reference has one for all seeds."""

    values: list[float | None]
    mean: float | None
    sd: float | None
    validation: list[float | None]
    one_model: list[float | None]


class Collapsed(Shape):
    """A seed with which a task learned nothing."""

    task: Word
    seed: int


class Arm(Shape):
    """One way to train the tasks; its runs lie in `folder` under runs/, and `told` are facts about it."""

    what: Text
    folder: Word
    role: Word
    parameters: Count | None
    models: Count
    changes: list[Text]
    results: dict[Word, ArmResult]
    collapsed: list[Collapsed]
    told: list[Text]


class Comparison(Shape):
    """The difference of an arm against another one in one task, oriented so that + is better."""

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
    details: list[Text] = []
    n_seeds: Count
    sd: float | None
    se_rows: float | None
    correlation: float | None
    seeds_needed: Pair | None


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


class FreshArm(Shape):
    """The results of an arm on fresh seeds."""

    results: dict[Word, ArmResult]


class Confirmation(Shape):
    """The seeds that were run after the leading arm was chosen, and what the arms reached on them."""

    seeds: list[int]
    arms: dict[Word, FreshArm]


class LabelPoint(Shape):
    """Results of an arm with a part of the labels of a task."""

    task: Word
    fraction: float
    labels: Count
    arm: Word
    values: list[float | None]


class Trial(Shape):
    """A setting of an arm that was tried, and the headline metric of each task on validation."""

    changes: list[Text]
    validation: dict[Word, float | None]
    chosen: bool


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
    derived: dict[Word, dict[Word, list[float | None]]]
    comparisons: list[Comparison]
    tasks_verdict: dict[Word, TaskVerdict]
    transfer: dict[Word, Transfer]
    delta_m: dict[Word, DeltaM] | None
    leading: Leading | None
    label_curve: list[LabelPoint] | None
    confirmation: Confirmation | None = None
    summary: list[Text]
    tuning: dict[Word, list[Trial]] | None


class ArmSeconds(Shape):
    """The seconds of the runs of an arm, one per seed."""

    seconds: list[Annotated[float, Field(ge=0)] | None]
