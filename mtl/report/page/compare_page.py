"""The page of a comparison: verdicts in words, then results, differences with their intervals, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from mtl.errors import UserError
from mtl.report.charts.curves import label_curve
from mtl.report.charts.intervals import Difference, differences
from mtl.report.charts.marks import Figure
from mtl.report.page.compare_file import ArmSeconds, CompareFile, Comparison
from mtl.report.page.render import render
from mtl.runs.record import PUT_BACK, fault_in
from mtl.runs.results.reading import read_checked, read_object

COMPARISON, TIMINGS = "compare.json", "timings.json"
MOST_OPEN = 8
"""Most tasks whose figures stand open."""
MOST_RUNS = 2000
"""Most run folders that a page links."""
_SECONDS = TypeAdapter(dict[str, ArmSeconds])


@dataclass(frozen=True)
class Cell:
    """The results of an arm in one task; `best` marks the best mean, `is_baseline` the arm that others face."""

    mean: float | None
    sd: float | None
    values: Sequence[float | None]
    best: bool
    is_baseline: bool
    verdict: str


def compare_page(folder: Path) -> bytes:
    """The page of a comparison as HTML.

    Raises:
        UserError: compare.json or timings.json is not what a comparison writes.
    """
    path = folder / COMPARISON
    found = read_checked(path, CompareFile)
    if found is None:
        raise UserError(str(folder), f"has no {COMPARISON}")
    _require_known_names(path, found)
    verdicts = {(one.arm, one.task): one.verdict for one in found.comparisons}
    context = {
        "found": found,
        "cells": _cells(found, verdicts),
        "figures": _figures(found),
        "label_curves": _label_curves(found),
        "costs": _costs(found, _seconds(folder / TIMINGS)),
        "runs": _runs(folder, found),
        "collapsed": [(arm, one.task, one.seed) for arm, own in found.arms.items() for one in own.collapsed],
        "open": len(found.tasks) <= MOST_OPEN,
        "folder": folder,
    }
    return render("compare.html.j2", context)


def _require_known_names(path: Path, found: CompareFile) -> None:
    """Refuse tasks and arms that no section describes.

    Raises:
        UserError: a name is unknown.
    """
    tasks = {
        *found.baseline, *found.tasks_verdict, *found.transfer, *(one.task for one in found.comparisons),
        *(task for arm in found.arms.values() for task in arm.results),
        *(point.task for point in found.label_curve or ()),
    }  # fmt: skip
    arms = {*found.baseline.values(), *(name for one in found.comparisons for name in (one.arm, one.against))}
    for what, unknown in (("task", tasks - found.tasks.keys()), ("arm", arms - found.arms.keys())):
        if unknown:
            raise UserError(
                str(path), f"names {what} {sorted(unknown)[0]!r:.60}, which it does not have", PUT_BACK
            )


def _seconds(path: Path) -> Mapping[str, ArmSeconds]:
    values = read_object(path)
    try:
        return _SECONDS.validate_python(values or {})
    except ValidationError as error:
        raise UserError(str(path), fault_in(error), PUT_BACK) from None


def _cells(found: CompareFile, verdicts: Mapping[tuple[str, str], str]) -> dict[str, dict[str, Cell]]:
    """Arm -> task -> its results."""
    cells: dict[str, dict[str, Cell]] = {arm: {} for arm in found.arms}
    for task, facts in found.tasks.items():
        means = {
            arm: own.results[task].mean
            for arm, own in found.arms.items()
            if task in own.results and own.results[task].mean is not None and own.role != "reference"
        }
        pick = max if facts.higher_is_better else min
        best = pick((mean for mean in means.values() if mean is not None), default=None)
        for arm, own in found.arms.items():
            result = own.results.get(task)
            if result is not None:
                cells[arm][task] = Cell(
                    result.mean,
                    result.sd,
                    result.values,
                    result.mean is not None and result.mean == best,
                    found.baseline.get(task) == arm,
                    verdicts.get((arm, task), ""),
                )
    return cells


def _figures(found: CompareFile) -> dict[str, tuple[Figure | None, list[Comparison]]]:
    """Task -> the picture of its differences, and the comparisons that it shows."""
    figures: dict[str, tuple[Figure | None, list[Comparison]]] = {}
    for task, facts in found.tasks.items():
        own = [one for one in found.comparisons if one.task == task]
        drawn = [
            Difference(one.arm, one.difference, _pair(one.interval), _pair(one.interval_seeds), one.verdict)
            for one in own
            if one.difference is not None
        ]
        picture = None
        if drawn:
            better = "right" if facts.higher_is_better else "left"
            metric = facts.metric.replace("_", " ")
            picture = differences(task, metric, own[0].against, better, drawn, facts.margin)
        figures[task] = (picture, own)
    return figures


def _pair(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (ends[0], ends[1])


def _label_curves(found: CompareFile) -> dict[str, Figure]:
    """Task -> its results over numbers of labels."""
    by_task: dict[str, dict[str, list[tuple[float, float, float, float]]]] = {}
    for point in sorted(found.label_curve or (), key=lambda point: point.labels):
        known = [value for value in point.values if value is not None]
        if known:
            lines = by_task.setdefault(point.task, {})
            lines.setdefault(point.arm, []).append((point.labels, fmean(known), min(known), max(known)))
    return {
        task: label_curve(lines, found.tasks[task].metric.replace("_", " "))
        for task, lines in by_task.items()
    }


def _costs(found: CompareFile, seconds: Mapping[str, ArmSeconds]) -> list[dict[str, Any]]:
    """Parameters, models and seconds of each arm."""
    rows = []
    for arm, own in found.arms.items():
        known = [value for value in seconds[arm].seconds if value is not None] if arm in seconds else []
        rows.append(
            {
                "arm": arm,
                "parameters": own.parameters,
                "models": own.models,
                "seconds": fmean(known) if known else None,
            }
        )
    return rows


def _runs(folder: Path, found: CompareFile) -> dict[str, list[tuple[str, str]]]:
    """Arm -> (name, link) of its run folders that exist; a link leads to the page of the run if there is one."""
    runs: dict[str, list[tuple[str, str]]] = {}
    left = MOST_RUNS
    for arm in found.arms:
        own = folder / "runs" / arm
        if arm == ".." or own.parent != folder / "runs" or not own.is_dir():  # a name must not lead elsewhere
            continue
        for record in sorted(own.glob("**/run.json"))[:left]:
            run, left = record.parent.relative_to(folder), left - 1
            page = "report.html" if (record.parent / "report.html").is_file() else ""
            link = quote("/".join([*run.parts, page]))
            runs.setdefault(arm, []).append(("/".join(run.parts[2:]), link))
    return runs
