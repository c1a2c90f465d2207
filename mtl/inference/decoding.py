"""Turns logits into the columns of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtl.build import Built
from mtl.data.types import Array
from mtl.errors import UserError, quoted
from mtl.recipe.keys.recipe import Recipe

Predictions = dict[str, Array | list[Any]]


def decoded(recipe: Recipe, built: Built, logits: Mapping[str, Tensor]) -> Predictions:
    """The predictions of all tasks, in their order, from the logits (B, T, O) of each task group.

    Raises:
        UserError: two tasks give a column of the same name.
    """
    predicted = {
        group.name: built.model.modules_of_tasks()[group.name].predict(logits[group.name].float())
        for group in built.groups
    }
    place = {task: (group, t) for group in built.groups for t, task in enumerate(group.tasks)}
    columns: Predictions = {}
    for task, spec in recipe.tasks.items():
        group, t = place[task]
        own = {name: values[:, t].cpu().numpy() for name, values in predicted[group.name].items()}
        found = spec.decode(own, group.outputs[t])
        for suffix, values in found.items():
            if task + suffix in columns:
                raise UserError(
                    "", f"another task predicts a column {quoted(task + suffix)} too", "rename one of the two",
                    path=("tasks", task),
                )  # fmt: skip
            columns[task + suffix] = values
    return columns


def check_columns(recipe: Recipe, built: Built) -> None:
    """Refuse tasks whose predictions would have equal column names; this is checked before training begins.

    Raises:
        UserError: two tasks give a column of the same name.
    """
    device = next(built.model.parameters()).device
    logits = {
        group.name: torch.zeros(1, len(group.tasks), group.n_outputs, device=device) for group in built.groups
    }
    with recipe.at():
        decoded(recipe, built, logits)
