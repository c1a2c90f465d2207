"""The listener that hands the measurements of a run to the trackers of its recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mtl.errors import UserError, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import TrackedRun
from mtl.runs.folder import RunFolder
from mtl.runs.logs import METRICS, SHARING, TIMINGS
from mtl.tracking.parameters import parameters_of
from mtl.tracking.worker import Call, Worker
from mtl.training.events import Event, Listener, Noted, Warned

MOST_SHARED = 200
"""Most numbers of what is shared that a tracker gets of one step; sharing.jsonl has all."""
PATIENCE = 10.0
"""Seconds without an answer after which a run ends without a tracker; importing MLflow's client alone takes 4 s."""

Point = tuple[int, dict[str, float]]
"""An optimizer step and its numbers."""


def require_trackers(recipe: Recipe) -> None:
    """Require the packages of the recipe's trackers.

    Raises:
        EnvironmentFault: one is not installed.
    """
    faults: list[UserError] = []
    for i, spec in enumerate(recipe.trackers or ()):
        try:
            with recipe.at("trackers", i):
                spec.require_package()
        except UserError as error:
            faults.extend(error.errors)
    raise_all(faults)


class Tracking:
    """`with Tracking(...) as tracking:` the trackers of a run begin, and end with it, however it ends.

    What they get are the lines of the run's logs: first those that are there already, then each new one.

    Args:
        recipe: the recipe of the run.
        folder: the run, which this process holds, with its logs cut to the checkpoint that it goes on from.
        told: the listener that hears of a tracker's trouble.
        parent: the step that the run was resumed from, or None.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, told: Listener, parent: int | None) -> None:
        self._recipe, self._folder, self._told, self._parent = recipe, folder, told, parent
        self._workers: list[Worker] = []
        self._step_of_epoch: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._workers = [Worker(spec) for spec in self._recipe.trackers or ()]
        if self._workers:
            run = TrackedRun(
                self._folder.path,
                self._folder.record.id,
                self._recipe.name,
                self._recipe.description,
                parameters_of(self._recipe),
                self._parent,
            )
            self._all(lambda tracker: tracker.begin(run))
            for name in (METRICS, SHARING, TIMINGS):
                self.copy(name, self._folder.logs.rows(name))
        return self

    def copy(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Hand the lines of a log to the trackers."""
        if not self._workers:
            return
        for step, values in _joined(filter(None, (self._point(name, row) for row in rows))):
            self._all(_logged(values, step))

    def on(self, event: Event) -> None:
        """Tell the trouble of a tracker, once."""
        for worker in self._workers:
            if text := worker.trouble():
                self._told.on(Warned(text))

    def finish(self, between: Callable[[], None]) -> None:
        """Hand over the files and results of a finished run, and wait until the trackers have them.

        Args:
            between: called while this waits; an exception of it ends the waiting.
        """
        for path in self._files():
            self._all(_kept(path))
        results = {name: value for name, value in self._folder.record.results.items() if value is not None}
        self._end("finished", results, between)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = self._folder.record.status
        self._end("failed" if status == "running" else status, {}, lambda: None)

    def _end(self, status: str, results: Mapping[str, float], between: Callable[[], None]) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.put(lambda tracker: tracker.end(status, results))
        try:
            for worker in workers:
                missing = worker.close(PATIENCE, between)
                if text := worker.trouble():
                    self._told.on(Warned(text))
                if missing:
                    self._told.on(Noted(missing))
        finally:
            for worker in workers:
                worker.abandon()

    def _all(self, call: Call) -> None:
        for worker in self._workers:
            worker.put(call)

    def _files(self) -> Iterator[Path]:
        """The files of a finished run that people look at."""
        folder = self._folder.path
        paths = [*sorted(self._folder.plots.glob("*.png")), *sorted(folder.glob("*.html"))]
        for path in (*paths, folder / "metrics.csv", folder / "recipe.resolved.yaml"):
            if path.is_file() and not path.is_symlink():
                yield path

    def _point(self, name: str, row: Mapping[str, Any]) -> Point | None:
        """The numbers of one line of a log."""
        if name == METRICS:
            if row["split"] == "train":
                self._step_of_epoch[row["epoch"]] = row["step"]
            return row["step"], _finite((key, value) for key, value in row.items() if "/" in key)
        if name == SHARING:
            return row["step"], _finite(_shared(row["sharing"]))
        step = self._step_of_epoch.get(row["epoch"])
        return None if step is None else (step, _finite(_timed(row)))


def _logged(values: Mapping[str, float], step: int) -> Call:
    return lambda tracker: tracker.log(values, step)


def _kept(path: Path) -> Call:
    return lambda tracker: tracker.artifact(path)


def _finite(values: Iterable[tuple[str, Any]]) -> dict[str, float]:
    """The values that are finite numbers; a metric that the labels leave undefined is None."""
    return {
        name: float(value) for name, value in values if isinstance(value, (int, float)) and isfinite(value)
    }


def _shared(places: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`sharing/<place>/<target><-<source>` and how much the target takes from the source, at most `MOST_SHARED`."""
    found = (
        (f"sharing/{place}/{target}<-{source}", value)
        for place, matrix in places.items()
        for target, row in zip(matrix["targets"], matrix["values"], strict=True)
        for source, value in zip(matrix["sources"], row, strict=True)
    )
    yield from (pair for _, pair in zip(range(MOST_SHARED), found, strict=False))


def _timed(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The times of one epoch: seconds of each part, and rates."""
    seconds = row.get("seconds")  # timings are neither synced nor checked, so a part of a line may be lost
    if isinstance(seconds, Mapping):
        yield from ((f"timing/{name}_seconds", value) for name, value in seconds.items())
    yield from ((f"timing/{name}", row.get(name)) for name in ("rows_per_second", "steps_per_second"))


def _joined(points: Iterable[Point]) -> Iterator[Point]:
    """Points of which neighbours of one step are one point, unless they have a name in common."""
    last: Point | None = None
    for step, values in points:
        if last is not None and last[0] == step and not last[1].keys() & values.keys():
            last[1].update(values)
            continue
        if last is not None:
            yield last
        last = (step, dict(values))
    if last is not None:
        yield last
