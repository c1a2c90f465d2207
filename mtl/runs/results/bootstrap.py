"""bootstrap.json: the headline metric of each task on resampled test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mtl.evaluation.bootstrap import Resampled
from mtl.runs.disk import write_whole
from mtl.runs.json_text import canonical_json
from mtl.runs.record import Count, Number, Shape, Word
from mtl.runs.results.reading import read_checked

BOOTSTRAP = "bootstrap.json"
LEVEL = 95
FEWEST = 0.5
"""Least share of resamples on which a metric must be defined to have an interval."""


class TaskReplicates(Shape):
    """One task; see `Resampled`."""

    metric: Word
    value: Number
    replicates: Annotated[list[Number], Field(max_length=10_000)]
    n_units: Count
    by_group: bool

    def known(self) -> list[float] | None:
        """The values on resamples; None if they are too few for an interval."""
        known = [value for value in self.replicates if value is not None]
        return known if len(known) >= max(2, FEWEST * len(self.replicates)) else None

    def interval(self) -> tuple[float, float] | None:
        """The percentile interval; None if too few resamples define the metric."""
        known = self.known()
        if known is None:
            return None
        low, high = np.percentile(known, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
        return float(low), float(high)


class Bootstrap(Shape):
    """The content of bootstrap.json."""

    schema_version: Literal[1]
    tasks: dict[Word, TaskReplicates]


def write_bootstrap(folder: Path, found: Mapping[str, Resampled]) -> None:
    """Write bootstrap.json into a run folder.

    Raises:
        EnvironmentFault: the disk refused.
    """
    tasks = {task: {**asdict(own), "replicates": list(own.replicates)} for task, own in found.items()}
    write_whole(folder / BOOTSTRAP, canonical_json({"schema_version": 1, "tasks": tasks}))


def read_bootstrap(folder: Path) -> Bootstrap | None:
    """The content of bootstrap.json; None if the run has none.

    Raises:
        UserError: the file cannot be read, or is not what a run writes.
    """
    return read_checked(folder / BOOTSTRAP, Bootstrap)


def intervals_of(found: Bootstrap) -> dict[str, tuple[float, float]]:
    """Task -> the interval of its headline metric, for the tasks that have one."""
    return {task: ends for task, own in found.tasks.items() if (ends := own.interval()) is not None}
