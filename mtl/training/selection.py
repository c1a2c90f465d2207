"""The selection of the best step of a run by validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mtl.dataset.assemble import Dataset
from mtl.dataset.undefined import Undefined, defined_tasks
from mtl.errors import UserError, quoted
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import mean_metric
from mtl.training.progress import Progress

TODO = "name another metric, or split otherwise"


def selecting_metric(recipe: Recipe, undefined: Undefined | None) -> tuple[str, bool] | None:
    """The validation metric that selects a step, and whether a higher value is better; None: the last step is taken.

    By default it is the mean over tasks, and the mean loss if the labels of validation define that mean for no task.

    Args:
        recipe: the recipe.
        undefined: the metrics that the labels of validation cannot define; None: there is no validation split.

    Raises:
        UserError: the labels cannot define the metric that the recipe names, or any; the path is relative to
            `train.early_stopping`.
    """
    stopping, tasks = recipe.train.early_stopping, recipe.tasks
    if undefined is None:
        return None
    if stopping is not None and stopping.metric is not None:
        _, task, metric = stopping.metric.split("/")
        _require_defined(recipe, undefined, task, metric)
        spec = tasks.get(task, next(iter(tasks.values())))
        return stopping.metric, metric != "loss" and bool(spec.known_metrics[metric])
    mean = mean_metric(tasks)
    if mean != "loss" and _in_mean(recipe, undefined, mean):
        return f"validation/mean/{mean}", bool(next(iter(tasks.values())).known_metrics[mean])
    if _in_mean(recipe, undefined, "loss"):
        return "validation/mean/loss", False
    if stopping is not None:
        what = "no task with a weight has a loss in validation, so nothing tells when to stop"
        raise UserError("", what, "split otherwise")
    return None


def _in_mean(recipe: Recipe, undefined: Undefined, metric: str) -> list[str]:
    """The tasks over which a metric is averaged; a loss is averaged by the weights of the tasks."""
    defined = defined_tasks(recipe.tasks, undefined, metric)
    return [task for task in defined if metric != "loss" or recipe.tasks[task].weight > 0]


def _require_defined(recipe: Recipe, undefined: Undefined, task: str, metric: str) -> None:
    """Refuse a named metric that will never have a value."""
    if task == "mean" and not _in_mean(recipe, undefined, metric):
        raise UserError("", f"no task has the metric {metric} in validation", TODO, path=("metric",))
    why = undefined.get(task, {}).get(metric)
    if why is not None:
        what = f"task {quoted(task)} has {why} in validation, so that it has no {metric} there"
        raise UserError("", what, TODO, path=("metric",))


def notices_on_selection(recipe: Recipe, dataset: Dataset) -> Iterator[str]:
    """Yield a notice if validation selects the step in another way than the recipe lets expect."""
    undefined = dataset.undefined.get("validation")
    if undefined is None or recipe.train.select == "last":
        return
    found, mean = selecting_metric(recipe, undefined), mean_metric(recipe.tasks)
    if found is None:
        yield "no task with a weight has a loss in validation: the last step is taken"
    elif found[0] == "validation/mean/loss" and mean != "loss":
        yield f"no task has the metric {mean} in validation: the mean loss chooses the step"


def selected_alone(recipe: Recipe) -> dict[str, tuple[str, bool]]:
    """Task -> the validation metric that selects its own step, and whether higher is better; its headline, or the loss.

    Empty unless the recipe says `train.select: best_of_each`.
    """
    if recipe.train.select != "best_of_each":
        return {}
    directed = {task: spec.known_metrics[spec.headline] for task, spec in recipe.tasks.items()}
    return {
        task: (
            f"validation/{task}/{'loss' if directed[task] is None else spec.headline}",
            bool(directed[task]),
        )
        for task, spec in recipe.tasks.items()
        if spec.weight > 0
    }


def select(
    progress: Progress,
    row: dict[str, Any],
    selecting: tuple[str, bool] | None,
    patience: int | None,
    of_tasks: Mapping[str, tuple[str, bool]] | None = None,
) -> bool:
    """Update the progress from a validation row, and return whether this row is the best so far, for any metric.

    A row whose selecting metric has no value changes nothing: it is neither better nor counted by early stopping.

    Args:
        progress: the position of the run.
        row: a line of metrics.jsonl.
        selecting: the result of `selecting_metric`.
        patience: the evaluations without a better value after which the training ends; None: it never ends early.
        of_tasks: the result of `selected_alone`.
    """
    value = None if selecting is None else row[selecting[0]]
    if selecting is None or value is None:
        return False
    improved = [_better_of_task(progress, row, task, *own) for task, own in (of_tasks or {}).items()]
    if progress.best is None or _is_better(value, progress.best, selecting[1]):
        progress.best, progress.best_epoch, progress.best_step = value, row["epoch"], progress.step
        improved.append(True)
    if any(improved):
        progress.stale = 0
    else:
        progress.stale += 1
        progress.stopped = patience is not None and progress.stale >= patience
    return any(improved)


def _better_of_task(progress: Progress, row: dict[str, Any], task: str, metric: str, higher: bool) -> bool:
    """Update the best step of one task, and return whether this row is it."""
    value, before = row[metric], progress.bests.get(task)
    if value is None or (before is not None and not _is_better(value, before["value"], higher)):
        return False
    progress.bests[task] = {"value": value, "epoch": row["epoch"], "step": progress.step}
    return True


def _is_better(value: float, than: float, higher: bool) -> bool:
    return value > than if higher else value < than
