"""The verdicts and the differences of a comparison, as rows of tables and as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mtl.report.charts.intervals import Difference, differences
from mtl.report.charts.marks import Figure, brief
from mtl.report.curves import LABEL_UNIT, SHARE, UNITS
from mtl.report.page.compare_file import CompareFile, Comparison, TaskFacts


@dataclass(frozen=True)
class Row:
    """An arm against another one in one task; numbers are texts.

    Args:
        arm: its name, and what it is compared with if that is not the baseline of the task.
        against: the other arm.
        difference: with its sign, + is better.
        interval: over rows and seeds; that over seeds alone is `interval_seeds`, empty if it looks the same.
        words: the whole sentence with its details.
    """

    arm: str
    against: str
    verdict: str
    difference: str
    interval: str
    interval_seeds: str
    p: str
    p_adjusted: str
    words: str


@dataclass(frozen=True)
class Verdict:
    """What came out for one task; `row` has the numbers, unless nothing was compared."""

    task: str
    metric: str
    verdict: str
    sentence: str
    row: Row | None


@dataclass(frozen=True)
class Differences:
    """The differences of one task: against its baseline first, then others.

    Args:
        unit: the unit of all numbers, or an empty text.
        figure: None if no difference is a number.
    """

    baseline: str
    unit: str
    rows: Sequence[Row]
    figure: Figure | None


def is_points(facts: TaskFacts) -> bool:
    """Whether hundredths of a metric are called points."""
    return facts.higher_is_better and UNITS.get(facts.metric) == SHARE


def unit_of(facts: TaskFacts) -> str:
    """The unit of the values of a metric; empty if it has none."""
    return facts.unit if UNITS.get(facts.metric) == LABEL_UNIT else ""


def verdicts_of(found: CompareFile) -> list[Verdict]:
    """A row for each task that has a verdict."""
    verdicts = []
    for task, one in found.tasks_verdict.items():
        facts, against = found.tasks[task], found.baseline.get(task)
        own = [c for c in found.comparisons if (c.arm, c.against, c.task) == (one.arm, against, task)]
        row = _row(own[0], facts, against) if own else None
        words = f"{one.sentence}." if row is None else row.words
        verdicts.append(Verdict(task, metric_of(facts), one.verdict, words, row))
    return verdicts


def beside_of(found: CompareFile) -> list[Verdict]:
    """A row for each further comparison that the summary tells: the leading arm against trees, one tower, and so on."""
    verdicts = []
    known = {one.sentence for one in found.tasks_verdict.values()}
    for c in found.comparisons:
        if f"{c.words}." in found.summary and c.words not in known:
            row = _row(c, found.tasks[c.task], c.against)
            verdicts.append(Verdict(c.task, metric_of(found.tasks[c.task]), c.verdict, row.words, row))
    return verdicts


def metric_of(facts: TaskFacts) -> str:
    """The name of a metric as text."""
    return facts.metric.replace("_", " ")


def differences_of(found: CompareFile, task: str) -> Differences:
    """The comparisons of a task."""
    facts, baseline = found.tasks[task], found.baseline.get(task, "")
    own = sorted((c for c in found.comparisons if c.task == task), key=lambda c: c.against != baseline)
    rows = [_row(c, facts, baseline) for c in own]
    figure = _figure(task, facts, own, baseline)
    unit = "points" if is_points(facts) else unit_of(facts)
    return Differences(baseline, unit, rows, figure)


def _figure(task: str, facts: TaskFacts, own: Sequence[Comparison], baseline: str) -> Figure | None:
    drawn = [
        Difference(
            c.arm,
            _scaled(c.difference, facts),
            _pair(c.interval, facts),
            _pair(c.interval_seeds, facts),
            c.verdict,
            "" if c.against == baseline else c.against,
        )
        for c in own
        if c.difference is not None
    ]
    if not drawn:
        return None
    metric, unit = metric_of(facts), unit_of(facts)
    name = f"points of {metric}" if is_points(facts) else f"{metric} ({unit})," if unit else f"{metric},"
    margin = None if facts.margin is None else _scaled(facts.margin, facts)
    return differences(task, f"{name} in favour of the arm", drawn, margin)


def _scaled(value: float, facts: TaskFacts) -> float:
    return 100 * value if is_points(facts) else value


def _pair(ends: Sequence[float] | None, facts: TaskFacts) -> tuple[float, float] | None:
    return None if ends is None else (_scaled(ends[0], facts), _scaled(ends[1], facts))


def _row(c: Comparison, facts: TaskFacts, baseline: str | None) -> Row:
    ends, of_seeds = _pair(c.interval, facts), _pair(c.interval_seeds, facts)
    value = None if c.difference is None else _scaled(c.difference, facts)
    n = _decimals((ends[1] - ends[0]) / 2 if ends else 0.0, value or 0.0)
    shown, of_seeds_shown = _from_to(ends, n), _from_to(of_seeds, n)
    return Row(
        c.arm if c.against == baseline else f"{c.arm}, against {c.against}",
        c.against,
        c.verdict,
        "-" if value is None else _signed(value, n),
        shown,
        "" if of_seeds_shown == shown else of_seeds_shown,
        "" if c.p is None else brief(c.p),
        "" if c.p_adjusted is None or c.p_adjusted == c.p else brief(c.p_adjusted),
        _in_full(c),
    )


def _in_full(c: Comparison) -> str:
    """The sentence of a comparison, and its details in a second one."""
    details = "; ".join(c.details)
    return f"{c.words}." + (f" {details[0].upper()}{details[1:]}." if details else "")


def _decimals(half: float, value: float) -> int:
    """The decimals that show two digits of half the interval, or of the difference without an interval."""
    scale = half or abs(value)
    return min(8, max(0, 1 - math.floor(math.log10(scale)))) if scale > 0 else 1


def _signed(value: float, decimals: int) -> str:
    text = f"{value:+,.{decimals}f}"
    return text if text.strip("+-0.,") else text[1:]


def _from_to(ends: tuple[float, float] | None, decimals: int) -> str:
    return "" if ends is None else f"{_signed(ends[0], decimals)} to {_signed(ends[1], decimals)}"
