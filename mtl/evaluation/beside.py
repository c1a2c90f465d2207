"""What a person is told of results that are not better than a baseline, and of how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mtl.console import number
from mtl.evaluation.baseline import CONSTANT, LINEAR
from mtl.recipe.specs import TaskSpec

SHOWN = 6
"""Most tasks of which a person is told one by one."""
FEWEST_VALUES = 6
"""With fewer evaluations, nobody can tell whether a metric has stopped to rise."""
INTERVALS = Mapping[str, tuple[float, float]]
"""Task -> the 95% interval of its headline metric for other rows of the same kind."""


def not_better(
    tasks: Mapping[str, TaskSpec],
    metrics: Mapping[str, float | None],
    baselines: Mapping[str, float | None],
    split: str,
    flat: Collection[str] = (),
    intervals: INTERVALS | None = None,
) -> Iterator[str]:
    """Yield a line about each task whose headline metric is not better than that of its best baseline, up to `SHOWN`.

    Two metrics that are printed with the same four digits are a tie. A baseline within the interval of the metric is
    level with it.

    Args:
        tasks: task -> its spec, in the order of results.
        metrics: `<split>/<task>/<metric>` -> value; those of `train` show why.
        baselines: `<split>/<task>/<baseline>` -> the headline metric of the task.
        split: the split that counts.
        flat: the tasks for which more training is no advice.
        intervals: of the results on that split, where they are known.
    """
    found = []
    for task, spec in tasks.items():
        own = metrics.get(f"{split}/{task}/{spec.headline}")
        known = {name: baselines.get(f"{split}/{task}/{name}") for name in (CONSTANT, LINEAR)}
        best = _best(known, spec)
        if own is None or best is None or spec.weight == 0:
            continue
        if not _is_better(own, best[1], spec) or _ties(own, best[1]):
            trained = metrics.get(f"train/{task}/{spec.headline}")
            interval = (intervals or {}).get(task)
            found.append(f"{task}: {_complaint(spec, own, *best, trained, task in flat, interval)}")
    yield from found[:SHOWN]
    if len(found) > SHOWN:
        yield f"{len(found) - SHOWN} more tasks are not better than a linear model or one answer for all rows"


def flat_tasks(
    tasks: Mapping[str, TaskSpec], rows: Sequence[Mapping[str, Any]], intervals: INTERVALS
) -> set[str]:
    """The tasks whose validation metric has stopped to get better before the training ended.

    It has if the best value of the last third of the evaluations is not better than the best one before by more than a
    standard error, a quarter of the 95% interval.

    Args:
        tasks: task -> its spec.
        rows: the lines of metrics.jsonl.
        intervals: task -> the 95% interval of its headline metric.
    """
    found = set()
    for task, spec in tasks.items():
        name = f"validation/{task}/{spec.headline}"
        values = [row[name] for row in rows if row["split"] == "validation" and row.get(name) is not None]
        if len(values) < FEWEST_VALUES:
            continue
        begin = len(values) - len(values) // 3
        best = max if spec.higher_is_better else min
        gain = abs(best(values) - best(values[:begin]))
        low, high = intervals.get(task, (0.0, 0.0))
        if gain <= (high - low) / 4:
            found.add(task)
    return found


def _best(known: Mapping[str, float | None], spec: TaskSpec) -> tuple[str, float] | None:
    """The name and the value of the better baseline; of two equal ones the simpler one."""
    best: tuple[str, float] | None = None
    for name, value in known.items():
        if value is not None and (best is None or _is_better(value, best[1], spec)):
            best = (name, value)
    return best


def _is_better(one: float, other: float, spec: TaskSpec) -> bool:
    return one > other if spec.higher_is_better else one < other


def _ties(one: float, other: float) -> bool:
    return number(one) == number(other)


def _complaint(
    spec: TaskSpec,
    own: float,
    name: str,
    value: float,
    trained: float | None,
    is_flat: bool,
    interval: tuple[float, float] | None,
) -> str:
    is_level = interval is not None and interval[0] <= value <= interval[1] and not _ties(own, value)
    how = "is level with" if is_level else "is only as good as" if _ties(own, value) else "is not better than"
    line = f"{spec.headline.replace('_', ' ')} {number(own)} {how} "
    if name == CONSTANT:
        line += f"{number(value)}, which one answer for all rows reaches"
        todo = "see whether the inputs say anything about it"
    else:
        line += f"a linear model's {number(value)}"
        todo = "try another optimizer.lr or a smaller network"
        todo = todo if is_flat else f"train longer, or {todo}"
    if is_level and interval is not None:
        ends = f"{number(interval[0])} to {number(interval[1])}"
        line += f"{',' if name == CONSTANT else ''} within the noise of these rows (95% interval {ends})"
    if trained is not None and _is_better(trained, value, spec) and not _ties(trained, value):
        line += f", though it is {number(trained)} on the training rows"
        todo = "take a smaller network, raise optimizer.weight_decay, add dropout, or leave out inputs"
    choice = "; the linear model may be the better choice" if name == LINEAR and not is_level else ""
    return f"{line}; {todo}{choice}"
