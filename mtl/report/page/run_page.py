"""The page of a run: what was run on what, how good it is beside its baselines, and what was shared."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mtl.report.page.facts import Facts
from mtl.report.page.render import render
from mtl.report.page.results import BASELINES, Row, results_of, verdict
from mtl.report.page.sharing import sharing_of
from mtl.report.page.tasks import MOST_OPEN, sections_of
from mtl.runs.results.bootstrap import LEVEL

MOST_ROWS = 12
"""Most rows of a table that is not folded."""


def run_page(facts: Facts) -> bytes:
    """The page of a run as HTML.

    Raises:
        UserError: the run's files do not fit together.
    """
    split, rows = results_of(facts)
    sharing = sharing_of(facts)
    record = facts.record
    status, step = facts.standing
    beside = list(dict.fromkeys(name for row in rows for name in row.baselines))
    context: dict[str, Any] = {
        "facts": facts,
        "record": record,
        "status": status,
        "step": step,
        "split": split,
        "rows": rows,
        "verdict": list(verdict(split, rows, facts.is_finished)),
        "beside": beside,
        "baselines": {name: BASELINES.get(name, name) for name in beside},
        "level": LEVEL,
        "resampled": _resampled(facts, rows),
        "has_interval": any(row.interval is not None for row in rows),
        "has_best": any(row.best is not None for row in rows),
        "others": list(dict.fromkeys(name for row in rows for name in row.others)),
        "sections": sections_of(facts),
        "open": len(rows) <= MOST_OPEN,
        "most_rows": MOST_ROWS,
        "sharing": sharing,
        "frames": None if sharing is None else _frames(sharing.frames, sharing.first, sharing.limit),
        "command": _command(facts),
        "timings": _timings(facts.timings),
        "labels": _labels(facts, rows),
    }
    return render("run.html.j2", context)


def _resampled(facts: Facts, rows: Sequence[Row]) -> str:
    """What was resampled for the intervals, and how many: tasks with missing labels have fewer than others."""
    tasks = facts.bootstrap.tasks if facts.bootstrap is not None else {}
    found: dict[str, list[int]] = {}
    for row in rows:
        if row.interval is not None:
            found.setdefault("groups" if tasks[row.task].by_group else "rows", []).append(
                tasks[row.task].n_units
            )
    return " or ".join(f"test {name} ({_from_to(counts)})" for name, counts in found.items())


def _from_to(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}, by task"


def _frames(frames: Sequence[Mapping[str, Any]], first: int, limit: float) -> dict[str, Any] | None:
    """What the slider needs; None if there is only one position."""
    if len(frames) < 2:
        return None
    return {"frames": list(frames), "first": first, "limit": limit}


def _command(facts: Facts) -> str:
    """The command that repeats the run."""
    plugins = "".join(f" --plugin {shlex.quote(name)}" for name in facts.record.plugins)
    return f"mtl run {shlex.quote(str(facts.path / 'recipe.resolved.yaml'))}{plugins}"


def _timings(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The seconds of each activity over all epochs, and the median speed."""
    if not lines:
        return None
    seconds: dict[str, float] = {}
    for line in lines:
        for name, value in line["seconds"].items():
            seconds[name] = seconds.get(name, 0.0) + value
    speeds = sorted(line["rows_per_second"] for line in lines)
    return {
        "seconds": seconds,
        "total": sum(seconds.values()),
        "epochs": len(lines),
        "speed": speeds[len(speeds) // 2],
    }


def _labels(facts: Facts, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The labels of each task: how many per split, and their classes."""
    record = facts.record
    kinds = {row.task: row.kind for row in rows}
    return [
        {
            "task": task,
            "kind": kinds.get(task, ""),
            "counts": record.data.labels.get(task),
            "classes": outputs,
        }
        for task, outputs in record.classes.items()
    ]
