"""The results of a run beside its baselines, and the sentence that says how good they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtl.console import counted
from mtl.report.charts.intervals import Interval, strip
from mtl.report.charts.marks import Figure, cut, range_of
from mtl.report.curves import LABEL_UNIT, PERFECT, SHARE, UNITS
from mtl.report.page.facts import Facts
from mtl.runs.results.bootstrap import LEVEL

NAMED = 4
"""Most tasks that a sentence names."""
BASELINES = {
    "constant": "one answer for all rows",
    "linear": "a linear model",
    "derived": "derived from the predictions of the other tasks",
}
"""Baseline -> what it is; a baseline of a later release is told by its name."""


@dataclass(frozen=True)
class Row:
    """The result of one task.

    Args:
        metric: its headline, as text.
        unit: the unit of its values, if they have one.
        others: the further metrics, as text -> value.
        baselines: baseline -> the headline metric.
        best: the best possible value, where known.
        strip: the picture, or None without a value.
    """

    task: str
    kind: str
    metric: str
    unit: str
    value: float | None
    interval: Interval | None
    error: float | None
    baselines: Mapping[str, float | None]
    best: float | None
    beats: bool | None
    clearly: bool
    others: Mapping[str, float | None]
    higher_is_better: bool = True
    strip: Figure | None = None


def results_of(facts: Facts) -> tuple[str, list[Row]]:
    """The split that was measured last and counts most, and a row for each task."""
    split, values = _shown(facts)
    rows = [_row(facts, task, split, values) for task in facts.headlines]
    domains = _domains(rows)
    return split, [_with_strip(row, domains) for row in rows]


def _shown(facts: Facts) -> tuple[str, Mapping[str, float | None]]:
    """The test results of a finished run; otherwise the last row of the best split that was measured."""
    if facts.record.results:
        return "test", facts.record.results
    for split in ("test", "validation", "train"):
        for row in reversed(facts.rows):
            if row["split"] == split:
                return split, {name: value for name, value in row.items() if "/" in name}
    return "test", {}


def _row(facts: Facts, task: str, split: str, values: Mapping[str, float | None]) -> Row:
    headline, record = facts.headlines[task], facts.record
    stem = f"{split}/{task}/"
    if split == "test" and task in facts.task_results:
        values = {**values, **{f"{stem}{name}": at for name, at in facts.task_results[task].test.items()}}
    value = values.get(f"{stem}{headline.metric}")
    found = {
        name.removeprefix(stem): at for name, at in (record.baselines or {}).items() if name.startswith(stem)
    }
    own = {name.removeprefix(stem): at for name, at in values.items() if name.startswith(stem)}
    others = {
        name.replace("_", " "): at
        for name, at in own.items()
        if name not in (headline.metric, "labels", "loss_weight")
    }
    interval, error = _interval(facts, task, headline.metric) if split == "test" else (None, None)
    known = [at for at in found.values() if at is not None]
    best_baseline = (max if headline.higher_is_better else min)(known, default=None)
    beats, clearly = None, False
    if value is not None and best_baseline is not None:
        sign = 1 if headline.higher_is_better else -1
        beats = sign * (value - best_baseline) > 0
        ends = interval or (value, value)
        clearly = interval is not None and min(sign * (end - best_baseline) for end in ends) > 0
    best = record.data.best_possible_accuracy.get(task) if headline.metric == "accuracy" else None
    unit = headline.unit if UNITS.get(headline.metric) == LABEL_UNIT else ""
    return Row(
        task, headline.kind, headline.metric.replace("_", " "), unit, value, interval, error, found, best,
        beats, clearly, others, headline.higher_is_better,
    )  # fmt: skip


def _interval(facts: Facts, task: str, metric: str) -> tuple[Interval | None, float | None]:
    """The percentile interval and the standard error of the resamples of a task's headline metric."""
    own = facts.bootstrap.tasks.get(task) if facts.bootstrap is not None else None
    if own is None or own.metric != metric:
        return None, None
    known = own.known()
    return (None, None) if known is None else (own.interval(), float(np.std(known, ddof=1)))


def _domains(rows: Sequence[Row]) -> dict[tuple[str, str], Interval]:
    """The range of the strips of tasks with the same metric and unit."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        values = [row.value, row.best, *row.baselines.values(), *(row.interval or ())]
        found.setdefault(_key(row), []).extend(value for value in values if value is not None)
    return {key: _range(key[0], values) for key, values in found.items() if values}


def _range(metric: str, values: Sequence[float]) -> Interval:
    """The range of a strip; that of a share stays between 0 and 1."""
    low, high = range_of(values)
    name = metric.replace(" ", "_")
    if UNITS.get(name) in (SHARE, PERFECT):
        high = min(high, 1.0)
    return (max(low, 0.0) if UNITS.get(name) == SHARE else low), high


def _key(row: Row) -> tuple[str, str]:
    """Errors of different tasks have no common scale; scores have."""
    return (
        row.metric,
        "" if UNITS.get(row.metric.replace(" ", "_")) in (SHARE, PERFECT) else row.task,
    )


def _with_strip(row: Row, domains: Mapping[tuple[str, str], Interval]) -> Row:
    if row.value is None:
        return row
    known = [(name, value) for name, value in row.baselines.items() if value is not None]
    picture = strip(domains[_key(row)], row.value, row.interval, known, row.best)
    return Row(**{**vars(row), "strip": picture})


def verdict(split: str, rows: Sequence[Row], is_finished: bool) -> Iterator[str]:
    """Yield the sentences that say how good the results are, compared with what."""
    compared = [row for row in rows if row.beats is not None]
    if not is_finished:
        yield f"The run is not finished: these are its last values on the {split} rows."
    if not compared:
        if is_finished:
            yield "There is nothing beside these results: no baseline was measured."
        return
    names = list(dict.fromkeys(n for row in compared for n in row.baselines))
    if all(row.beats for row in compared):
        whole = {1: "The task is", 2: "Both tasks are"}.get(len(compared), f"All {len(compared)} tasks are")
        yield f"{whole} better than {' and '.join(map(_article, names))}{_how_clear(compared)}."
        return
    for name in names:
        yield _beside(name, [row for row in compared if row.baselines.get(name) is not None])


def _beside(name: str, rows: Sequence[Row]) -> str:
    """A sentence that says which tasks are better than one baseline, level with it, or worse."""
    found: dict[str, list[Row]] = {"better": [], "level": [], "worse": []}
    for row in rows:
        found[_standing(row, name)].append(row)
    better, level, worse = found.values()
    if len(better) == len(rows):
        whole = {1: f"{cut(rows[0].task, 40)} is", 2: "Both tasks are"}.get(
            len(rows), f"All {len(rows)} tasks are"
        )
        return f"{whole} better than {_article(name)}."
    are = "is" if len(better) == 1 else "are"
    said = f"{counted(len(better), 'task')} of {len(rows)} {are} better than {_article(name)}"
    for some, how in ((level, "level with it"), (worse, "not")):
        if some:
            said += f"; {_listed([row.task for row in some])} {'is' if len(some) == 1 else 'are'} {how}"
    return f"{said}."


def _standing(row: Row, name: str) -> str:
    """How a task stands to a baseline: better, level if the interval of its result holds the baseline, or worse."""
    value, other = row.value, row.baselines[name]
    assert value is not None
    assert other is not None
    if (value - other) * (1 if row.higher_is_better else -1) > 0:
        return "better"
    return "level" if row.interval is not None and row.interval[0] <= other <= row.interval[1] else "worse"


def _article(name: str) -> str:
    return {"constant": "one answer for all rows", "linear": "a linear model"}.get(
        name, f"the {name} baseline"
    )


def _how_clear(better: Sequence[Row]) -> str:
    """Whether the intervals leave the baselines out, where there are intervals."""
    if not better or all(row.interval is None for row in better):
        return ""
    unclear = [row.task for row in better if not row.clearly]
    if not unclear:
        return f", and the {LEVEL}% intervals leave these baselines out"
    return f", though the {LEVEL}% interval of {_listed(unclear)} reaches a baseline"


def _listed(names: Sequence[str]) -> str:
    shown = [cut(name, 40) for name in names[:NAMED]]
    if len(names) > NAMED:
        return f"{', '.join(shown)} and {len(names) - NAMED} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
