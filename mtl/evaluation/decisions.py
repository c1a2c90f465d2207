"""Thresholds and temperatures, fitted on the validation split once training is over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mtl.build import Built, TaskGroup
from mtl.data.columns import Rows
from mtl.evaluation.evaluate import BATCH, evaluation_mode
from mtl.recipe.schema import Recipe
from mtl.recipe.spec import TaskSpec
from mtl.training.dataset import Dataset

Decisions = dict[str, dict[str, tuple[float, ...]]]


def wants_decisions(spec: TaskSpec) -> bool:
    """Whether something of a task is to be fitted on validation."""
    return bool(getattr(spec, "temperature", False) or getattr(spec, "fit_threshold", None))


def fit_decisions(recipe: Recipe, built: Built, dataset: Dataset) -> Decisions:
    """Task -> `temperature` and `threshold`, for the tasks that ask for them.

    The temperature minimizes the negative log likelihood of logits / temperature (Guo et al. 2017,
    arXiv:1706.04599); the threshold maximizes its metric over the probabilities that rows have.
    """
    found: Decisions = {}
    for group in built.groups:
        asking = [t for t, task in enumerate(group.tasks) if wants_decisions(recipe.tasks[task])]
        if not asking:
            continue
        logits_NTO = group_logits(built, group, dataset, dataset.splits["validation"])
        index = torch.from_numpy(dataset.splits["validation"])
        for t in asking:
            target = dataset.target[group.name][:, t].cpu()[index]
            there = dataset.present[group.name][:, t].cpu()[index]
            spec = recipe.tasks[group.tasks[t]]
            found[group.tasks[t]] = _decide(spec, logits_NTO[there, t], target[there])
    return found


def _decide(spec: TaskSpec, logits_BO: Tensor, target_B: Tensor) -> dict[str, tuple[float, ...]]:
    decision: dict[str, tuple[float, ...]] = {}
    temperature = 1.0
    if getattr(spec, "temperature", False):
        temperature = fitted_temperature(spec, logits_BO, target_B)
        decision["temperature"] = (temperature,)
    metric = getattr(spec, "fit_threshold", None)
    if metric is not None:
        p_B = (logits_BO[:, 0] / temperature).sigmoid()
        decision["threshold"] = (best_threshold(p_B, target_B, metric),)
    return decision


def fitted_temperature(spec: TaskSpec, logits_BO: Tensor, target_B: Tensor) -> float:
    """The temperature, between 0.05 and 20, that makes the labels most likely."""
    logits_BO = logits_BO.double()

    def loss(log_temperature: float) -> float:
        nll = spec.nll(logits_BO / torch.tensor(log_temperature).exp(), target_B)
        assert nll is not None
        return float(nll)

    return float(torch.tensor(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x).exp())


def best_threshold(p_B: Tensor, target_B: Tensor, metric: str) -> float:
    """The probability from which on `yes` gives the highest f1, balanced accuracy or accuracy.

    It lies half way between two neighbouring probabilities of the rows.
    """
    p, order = p_B.double().sort(descending=True)
    yes = target_B[order].double()
    tp = torch.cat([torch.zeros(1, dtype=torch.float64), yes.cumsum(0)])
    n = torch.arange(len(tp), dtype=torch.float64)
    fp, positives = n - tp, yes.sum()
    negatives = len(p) - positives
    if metric == "f1":
        score = 2 * tp / (n + positives).clamp(min=1)
    elif metric == "balanced_accuracy":
        score = (tp / positives.clamp(min=1) + (negatives - fp) / negatives.clamp(min=1)) / 2
    else:
        score = (tp + negatives - fp) / len(p)
    cut_there = torch.cat([torch.tensor([True]), p[1:] < p[:-1], torch.tensor([True])])
    best = int(torch.where(cut_there, score, -1.0).argmax())
    above = float(p[best - 1]) if best > 0 else 1.0
    below = float(p[best]) if best < len(p) else 0.0
    return min(max((above + below) / 2, 1e-6), 1 - 1e-6)


@torch.inference_mode()
def group_logits(built: Built, group: TaskGroup, dataset: Dataset, rows: Rows) -> Tensor:
    """(N, T, O) logits of one group on some rows, on the CPU."""
    device = next(built.model.parameters()).device
    parts: list[Tensor] = []
    with evaluation_mode(built.model):
        for start in range(0, len(rows), BATCH):
            index = torch.from_numpy(rows[start : start + BATCH]).to(device)
            parts.append(built.model.forward_groups(dataset.inputs[index])[group.name].float().cpu())
    return torch.cat(parts)


def with_decisions(groups: Sequence[TaskGroup], decisions: Decisions) -> tuple[TaskGroup, ...]:
    """The groups with the fitted numbers among their constants."""
    from dataclasses import replace

    changed = []
    for group in groups:
        constants = dict(group.constants)
        for name in dict.fromkeys(n for task in group.tasks for n in decisions.get(task, {})):
            column = constants.get(name, torch.ones(len(group.tasks))).clone()
            for t, task in enumerate(group.tasks):
                if name in decisions.get(task, {}):
                    column[t] = decisions[task][name][0]
            constants[name] = column
        changed.append(replace(group, constants=constants))
    return tuple(changed)
