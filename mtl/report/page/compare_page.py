"""The page of a comparison: verdicts in words, then results, differences with their intervals, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from mtl.console import counted, percent
from mtl.errors import UserError
from mtl.report.charts.curves import label_curve
from mtl.report.charts.marks import Figure
from mtl.report.page.compare_file import ArmSeconds, CompareFile, TaskFacts
from mtl.report.page.compare_rows import beside_of, differences_of, metric_of, unit_of, verdicts_of
from mtl.report.page.render import render
from mtl.runs.record import PUT_BACK, fault_in
from mtl.runs.results.reading import read_checked, read_object

COMPARISON, TIMINGS, COMPARE_PAGE = "compare.json", "timings.json", "compare.html"
MOST_OPEN = 8
"""Most tasks whose figures stand open."""
MOST_RUNS = 2000
"""Most run folders that a page links."""
ROLES = {"single": "no sharing", "reference": "reference, named before"}
"""Role of an arm -> what it does, where its name does not say so."""
CAUTIONS = ("Exploratory:", "Interim:")
"""How the sentences of a summary begin that a reader must see."""
_SECONDS = TypeAdapter(dict[str, ArmSeconds])


@dataclass(frozen=True)
class Cell:
    """The results of an arm in one task.

    Args:
        best: whether its mean is the best one of all networks that are no control.
        is_baseline: whether others are compared with it.
    """

    mean: float | None
    sd: float | None
    values: Sequence[float | None]
    best: bool
    is_baseline: bool


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
    context = {
        "found": found,
        "roles": ROLES,
        "headline": found.summary[0] if found.summary else "",
        "cautions": [sentence for sentence in found.summary[1:] if sentence.startswith(CAUTIONS)],
        "further": _further(found),
        "verdicts": verdicts_of(found),
        "beside": beside_of(found),
        "metrics": {task: _metric(facts) for task, facts in found.tasks.items()},
        "cells": _cells(found),
        "has_margins": any(facts.margin is not None for facts in found.tasks.values()),
        "differences": {task: differences_of(found, task) for task in found.tasks},
        "derived": _derived(found),
        "label_curves": _label_curves(found),
        "of_curve": _of_curve(found),
        "of_part": _of_part(found),
        "few": _few(found),
        "parts": _parts(folder, found),
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
        *(point.task for point in found.label_curve or ()), *found.derived,
    }  # fmt: skip
    fresh = {} if found.confirmation is None else found.confirmation.arms
    tasks |= {task for own in fresh.values() for task in own.results}
    arms = {*found.baseline.values(), *(name for one in found.comparisons for name in (one.arm, one.against))}
    arms |= {*fresh, *(found.tuning or {}), *(arm for own in found.derived.values() for arm in own)}
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


def _further(found: CompareFile) -> list[str]:
    """The sentences of the summary that are told nowhere else on the page, or that a reader takes home."""
    told = {f"{one.sentence}." for one in found.tasks_verdict.values()}
    told |= {f"{one.sentence}." for one in (found.delta_m or {}).values()}
    told |= {f"{one.words}." for one in found.comparisons}
    if found.leading is not None:
        told.add(f"{found.leading.sentence}.")
    told |= {*_of_curve(found)}
    collapsed = tuple(f"{arm} collapsed on " for arm, own in found.arms.items() if own.collapsed)
    return [
        sentence
        for sentence in found.summary[1:]
        if sentence not in told and not sentence.startswith((*CAUTIONS, *collapsed))
    ]


def _of_curve(found: CompareFile) -> list[str]:
    """The sentences of the summary about numbers of labels, which stand beside the curve."""
    tasks = {point.task for point in found.label_curve or ()}
    starts = tuple(f"{task}: with " for task in tasks)
    return [sentence for sentence in found.summary[1:] if starts and sentence.startswith(starts)]


def _metric(facts: TaskFacts) -> str:
    """The metric of a task, its unit and its direction."""
    unit = f" ({unit_of(facts)})" if unit_of(facts) else ""
    return f"{metric_of(facts)}{unit} {'↑' if facts.higher_is_better else '↓'}"


def _cells(found: CompareFile) -> dict[str, dict[str, Cell]]:
    """Arm -> task -> its results."""
    cells: dict[str, dict[str, Cell]] = {arm: {} for arm in found.arms}
    for task, facts in found.tasks.items():
        means = {
            arm: own.results[task].mean
            for arm, own in found.arms.items()
            if task in own.results
            and own.results[task].mean is not None
            and own.parameters is not None
            and own.role != "control"
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
                )
    return cells


def _derived(found: CompareFile) -> dict[str, list[tuple[str, float | None, float | None]]]:
    """Task -> (arm, mean of deriving its label from the prediction of another task, mean of its own head)."""
    rows: dict[str, list[tuple[str, float | None, float | None]]] = {}
    for task, arms in found.derived.items():
        for arm, values in arms.items():
            known = [value for value in values if value is not None]
            result = found.arms[arm].results.get(task)
            row = (arm, fmean(known) if known else None, result.mean if result is not None else None)
            rows.setdefault(task, []).append(row)
    return rows


def _label_curves(found: CompareFile) -> dict[str, Figure]:
    """Task -> its results over numbers of labels."""
    by_task: dict[str, dict[str, list[tuple[float, float, float, float]]]] = {}
    for point in sorted(found.label_curve or (), key=lambda point: point.labels):
        known = [value for value in point.values if value is not None]
        if known:
            lines = by_task.setdefault(point.task, {})
            lines.setdefault(point.arm, []).append((point.labels, fmean(known), min(known), max(known)))
    return {task: label_curve(lines, metric_of(found.tasks[task])) for task, lines in by_task.items()}


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
    for part in (folder, *_part_folders(folder, found).values()):
        for arm, facts in found.arms.items():
            own = part / "runs" / facts.folder
            if not _is_within(own, part / "runs") or not own.is_dir():
                continue
            for record in sorted(own.glob("**/run.json"))[:left]:
                run, left = record.parent, left - 1
                page = "report.html" if (run / "report.html").is_file() else ""
                link = quote("/".join([*run.relative_to(folder).parts, page]))
                of = "" if part == folder else f"{part.name}/"
                runs.setdefault(arm, []).append((f"{of}{run.relative_to(own).as_posix()}", link))
    return runs


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a child of a folder by its name, so that a name in a file does not lead elsewhere."""
    return path.parent == folder and path.name != ".."


def _part_folders(folder: Path, found: CompareFile) -> dict[tuple[str, float], Path]:
    """(task, fraction) -> the folder of the comparison with this part of the labels, where it lies within."""
    points = dict.fromkeys((point.task, point.fraction) for point in found.label_curve or ())
    folders = {key: folder / f"{key[0]}={key[1]:g}" for key in points}
    return {
        key: own for key, own in folders.items() if _is_within(own, folder) and (own / COMPARISON).is_file()
    }


def _of_part(found: CompareFile) -> str:
    """Of which part of the labels the verdicts are, if there are several."""
    smallest = min(found.label_curve or (), key=lambda point: point.fraction, default=None)
    if smallest is None:
        return ""
    return f"{counted(smallest.labels, 'label')} of {smallest.task} ({percent(smallest.fraction, 1.0)})"


def _few(found: CompareFile) -> list[tuple[str, int]]:
    """(task, labels of train) of the tasks that lack labels there, those with the fewest first."""
    known = {task: own.get("train", 0) for task, own in found.data.labels.items()}
    few = [(task, n) for task, n in known.items() if n < found.data.rows.get("train", 0)]
    return sorted(few, key=lambda each: each[1])


def _parts(folder: Path, found: CompareFile) -> list[tuple[str, str]]:
    """(name, link) of the comparison of each part of the labels."""
    labels = {(point.task, point.fraction): point.labels for point in found.label_curve or ()}
    return [
        (f"{counted(labels[key], 'label')} of {key[0]}", quote(f"{own.name}/{COMPARE_PAGE}"))
        for key, own in _part_folders(folder, found).items()
        if (own / COMPARE_PAGE).is_file()
    ]
