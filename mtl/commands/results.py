"""Prints the results of a split, and warns about results that a baseline reaches too."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mtl.console import results_table, say
from mtl.errors import UserError
from mtl.evaluation.baseline import CONSTANT, LINEAR
from mtl.evaluation.beside import flat_tasks, not_better
from mtl.evaluation.derived import DERIVED
from mtl.recipe.specs import TaskSpec
from mtl.recipe.task_spec import units_of
from mtl.runs.logs import RunLogs
from mtl.runs.results.bootstrap import intervals_of, read_bootstrap


def say_results(
    tasks: Mapping[str, TaskSpec],
    metrics: Mapping[str, float | None],
    baselines: Mapping[str, float | None],
    split: str,
    stopped_early: bool,
    run: Path,
    heading: str | None = None,
) -> None:
    """Print the results of a split as a table, and a warning for each task that is not better than its baselines.

    Their advice is not to train longer if early stopping ended the training, or if the logs in the folder `run` show
    that it had come to a halt. The warnings go to stdout as the results
    do, so that they stand together in a file as well. `heading` stands above the tasks in place of the split's name.
    """
    last = (CONSTANT, LINEAR, DERIVED)
    say(results_table({**metrics, **baselines}, split, units_of(tasks), last=last, heading=heading))
    names = {name.split("/")[2] for name in baselines if name.startswith(f"{split}/")}
    legend = (
        (CONSTANT, "constant: one answer for all rows"),
        (LINEAR, "linear: a linear model"),
        (DERIVED, "derived: what the prediction of the task in derived_from reaches"),
    )
    beside = [text for name, text in legend if name in names]
    if beside:
        say(f"{'; '.join(beside)} (the headline metric of each task, on the same rows)")
    intervals, flat = _evidence(tasks, run)
    flat = set(tasks) if stopped_early else flat
    for line in not_better(tasks, metrics, baselines, split, flat, intervals if split == "test" else None):
        say(f"warning: {line}")


def _evidence(tasks: Mapping[str, TaskSpec], run: Path) -> tuple[Mapping[str, tuple[float, float]], set[str]]:
    """The intervals of a run's test results, and the tasks that had stopped to get better; nothing without files."""
    with suppress(UserError):
        found = read_bootstrap(run)
        intervals = intervals_of(found) if found is not None else {}
        return intervals, flat_tasks(tasks, RunLogs(run).rows(), intervals)
    return {}, set()
