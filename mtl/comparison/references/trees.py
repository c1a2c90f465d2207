"""Gradient-boosted trees beside a network: one model for each task, on the rows that have its label.

Shapes: B rows, O outputs per task, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl.comparison.references.boosting import Boosted, Loss, Sample, boosted, require_scikit_learn
from mtl.comparison.references.replay import module_of_task
from mtl.comparison.references.scored import Predicted
from mtl.comparison.references.tree_inputs import TreeInputs
from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.model.tasks.module import TaskModule
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import TaskSpec
from mtl.task_groups import TaskGroup


def fit_trees(
    recipe: Recipe,
    dataset: Dataset,
    groups: Sequence[TaskGroup],
    *,
    threads: int,
    between: Callable[[], None] = lambda: None,
) -> Predicted:
    """The logits of scikit-learn's HistGradientBoosting on the test rows, and on the validation rows if there are any.

    A classifier for each task of classes, or for each label; a regression of the squared error, or of the absolute
    error where the task's loss is that. Rows count by their sample weights and by the weights of classes, as in the
    task's loss. Label smoothing has no counterpart, and huber counts as the squared error. The validation rows choose
    the number of iterations (Friedman 2001); nothing else is tuned: the settings are scikit-learn's own.
    The matrix of inputs is copied for one model at a time: the rows that have its label, in about 20 bytes a number
    (measured on 270,000 rows of 50 columns), however many tasks there are.

    Args:
        recipe: the checked recipe.
        dataset: the rows.
        groups: the task groups of `task_groups(recipe, dataset.learned)`.
        threads: how many threads fit one model; the trees do not depend on it.
        between: called before each model; an exception of it ends this function.

    Raises:
        EnvironmentFault: scikit-learn is not installed, or too old.
        UserError: the rows are images, or a kind of task has no way back from predictions to logits.
    """
    version = require_scikit_learn()
    from threadpoolctl import threadpool_limits

    inputs = TreeInputs(dataset)
    modules = {
        task: module_of_task(group, t) for group in groups for t, task in enumerate(group.tasks)
    }  # refuses every kind that it has to before anything is fitted
    splits = [split for split in ("validation", "test") if split in dataset.splits]
    asked = np.concatenate([dataset.splits[split] for split in splits])
    cuts = np.cumsum([len(dataset.splits[split]) for split in splits])[:-1].tolist()
    logits: dict[str, dict[str, Tensor]] = {split: {} for split in splits}
    facts: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    with threadpool_limits(limits=threads, user_api="openmp"):
        for group in groups:
            for t, task in enumerate(group.tasks):
                began, fit = (
                    perf_counter(),
                    _Fit(recipe.tasks[task], modules[task], group, t, dataset, inputs),
                )
                found, models = fit.of_all_outputs(asked, between)
                for split, part in zip(splits, found.tensor_split(cuts), strict=True):
                    logits[split][task] = part
                facts[task] = _facts(models)
                seconds[task] = perf_counter() - began
    whole = {"library": f"scikit-learn {version}", "tasks": {task: facts[task] for task in recipe.tasks}}
    return Predicted(logits, facts=whole, seconds=seconds, told=tuple(inputs.told))


def _facts(models: Sequence[Boosted]) -> dict[str, Any]:
    """What the record holds about the models of one task; a task of several labels has one for each."""
    return {
        "iterations": [model.iterations for model in models],
        "chosen_by": [model.chosen_by for model in models],
        "rows": [model.n_rows for model in models],
    }


class _Fit:
    """The models of one task: how its labels become targets, and predictions its logits."""

    def __init__(
        self,
        spec: TaskSpec,
        module: TaskModule,
        group: TaskGroup,
        t: int,
        dataset: Dataset,
        inputs: TreeInputs,
    ) -> None:
        self.spec, self.module, self.group, self.t = spec, module, group, t
        self.dataset, self.inputs = dataset, inputs
        self.n_classes = len(group.outputs[t]) if module.answer == "class" else 2

    def of_all_outputs(self, asked: Rows, between: Callable[[], None]) -> tuple[Tensor, list[Boosted]]:
        """The logits (B, O) of the rows `asked`, and the models."""
        n_models = self.group.n_outputs if self.module.answer == "there" else 1
        models = []
        for o in range(n_models):
            between()
            models.append(self._boosted(o, asked))
        return self._logits(models), models

    def _boosted(self, o: int, asked: Rows) -> Boosted:
        train = self._sample("train", o)
        chooser = self._sample("validation", o) if "validation" in self.dataset.splits else None
        if self.module.answer != "value":
            return boosted(self.inputs, train, chooser, asked, "log_loss", self.n_classes)
        # standardized, since scikit-learn stops early by a tolerance that knows no unit
        mean, std = float(np.mean(train.y)), float(np.std(train.y)) or 1.0
        train, *rest = (
            Sample(sample.rows, (sample.y - mean) / std, sample.weight)
            for sample in (train, chooser)
            if sample is not None
        )
        absolute = getattr(self.spec, "loss", None) == "mae"
        loss: Loss = "absolute_error" if absolute else "squared_error"
        found = boosted(self.inputs, train, rest[0] if rest else None, asked, loss)
        return Boosted(mean + std * found.p, found.iterations, found.chosen_by, found.n_rows)

    def _sample(self, split: str, o: int) -> Sample:
        """The rows of a split that count in the loss of output o, with their weights there."""
        rows, name = self.dataset.splits[split], self.group.name
        labels = self.dataset.rows.targets_of_task(rows, name, self.t)
        target, weight = labels.target[name].cpu(), labels.weight[name].cpu()
        weight = self.module.row_weight(target, weight)[:, 0].double()
        y = target[:, 0]
        of_yes = self.module.weight_of_yes()
        if self.module.answer == "there":  # the loss of a row is the mean over its known labels
            known = y >= 0
            weight = torch.where(known[:, o], weight / known.sum(1).clamp(min=1), 0.0)
            y = y[:, o]
        if of_yes is not None:
            weight = torch.where(y == 1, weight * of_yes.reshape(-1)[o].double(), weight)
        return Sample(rows, y.numpy(), weight.numpy()).take((weight > 0).numpy())

    def _logits(self, models: Sequence[Boosted]) -> Tensor:
        found = [torch.from_numpy(model.p) for model in models]
        if self.module.answer == "value":
            predicted = {"value": found[0]}
        elif self.module.answer == "class":
            predicted = {"p": found[0].unsqueeze(1)}
        elif self.module.answer == "yes":
            predicted = {"p": found[0][:, 1:]}
        else:
            predicted = {"p": torch.stack([p[:, 1] for p in found], dim=1).unsqueeze(1)}
        return self.module.logits_of(predicted)[:, 0]
