"""A tracker: the points of a run as one table, which a spreadsheet opens."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

import mtl


class Points(mtl.Tracker):
    """A CSV with the columns step, name and value.

    After `begin` mtl logs all that still counts, so that a resumed run writes its file anew and needs to cut nothing.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def begin(self, run: mtl.TrackedRun) -> None:
        self.path = run.folder / "points.csv"
        self.path.write_text("step,name,value\n", encoding="utf-8")

    def log(self, values: Mapping[str, float], step: int) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            rows = ((step, name, value) for name, value in values.items() if name.startswith(self.prefix))
            csv.writer(file, lineterminator="\n").writerows(rows)


@mtl.register_tracker("points")
class PointsSpec(mtl.TrackerSpec):
    """All points of a run in `points.csv`."""

    reference: ClassVar[str] = "ours"

    prefix: str = Field("", max_length=200, description="how the names begin that are written")

    def open(self) -> mtl.Tracker:
        return Points(self.prefix)
