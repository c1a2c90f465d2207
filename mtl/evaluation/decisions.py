"""Thresholds and temperatures, fitted on the validation split once training is over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mtl.build import Built
from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.evaluation.evaluate import BATCH, evaluation_mode
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import TaskSpec
from mtl.task_groups import TaskGroup

Decisions = dict[str, dict[str, tuple[float, ...]]]


def wants_decisions(spec: TaskSpec) -> bool:
    """Whether something of a task is to be fitted on validation."""
    return bool(getattr(spec, "temperature", False) or getattr(spec, "fit_threshold", None))


def fit_decisions(recipe: Recipe, built: Built, dataset: Dataset) -> Decisions:
    """Task -> `temperature` and `threshold`, for the tasks that ask for them.

    The temperature minimizes the negative log likelihood of logits / temperature (Guo et al. 2017,
    arXiv:1706.04599); the threshold maximizes its metric over the probabilities that rows have. Rows count
    alike, as in the metrics: sample weights are for the loss alone.
    """
    found: Decisions = {}
    for group in built.groups:
        asking = [t for t, task in enumerate(group.tasks) if wants_decisions(recipe.tasks[task])]
        if not asking:
            continue
        rows = dataset.splits["validation"]
        logits_NTO = group_logits(built, group, dataset, rows, asking)
        index = torch.from_numpy(rows).to(dataset.inputs.device)
        target, present = dataset.targets(group.name, index).cpu(), dataset.present[group.name][index].cpu()
        for position, t in enumerate(asking):
            there = present[:, t]
            spec = recipe.tasks[group.tasks[t]]
            found[group.tasks[t]] = decide(spec, logits_NTO[there, position], target[there, t])
    return {task: found[task] for task in recipe.tasks if task in found}


def decide(spec: TaskSpec, logits_BO: Tensor, target: Tensor) -> dict[str, tuple[float, ...]]:
    """The temperature and the threshold of each output, as far as a task asks for them.

    Args:
        spec: the task.
        logits_BO: of the rows that have a label.
        target: (B,) or (B, O), -1 where one of several labels is not known.
    """
    decision: dict[str, tuple[float, ...]] = {}
    temperature = torch.ones(1)
    if getattr(spec, "temperature", False):
        decision["temperature"] = (fitted_temperature(spec, logits_BO, target),)
        temperature = torch.tensor(decision["temperature"])
    metric = getattr(spec, "fit_threshold", None)
    if metric is not None:
        p_BO = (logits_BO / temperature).sigmoid()
        target_BO = target.view(len(target), -1)
        default: float = getattr(spec, "threshold", 0.5)
        decision["threshold"] = tuple(
            best_threshold(p_B[target_B >= 0], target_B[target_B >= 0], metric, default)
            for p_B, target_B in zip(p_BO.T, target_BO.T, strict=True)
        )
    return decision


def fitted_temperature(spec: TaskSpec, logits_BO: Tensor, target: Tensor) -> float:
    """The temperature, between 0.05 and 20, that makes the labels most likely."""
    logits_BO = logits_BO.double()

    def loss(log_temperature: float) -> float:
        nll = spec.nll(logits_BO / math.exp(log_temperature), target)
        assert nll is not None
        return float(nll)

    return math.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x)


def best_threshold(p_B: Tensor, target_B: Tensor, metric: str, default: float = 0.5) -> float:
    """The probability from which on `yes` gives the highest f1, balanced accuracy or accuracy.

    It lies half way between two neighbouring probabilities of the rows, in float32 as they are; of several
    that are as good, the highest. Without both answers among the rows nothing can be chosen: `default`.
    """
    p, order = p_B.float().sort(descending=True)
    yes = target_B[order].double()
    tp = torch.cat([torch.zeros(1, dtype=torch.float64), yes.cumsum(0)])
    n = torch.arange(len(tp), dtype=torch.float64)
    fp, positives = n - tp, yes.sum()
    negatives = len(p) - positives
    if positives == 0 or negatives == 0:
        return default
    if metric == "f1":
        score = 2 * tp / (n + positives)
    elif metric == "balanced_accuracy":
        score = (tp / positives + (negatives - fp) / negatives) / 2
    else:
        score = (tp + negatives - fp) / len(p)
    end = torch.tensor([True])
    best = int(torch.where(torch.cat([end, p[1:] < p[:-1], end]), score, -1.0).argmax())
    if best == 0:
        return float(torch.nextafter(p[:1], torch.tensor(2.0)))
    lowest_yes, below = p[best - 1], p[best] if best < len(p) else torch.tensor(0.0)
    middle = (lowest_yes + below) / 2
    return float(middle if middle > below else lowest_yes)


@torch.inference_mode()
def group_logits(
    built: Built, group: TaskGroup, dataset: Dataset, rows: Rows, asking: Sequence[int]
) -> Tensor:
    """(N, A, O) logits on some rows of A tasks of one group, by their positions there, on the CPU."""
    device = next(built.model.parameters()).device
    parts: list[Tensor] = []
    with evaluation_mode(built.model):
        for start in range(0, len(rows), BATCH):
            index = torch.from_numpy(rows[start : start + BATCH]).to(device)
            logits_BTO = built.model.forward_groups(dataset.inputs[index])[group.name]
            parts.append(logits_BTO[:, list(asking)].float().cpu())
    return torch.cat(parts)


def with_decisions(groups: Sequence[TaskGroup], decisions: Decisions) -> tuple[TaskGroup, ...]:
    """The groups with the fitted numbers among their constants; a task without one has 1, as a temperature."""
    changed = []
    for group in groups:
        constants = dict(group.constants)
        for name in dict.fromkeys(n for task in group.tasks for n in decisions.get(task, {})):
            column = constants.get(name, torch.ones(len(group.tasks))).clone()
            for t, task in enumerate(group.tasks):
                if name in decisions.get(task, {}):
                    column[t] = torch.tensor(decisions[task][name]).view(column[t].shape)
            constants[name] = column
        changed.append(replace(group, constants=constants))
    return tuple(changed)
