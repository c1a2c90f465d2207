"""Thresholds and temperatures, which are fitted on the validation split after training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mtl.build import Built
from mtl.dataset.assemble import Dataset
from mtl.evaluation.evaluate import evaluation_mode, passes
from mtl.model.tasks.module import TaskModule
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import TaskSpec

Decisions = dict[str, dict[str, tuple[float, ...]]]


def wants_decisions(spec: TaskSpec) -> bool:
    """Whether a task asks for a temperature or a threshold that is fitted on validation."""
    return bool(getattr(spec, "temperature", False) or getattr(spec, "fit_threshold", None))


def fit_decisions(recipe: Recipe, built: Built, dataset: Dataset) -> Decisions:
    """Task -> `temperature` and `threshold`, for the tasks that ask for them.

    The temperature minimizes the negative log likelihood of logits / temperature (Guo et al. 2017,
    arXiv:1706.04599). The threshold maximizes its metric over the probabilities of the rows. All rows count alike, as
    in the metrics; sample weights affect the loss alone.
    """
    asking = {
        name: [t for t, task in enumerate(module.tasks) if wants_decisions(recipe.tasks[task])]
        for name, module in built.model.modules_of_tasks().items()
    }
    found: Decisions = {}
    if any(asking.values()):
        for name, (logits_NAO, target_NA, present_NA) in _on_validation(built, dataset, asking).items():
            module = built.model.modules_of_tasks()[name]
            for a, t in enumerate(asking[name]):
                task, there = module.tasks[t], present_NA[:, a]
                found[task] = decide(recipe.tasks[task], module, logits_NAO[there, a], target_NA[there, a])
    return {task: found[task] for task in recipe.tasks if task in found}


@torch.inference_mode()
def _on_validation(
    built: Built, dataset: Dataset, asking: Mapping[str, Sequence[int]]
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Task group -> logits (n, A, O), targets and presence (n, A) of its A asking tasks, on the CPU."""
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in asking if asking[name]}
    with evaluation_mode(built.model):
        for batch, logits in passes(built.model, dataset, dataset.splits["validation"]):
            for name, kept in parts.items():
                whole = (logits.groups[name].float(), batch.target[name], batch.present[name])
                logits_BAO, target_BA, present_BA = (part[:, list(asking[name])].cpu() for part in whole)
                kept.append((logits_BAO, target_BA, present_BA))
    joined = {name: [torch.cat(pieces) for pieces in zip(*kept, strict=True)] for name, kept in parts.items()}
    return {name: (logits, target, present) for name, (logits, target, present) in joined.items()}


def decide(
    spec: TaskSpec, module: TaskModule, logits_BO: Tensor, target: Tensor
) -> dict[str, tuple[float, ...]]:
    """The temperature and the threshold of each output, if the task asks for them.

    Args:
        spec: the task.
        module: the module of its task group.
        logits_BO: the logits of the rows that have a label.
        target: (B,) or (B, O), where -1 marks an unknown label of a multilabel task.
    """
    decision: dict[str, tuple[float, ...]] = {}
    temperature = torch.ones(1)
    if getattr(spec, "temperature", False):
        decision["temperature"] = (fitted_temperature(module, logits_BO, target),)
        temperature = torch.tensor(decision["temperature"])
    metric = getattr(spec, "fit_threshold", None)
    if metric is not None:
        # float64, since a vectorized float32 sigmoid gives equal logits probabilities that differ in the last bit
        p_BO = (logits_BO.double() / temperature).sigmoid().float()
        target_BO = target.view(len(target), -1)
        default: float = getattr(spec, "threshold", 0.5)
        decision["threshold"] = tuple(
            best_threshold(p_B[target_B >= 0], target_B[target_B >= 0], metric, default)
            for p_B, target_B in zip(p_BO.T, target_BO.T, strict=True)
        )
    return decision


def fitted_temperature(module: TaskModule, logits_BO: Tensor, target: Tensor) -> float:
    """The temperature, between 0.05 and 20, that makes the labels most likely."""
    logits_BO = logits_BO.double()

    def loss(log_temperature: float) -> float:
        return float(module.negative_log_likelihood(logits_BO / math.exp(log_temperature), target))

    return math.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x)


def best_threshold(p_B: Tensor, target_B: Tensor, metric: str, default: float = 0.5) -> float:
    """The threshold that gives the highest f1, balanced accuracy or accuracy; the answer is yes from it upwards.

    The threshold lies half way between two neighbouring probabilities of the rows, 0 and 1, in float32. If several
    thresholds are equally good, the highest one is taken. If all rows have the same answer, the result is `default`.
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
        return float(max((p[0] + 1) / 2, torch.nextafter(p[0], torch.tensor(2.0))))
    lowest_yes, below = p[best - 1], p[best] if best < len(p) else torch.tensor(0.0)
    middle = (lowest_yes + below) / 2
    return float(middle if middle > below else lowest_yes)


def apply(built: Built, decisions: Decisions) -> None:
    """Write the fitted numbers into the task modules."""
    for module in built.model.modules_of_tasks().values():
        for t, task in enumerate(module.tasks):
            module.decide(t, decisions.get(task, {}))
