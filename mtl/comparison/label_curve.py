"""A comparison at several parts of one task's labels: how much sharing is worth where labels are few."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl.comparison.conduct import conduct
from mtl.comparison.files import write_outcome
from mtl.comparison.folder import folder_of
from mtl.comparison.request import Asked, Watcher
from mtl.comparison.statistics.verdicts import SUPERIOR
from mtl.console import counted

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
    parts: list[Part] = []
    folder = folder_of(asked, f"labels-of-{task}-")
    for fraction in sorted(fractions):
        common = (f"data.label_fraction={json.dumps({task: fraction})}",) if fraction < 1 else ()
        part = replace(asked, common=common, out=folder / f"{task}={fraction:g}", few=task)
        _, outcome = conduct(part, watcher)
        parts.append(Part(fraction, _labels(outcome, task), outcome))
    curve = [point for part in parts for point in _points(task, part)]
    smallest = parts[0].outcome
    sentences = [*smallest["summary"], *saved(task, parts)]
    whole = {**smallest, "label_curve": curve, "summary": sentences}
    write_outcome(folder, whole)
    return folder, whole


@dataclass(frozen=True)
class Part:
    """The comparison with a part of a task's labels.

    Args:
        fraction: the part.
        labels: how many they are in train.
        outcome: the content of its compare.json.
    """

    fraction: float
    labels: int
    outcome: Mapping[str, Any]

    def values(self, task: str, arm: str) -> dict[int, float]:
        """Seed -> the metric that an arm reaches, where it is defined."""
        values = self.outcome["arms"][arm]["results"][task]["values"]
        return {s: v for s, v in zip(self.outcome["seeds"], values, strict=True) if v is not None}


def _labels(outcome: Mapping[str, Any], task: str) -> int:
    labels: int = outcome["data"]["labels"].get(task, {}).get("train", outcome["data"]["rows"]["train"])
    return labels


def _points(task: str, part: Part) -> list[Point]:
    return [
        {
            "task": task,
            "fraction": part.fraction,
            "labels": part.labels,
            "arm": arm,
            "values": own["results"][task]["values"],
        }
        for arm, own in part.outcome["arms"].items()
        if task in own["results"]
    ]


def saved(task: str, parts: Sequence[Part]) -> list[str]:
    """Sentences that say how many labels networks that share nothing need to be as good as the recipe with few labels.

    Labels are saved only where the recipe is shown to be better with as many labels. How many is told by seed: the
    curve of the networks that share nothing is interpolated linearly over the logarithm of their labels.

    Args:
        task: whose labels were thinned out.
        parts: the comparisons with parts of them, in their order.
    """
    lines = []
    for part in parts:
        single = part.outcome["baseline"][task]
        found = [
            c
            for c in part.outcome["comparisons"]
            if (c["arm"], c["against"], c["task"]) == ("sharing", single, task)
        ]
        if not found:
            continue
        at, words = (
            f"{task}: with {counted(part.labels, 'label')}",
            found[0]["words"].removeprefix(f"{task}: "),
        )
        if found[0]["verdict"] not in SUPERIOR:
            lines.append(f"{at}, sharing is not shown to save labels: {words}.")
        else:
            lines.append(f"{at}, {words}; {single} needs {_needed(task, part, parts)} to reach as much.")
    return lines


def _needed(task: str, part: Part, parts: Sequence[Part]) -> str:
    """The labels that networks without sharing need to be as good as the recipe with a part, over the seeds."""
    higher = part.outcome["tasks"][task]["higher_is_better"]
    curves = [(p.labels, p.values(task, p.outcome["baseline"][task])) for p in parts]
    needed = [
        labels_needed([(n, by_seed[seed]) for n, by_seed in curves if seed in by_seed], value, higher)
        for seed, value in part.values(task, "sharing").items()
    ]
    known, most = [n for n in needed if n is not None], f"more than {curves[-1][0]:,}"
    if not known:
        return f"{most} labels on every seed"
    low = f"{min(known):,}"
    high = most if len(known) < len(needed) else f"{max(known):,}"
    return f"{low} labels" if low == high else f"{low} to {high} labels, depending on the seed,"


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
