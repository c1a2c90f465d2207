"""The files of a comparison: compare.json, compare.csv, timings.json and compare.html."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl.errors import UserError
from mtl.report.page.write import write_report
from mtl.runs.disk import write_whole
from mtl.runs.json_text import canonical_json

COMPARE, TABLE, TIMES = "compare.json", "compare.csv", "timings.json"


def write_outcome(folder: Path, outcome: Mapping[str, Any]) -> str | None:
    """Write compare.json, compare.csv with a row for each arm, task and seed, timings.json, and compare.html.

    Returns:
        Why there is no compare.html, or None.

    Raises:
        EnvironmentFault: the disk refused.
    """
    lasting = {key: value for key, value in outcome.items() if key != "timings"}
    write_whole(folder / TIMES, canonical_json(outcome["timings"]))
    write_whole(folder / TABLE, _table(outcome).encode())
    text = json.dumps(lasting, allow_nan=False, indent=1) + "\n"  # tasks and arms keep their order
    write_whole(folder / COMPARE, text.encode())
    try:
        write_report(folder)
    except Exception as error:  # a fault of a picture costs nobody the comparison
        what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return f"no page is drawn: {what}; `mtl report {folder}` tries again"
    return None


def _table(outcome: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "task", "metric", "round", "seed", "test", "validation", "one_model"])
    fresh = outcome["confirmation"]
    for name, own in (("first", outcome), *([] if fresh is None else [("fresh", fresh)])):
        for row in _rows(own, outcome["tasks"], name):
            writer.writerow(row)
    return text.getvalue()


def _rows(own: Mapping[str, Any], tasks: Mapping[str, Any], name: str) -> Iterator[list[str]]:
    """The rows of the first or of the fresh seeds."""
    for arm, made in own["arms"].items():
        for task, results in made["results"].items():
            seeds = own["seeds"] if len(results["values"]) == len(own["seeds"]) else ["all"]
            columns = (results["values"], results["validation"], results["one_model"])
            for seed, *values in zip(seeds, *columns, strict=True):
                shown = ["" if value is None else repr(value) for value in values]
                yield [arm, task, tasks[task]["metric"], name, str(seed), *shown]
