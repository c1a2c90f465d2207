"""The changes that a recipe asks for in labels and rows, after everything was learned from the labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtl.data.types import Rows
from mtl.dataset.controls.permutation import Codes, permuted
from mtl.dataset.controls.rows import labelled_only
from mtl.dataset.join import Joined
from mtl.dataset.labels import TaskLabels
from mtl.recipe.keys.recipe import Recipe


def changed(
    recipe: Recipe, joined: Joined, tasks: Mapping[str, TaskLabels], splits: Mapping[str, Rows]
) -> tuple[dict[str, TaskLabels], dict[str, Rows], list[str]]:
    """Labels and splits after `permute_labels` and `drop_unlabelled`, and lines about what they changed.

    Raises:
        UserError: no row of validation has a label, and rows without one are left out.
    """
    found, rows, notices = dict(tasks), dict(splits), []
    if recipe.data.permute_labels is not None:
        found, said = permuted(recipe.data.permute_labels, tasks, splits, blocks_of(recipe, joined))
        notices += said
    if recipe.data.drop_unlabelled:
        with recipe.at("data", "drop_unlabelled"):
            rows, said = labelled_only(splits, tasks)
        notices += said
    return found, rows, notices


def blocks_of(recipe: Recipe, joined: Joined) -> Codes | None:
    """(n,) the codes of rows that the recipe, or the source, never divides between splits; None if there are none."""
    if recipe.data.split.group is not None:
        return joined.extra(recipe.data.split.group)[0].astype(np.int64, copy=False)
    return joined.units()
