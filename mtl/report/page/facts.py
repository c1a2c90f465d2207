"""What a page of a run rests on: everything that its folder holds, read and checked once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.errors import UserError
from mtl.recipe.load import load_recipe
from mtl.report.links import read_links
from mtl.runs.folder import RunFolder
from mtl.runs.logs import SHARING, TIMINGS, read_timings
from mtl.runs.record import RunRecord, TaskResult
from mtl.runs.results.bootstrap import Bootstrap, read_bootstrap
from mtl.runs.results.details import TEST_DETAILS, DetailsFile, Headline, TaskDetails
from mtl.runs.results.reading import read_checked


@dataclass(frozen=True)
class Facts:
    """The content of a run folder.

    Args:
        standing: the status and the step of the run.
        headlines: task -> its headline metric, in the order of the recipe.
        details: task -> what its pictures need of the test rows.
        bootstrap: resamples of the test results, if the run has them.
        rows, shared, timings: the lines of the logs.
        links: what `mtl sharing` measured, if it was asked for; see `mtl/evaluation/links/document.py`.
        recipe: the text of the resolved recipe.
        task_results: task -> its result, where each task has a selected step of its own.
    """

    folder: RunFolder
    standing: tuple[str, int]
    headlines: Mapping[str, Headline]
    details: Mapping[str, TaskDetails]
    bootstrap: Bootstrap | None
    rows: list[dict[str, Any]]
    shared: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    links: dict[str, Any] | None
    recipe: str
    task_results: Mapping[str, TaskResult]

    def selected(self, task: str) -> tuple[int, int] | None:
        """The step and the epoch of a task's result."""
        own = self.task_results.get(task)
        chosen = own if own is not None else self.record.selected
        return None if chosen is None else (chosen.step, chosen.epoch)

    @property
    def record(self) -> RunRecord:
        """The content of run.json."""
        return self.folder.record

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def is_finished(self) -> bool:
        """Whether the run has its results."""
        return self.standing[0] == "finished"


def read_facts(folder: RunFolder, standing: tuple[str, int] | None = None) -> Facts:
    """Read a run folder; no data and no checkpoint are needed.

    Args:
        folder: the run.
        standing: its status and step, if the caller knows them because it holds the run.

    Raises:
        UserError: a file cannot be read, or is not what a run writes.
    """
    details = read_checked(folder.path / TEST_DETAILS, DetailsFile)
    selected = folder.record.selected
    if selected is None or (details is not None and details.step != selected.step):
        details = None  # it is of an earlier end of this run
    return Facts(
        folder=folder,
        standing=standing or folder.standing(),
        headlines=details.headlines if details is not None else _headlines(folder),
        details=_current(details, folder.record) if details is not None else {},
        bootstrap=read_bootstrap(folder.path) if selected is not None else None,
        rows=folder.logs.rows(),
        shared=folder.logs.rows(SHARING),
        timings=read_timings(folder.path / TIMINGS),
        links=read_links(folder),
        recipe=folder.recipe().read_text(encoding="utf-8"),
        task_results=folder.record.task_results or {},
    )


def _current(details: DetailsFile, record: RunRecord) -> dict[str, TaskDetails]:
    """The details that are of the same step as the result of their task."""
    steps = {task: result.step for task, result in (record.task_results or {}).items()}
    return {
        task: own
        for task, own in details.tasks.items()
        if details.steps.get(task, details.step) == steps.get(task, details.step)
    }


def _headlines(folder: RunFolder) -> dict[str, Headline]:
    """The headlines as the recipe says; without the plug-ins that it needs, the loss represents every task."""
    with suppress(UserError):
        tasks = load_recipe(folder.recipe()).tasks
        return {
            task: Headline(
                kind=spec.kind,
                metric=spec.headline,
                higher_is_better=spec.higher_is_better,
                unit=spec.label_unit,
            )
            for task, spec in tasks.items()
        }
    return {
        task: Headline(kind="", metric="loss", higher_is_better=False, unit="")
        for task in folder.record.classes
    }


def curve_metrics(facts: Facts, task: str) -> list[str]:
    """The metrics of a task that have a learning curve: the headline, the loss, and a loss weight that changes."""
    names = [facts.headlines[task].metric, "loss"]
    if len({row.get(f"train/{task}/loss_weight") for row in facts.rows if row["split"] == "train"}) > 1:
        names.append("loss_weight")
    return list(dict.fromkeys(names))
