"""The trivial baselines beside the results of a network: one answer for all rows, and a linear model.

Shapes: B batch, n rows, F inputs, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mtl.build import Built, inputs_of
from mtl.dataset.assemble import Dataset
from mtl.evaluation.decisions import apply, fit_decisions
from mtl.evaluation.evaluate import evaluate
from mtl.evaluation.linear import Examples, fit_linear
from mtl.evaluation.meter import Values
from mtl.model.stitched import StitchedMultiTower
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.module import TaskModule
from mtl.model.trunk import Trunk
from mtl.recipe.keys.recipe import Recipe
from mtl.task_groups import TaskGroup

CONSTANT, LINEAR = "constant", "linear"
MOST_NUMBERS = 2**22
"""Numbers of one matrix of a fit (34 MB); more rows than they hold are thinned out evenly."""
MOST_ROWS = 100_000
"""Rows that show the constant answer."""
FEWEST_ROWS = 1000
"""A linear model is left out if fewer rows than this, and not all of them, would fit into that matrix."""
WEIGHTS_OF_CLASSES = ("class_weight", "positive_weight")
"""Constants that a constant answer ignores: it is the most frequent class, however classes are weighed in the loss."""
SHOWN = 6
"""Most tasks of which a person is told one by one."""


class Flat(Trunk):
    """The trunk of a network without layers: its one reading is the row itself, or nothing if `width` is 0."""

    def __init__(self, n_tasks: int, width: int) -> None:
        super().__init__(("inputs",), (width,), [0] * n_tasks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, 1, F), or any (B, ...) -> (B, 1, 0)."""
        return x.unsqueeze(1) if self.shape[0] else torch.zeros(len(x), 1, 0, device=x.device)


def baselines(
    recipe: Recipe,
    groups: tuple[TaskGroup, ...],
    dataset: Dataset,
    split: str,
    between: Callable[[], None] = lambda: None,
) -> tuple[Values, list[str]]:
    """The headline metric of each task for two models that are fitted on the same training rows as the network.

    `<split>/<task>/constant` is the best single answer for all rows: the most frequent class, or the mean (the median
    where the loss is the absolute error). `<split>/<task>/linear` is `fit_linear` on the inputs of the network, with
    categories as one-hot vectors; it exists where a row is a vector of numbers. Thresholds and temperatures are fitted
    for each as for the network. Nothing here draws random numbers.

    Args:
        recipe: the checked recipe.
        groups: its task groups, as they were built.
        dataset: the rows.
        split: the split that is measured.
        between: called between the steps of the fits and between batches; an exception of it ends this function.

    Returns:
        The metrics, and a line about each thing that differs from a fit of all rows.
    """
    constant = flat_network(recipe, groups, dataset, 0)
    _fit(constant, dataset, between)
    values = headlines(recipe, constant, dataset, split, CONSTANT, between)
    if len(dataset.header.input_shape) > 1:
        return values, []
    linear = flat_network(recipe, groups, dataset, _width(dataset))
    reason = _too_large(linear, dataset)
    if reason:
        return values, [reason]
    told = _fit(linear, dataset, between)
    return {**values, **headlines(recipe, linear, dataset, split, LINEAR, between)}, told


def _width(dataset: Dataset) -> int:
    """F, the numbers that a linear model reads of one row."""
    inputs = inputs_of(dataset.learned, 1, one_hot=True)
    return int(getattr(inputs, "width", dataset.header.input_shape[0]))


def flat_network(recipe: Recipe, groups: tuple[TaskGroup, ...], dataset: Dataset, width: int) -> Built:
    """A network without layers: heads that read `width` inputs, with all weights zero."""
    modules: dict[str, TaskModule] = {}
    for group in groups:
        n_tasks = len(group.tasks)
        head = GroupedHead(group.tasks, [0] * n_tasks, 1, width, group.n_outputs)
        constants = {
            name: value.cpu()
            for name, value in group.constants.items()
            if width or name not in WEIGHTS_OF_CLASSES
        }
        with torch.no_grad():
            head.linear.weight.zero_()
        modules[group.name] = group.spec.build(head, constants)
    inputs = inputs_of(dataset.learned, 1, one_hot=True) if width else None
    return Built(StitchedMultiTower(Flat(len(recipe.tasks), width), modules, inputs), groups)


def _most_rows(module: TaskModule, width: int) -> int:
    """The rows that a fit takes. For a linear model logits cost eight times as much as inputs; a constant is cheap."""
    n_logits = len(module.tasks) * module.head.n_outputs
    if width == 0:
        return min(MOST_ROWS, max(1, MOST_NUMBERS // n_logits))
    return MOST_NUMBERS // (width + 8 * n_logits)


def _too_large(linear: Built, dataset: Dataset) -> str | None:
    """Why there is no linear model, or None."""
    width, n = linear.model.trunk.shape[0], len(dataset.splits["train"])
    for module in linear.model.modules_of_tasks().values():
        if _most_rows(module, width) < min(n, FEWEST_ROWS):
            size = f"{width:,} inputs and {len(module.tasks) * module.head.n_outputs:,} outputs"
            return f"no linear model beside the results: {size} are too many"
    return None


def _fit(built: Built, dataset: Dataset, between: Callable[[], None]) -> list[str]:
    """Fit the heads of a network without layers on the CPU, and move it to the device of the data."""
    width, told = built.model.trunk.shape[0], []
    for group, module in built.model.modules_of_tasks().items():
        train = _examples(built, dataset, "train", group)
        chooser = _examples(built, dataset, "validation", group) if "validation" in dataset.splits else None
        weight_FM, bias_M = fit_linear(module, train, chooser, between)
        with torch.no_grad():
            module.head.linear.weight.copy_(weight_FM.T)
            module.head.linear.get_parameter("bias").copy_(bias_M)
        n = int(_labelled(dataset, "train", group).sum())
        if width and len(train.x) < n:
            tasks = ", ".join(module.tasks[:SHOWN]) + (", ..." if len(module.tasks) > SHOWN else "")
            told.append(f"linear model of {tasks}: fitted on {len(train.x):,} of {n:,} training rows")
    built.to(dataset.rows.device)
    return told


def _labelled(dataset: Dataset, split: str, group: str) -> np.ndarray:
    """(n,) whether each row of a split has a label of the group."""
    there: np.ndarray = dataset.rows.present[group].any(1).cpu().numpy()[dataset.splits[split]]
    return there


@torch.no_grad()
def _examples(built: Built, dataset: Dataset, split: str, group: str) -> Examples:
    """The labelled rows of a split on the CPU, thinned out evenly if they are too many."""
    width = built.model.trunk.shape[0]
    rows = dataset.splits[split][_labelled(dataset, split, group)]
    most = _most_rows(built.model.modules_of_tasks()[group], width)
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    labels = dataset.rows.targets(rows)
    x = torch.zeros(len(rows), 0, dtype=torch.float64)
    if width:
        batch = dataset.rows.batch(rows)
        x = built.model.inputs(batch.inputs.cpu()).double()
    return Examples(x, labels.target[group].cpu(), labels.weight[group].cpu())


def headlines(
    recipe: Recipe, built: Built, dataset: Dataset, split: str, name: str, between: Callable[[], None]
) -> Values:
    """`<split>/<task>/<name>` -> the headline metric of each task."""
    apply(built, fit_decisions(recipe, built, dataset))
    values = evaluate(built.model, recipe.tasks, dataset, dataset.splits[split], split, between)
    return {
        f"{split}/{task}/{name}": values[f"{split}/{task}/{spec.headline}"]
        for task, spec in recipe.tasks.items()
    }
