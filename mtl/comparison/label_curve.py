"""A comparison at several parts of one task's labels: how much sharing is worth where labels are few."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl.comparison.conduct import conduct, default_folder
from mtl.comparison.outcome import write_outcome
from mtl.comparison.request import Asked, Watcher
from mtl.console import counted, number

Point = dict[str, Any]


def conduct_curve(
    asked: Asked, task: str, fractions: Sequence[float], watcher: Watcher | None = None
) -> tuple[Path, dict[str, Any]]:
    """A comparison for each part of a task's labels, and one compare.json: that of the smallest part, with the curve.

    Args:
        asked: the request.
        task: the task whose labels are thinned out.
        fractions: the parts of its labels in train and validation.
        watcher: the person who watches.

    Raises:
        UserError: as `conduct`.
    """
    curve: list[Point] = []
    smallest: dict[str, Any] | None = None
    folder = asked.out or default_folder(asked, f"labels-of-{task}-")
    for fraction in sorted(fractions):
        common = (f"data.label_fraction={json.dumps({task: fraction})}",) if fraction < 1 else ()
        part = replace(asked, common=common, out=folder / f"{task}={fraction:g}", few=task)
        _, outcome = conduct(part, watcher)
        curve += _points(task, fraction, outcome)
        smallest = smallest or outcome
    assert smallest is not None
    sentences = [*smallest["summary"], *saved(curve, task, smallest)]
    whole = {**smallest, "label_curve": curve, "summary": sentences}
    write_outcome(folder, whole)
    return folder, whole


def _points(task: str, fraction: float, outcome: Mapping[str, Any]) -> list[Point]:
    labels = outcome["data"]["labels"].get(task, {}).get("train", outcome["data"]["rows"]["train"])
    return [
        {
            "task": task,
            "fraction": fraction,
            "labels": labels,
            "arm": arm,
            "values": own["results"][task]["values"],
        }
        for arm, own in outcome["arms"].items()
        if task in own["results"]
    ]


def saved(curve: Sequence[Point], task: str, outcome: Mapping[str, Any]) -> list[str]:
    """Sentences that say how many labels a single network needs to be as good as the recipe with few labels.

    The curve of the single network is interpolated linearly over the logarithm of its labels.
    """
    own = outcome["tasks"][task]
    single = sorted((p["labels"], _mean(p)) for p in curve if p["arm"] == outcome["baseline"][task])
    lines = []
    for point in (p for p in curve if p["arm"] == "sharing"):
        needed = labels_needed(single, _mean(point), own["higher_is_better"])
        at = f"{task}: with {counted(point['labels'], 'label')}, sharing reaches {number(_mean(point))} {own['metric']}"
        if needed is None:
            lines.append(
                f"{at}, which {outcome['baseline'][task]} does not reach with {single[-1][0]:,} labels."
            )
        elif needed > point["labels"]:
            lines.append(f"{at}, for which {outcome['baseline'][task]} needs about {needed:,} labels.")
        else:
            lines.append(f"{at}; it saves no labels.")
    return lines


def labels_needed(single: Sequence[tuple[int, float]], value: float, higher_is_better: bool) -> int | None:
    """The labels at which the curve of the single network first reaches a value; None if it never does.

    Args:
        single: (labels, metric), in the order of labels.
        value: the metric to reach.
        higher_is_better: the direction of the metric.
    """
    sign = 1.0 if higher_is_better else -1.0
    before: tuple[int, float] | None = None
    for labels, reached in single:
        if sign * reached >= sign * value:
            if before is None or reached == before[1]:
                return labels
            part = (value - before[1]) / (reached - before[1])
            return round(math.exp(math.log(before[0]) + part * (math.log(labels) - math.log(before[0]))))
        before = (labels, reached)
    return None


def _mean(point: Point) -> float:
    known = [value for value in point["values"] if value is not None]
    return sum(known) / len(known) if known else math.nan
