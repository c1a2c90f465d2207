"""The metrics of a reference model from its logits, by the code that measures networks.

Shapes: O outputs per task.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mtl.build import Built
from mtl.comparison.references.replay import replayed
from mtl.dataset.assemble import Dataset
from mtl.dataset.undefined import fitted_by
from mtl.evaluation.decisions import apply, fit_decisions
from mtl.evaluation.evaluate import evaluate
from mtl.evaluation.meter import Values
from mtl.recipe.keys.recipe import Recipe
from mtl.task_groups import TaskGroup


@dataclass(frozen=True)
class Predicted:
    """What a reference model says of rows.

    Args:
        logits: split -> task -> (rows of the split, O), in the order of the split; `test`, and `validation` where the
            model was asked for it. A row without a label may have any logits. A task may be absent from both.
        answers_only: the tasks of which only the answers are known, so that most metrics mean nothing.
        facts: what the record should hold about the model, without clocks.
        seconds: task -> how long it took.
        told: facts that the user should know, one line each.
    """

    logits: Mapping[str, Mapping[str, Tensor]]
    answers_only: frozenset[str] = frozenset()
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """A reference model as a network that replays its logits, and its metrics.

    Args:
        built: the network, with the thresholds and temperatures that were fitted on validation.
        dataset: the rows that it knows, under the names of their splits.
        values: `<split>/<task>/<metric>` -> value, as in the results of a run.
    """

    built: Built
    dataset: Dataset
    values: Values


def scored(
    recipe: Recipe, groups: Sequence[TaskGroup], dataset: Dataset, predicted: Predicted
) -> tuple[Scored, list[str]]:
    """The metrics of a reference model on the splits that it predicted, and lines that the user should know.

    Thresholds and temperatures are fitted on the validation rows, as for a network, if the model predicted them. A
    task with answers only has no loss and none of the metrics that need probabilities; an absent task has no metrics.

    Args:
        recipe: the checked recipe.
        groups: the task groups of `task_groups(recipe, dataset.learned)`.
        dataset: the rows.
        predicted: what the model says of them.
    """
    built, rows = replayed(groups, dataset, predicted.logits)
    told = list(predicted.told)
    given = {task for own in predicted.logits.values() for task in own}
    decided = given - predicted.answers_only
    if "validation" in rows.splits:
        decisions = fit_decisions(recipe, built, rows)
        apply(built, {task: own for task, own in decisions.items() if task in decided})
    elif asking := [task for task, spec in recipe.tasks.items() if fitted_by(spec) and task in decided]:
        told.append(
            f"{', '.join(asking[:6])}{', ...' if len(asking) > 6 else ''}: no predictions of validation rows, so that "
            "no threshold and no temperature is fitted"
        )
    values: Values = {}
    for split, own in rows.splits.items():
        values |= evaluate(built.model, recipe.tasks, rows, own, split)
    return Scored(built, rows, _meaningful(recipe, values, given, predicted.answers_only)), told


def _meaningful(
    recipe: Recipe, values: Values, given: Collection[str], answers_only: Collection[str]
) -> Values:
    """The values without those that absent tasks, and tasks with answers only, cannot have."""

    def means_something(name: str) -> bool:
        _, task, metric = name.split("/")
        if task == "mean":
            return len(given) == len(recipe.tasks) and not (answers_only and metric == "loss")
        if task not in given:
            return False
        return task not in answers_only or metric in ("labels", *recipe.tasks[task].answer_metrics)

    return {name: value for name, value in values.items() if means_something(name)}
