"""The last lines of a run: what came out in plain words, where it is, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mtl.console import number, percent
from mtl.recipe.task_spec import TaskSpec
from mtl.training.events import Ended
from mtl.training.trainer import Trainer

SHOWN = 6
"""Most tasks that have a line each; of more tasks, the best and the worst are told."""
SENTENCES = {
    "accuracy": "{share} of test labels predicted right",
    "balanced_accuracy": "{share} of the test labels of a class predicted right, as a mean over the classes",
    "auroc": "tells positive from negative rows in {share} of pairs (chance: 50%)",
    "macro_auroc": "tells rows with a label from rows without it in {share} of pairs (chance: 50%)",
    "r2": "explains {share} of how the test labels vary",
    "rmse": "misses a test label by {value} (root mean square)",
    "mae": "misses a test label by {value} on average",
    "quadratic_kappa": "agrees with the test labels at {value}, where 0 is chance and 1 is perfect",
    "cohen_kappa": "agrees with the test labels at {value}, where 0 is chance and 1 is perfect",
}
"""Metric -> what it says of one task; a metric that is not here is told by its name."""


def closing_lines(trainer: Trainer, path: Path, ended: Ended) -> Iterator[str]:
    """What a reader who knows no metric wants to know of a run that is finished.

    Args:
        trainer: the trainer of the run.
        path: the run folder.
        ended: the end of the run, with its results.
    """
    tasks = trainer.recipe.tasks
    values = {task: ended.metrics.get(f"test/{task}/{spec.headline}") for task, spec in tasks.items()}
    for label, task in _told(tasks, values):
        yield f"{label}{task}: {in_words(tasks[task], values[task])}"
    drawn = any((path / "plots").glob("*.png"))
    yield f"run folder: {path}  (results in metrics.csv{', pictures in plots/' if drawn else ''})"
    if (path / "report.html").is_file():
        yield f"report: {path / 'report.html'}  (one page; open it in a browser)"
    yield from _next(trainer, path, ended.plugins)


def in_words(spec: TaskSpec, value: float | None) -> str:
    """The headline metric of a task as a sentence without its subject: `92% of test labels predicted right`."""
    metric = spec.headline.replace("_", " ")
    if value is None:
        return f"{metric} is undefined for its test labels"
    sentence = SENTENCES.get(spec.headline)
    if sentence is None or (spec.headline == "r2" and value < 0):
        worse = ", worse than the mean of the labels" if spec.headline == "r2" else ""
        return f"{metric} {number(value)}{worse}"
    unit = f" {spec.label_unit}" if spec.label_unit else ""
    return sentence.format(share=percent(value, 1) if 0 <= value <= 1 else "", value=number(value) + unit)


def _told(tasks: Mapping[str, TaskSpec], values: Mapping[str, float | None]) -> list[tuple[str, str]]:
    """(label, task) of the tasks that have a line."""
    if len(tasks) <= SHOWN:
        return [("", task) for task in tasks]
    known = {task: value for task, value in values.items() if value is not None}
    headlines = {spec.headline for spec in tasks.values()}
    if len(headlines) > 1 or not known:
        return [("", task) for task in list(tasks)[:SHOWN]]
    sign = 1 if next(iter(tasks.values())).higher_is_better else -1
    best, worst = (pick(known, key=lambda task: sign * known[task]) for pick in (max, min))
    return [(f"best of {len(tasks)}, ", best), ("worst, ", worst)]


def _next(trainer: Trainer, path: Path, plugins: Sequence[str]) -> Iterator[str]:
    """What to do next, and its command: predict, compare with networks that share nothing, or measure again."""
    needed = "".join(f" --plugin {shlex.quote(name)}" for name in plugins)
    run, tasks = shlex.quote(str(path)), trainer.recipe.tasks
    if trainer.dataset.learned.layout is not None:
        yield "next: predict the rows of a file, which needs no labels:"
        yield f"  mtl predict {run} --input FILE --output predicted.csv{needed}"
    elif trainer.recipe.model.sharing.kind != "none" and len(tasks) > 1:
        again = shlex.quote(str(path / "recipe.resolved.yaml"))
        yield "next: does sharing help? Compare it with networks that share nothing:"
        yield f"  mtl compare {again}{needed}"
    else:
        yield "next: measure it again:"
        yield f"  mtl eval {run}{needed}"
