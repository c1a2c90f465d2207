"""Recipes on the table of the tests of reference models."""

from pathlib import Path
from typing import Any

from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.recipe.keys.recipe import Recipe
from mtl.task_groups import TaskGroup, task_groups
from tests.support.recipes import recipe

KINDS: dict[str, dict[str, Any]] = {
    "multiclass": {"target": "sort"},
    "binary": {"target": "yes"},
    "multilabel": {"targets": ["often", "rare"]},
    "ordinal": {"target": "grade"},
    "regression": {"target": "amount"},
}
EVERY: dict[str, Any] = {kind: {"kind": kind, **options} for kind, options in KINDS.items()}
INPUTS: dict[str, Any] = {"numeric": ["x0", "x1", "x2"], "categorical": ["city"], "missing": "mean"}
SPLIT = {"validation": 0.2, "test": 0.25}


def made(
    path: Path,
    tasks: dict[str, Any] = EVERY,
    inputs: dict[str, Any] = INPUTS,
    split: Any = None,
    **source: Any,
) -> tuple[Recipe, Dataset, tuple[TaskGroup, ...]]:
    """A recipe, its rows and its task groups."""
    of = {"kind": "table", "path": str(path), "inputs": inputs, **source}
    checked = recipe(data={"source": of, "split": SPLIT if split is None else split}, tasks=tasks)
    dataset = load_dataset(checked, header_of(checked))
    return checked, dataset, task_groups(checked, dataset.learned)
