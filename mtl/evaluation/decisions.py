"""Thresholds and temperatures, which are fitted on the validation split after training."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from mtl.build import Built
from mtl.dataset.assemble import Dataset
from mtl.dataset.undefined import fitted_by
from mtl.evaluation.evaluate import evaluation_mode, passes
from mtl.evaluation.meter import weight_in_metrics
from mtl.model.tasks.module import TaskModule
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import TaskSpec

Decisions = dict[str, dict[str, tuple[float, ...]]]


def fit_decisions(recipe: Recipe, built: Built, dataset: Dataset) -> Decisions:
    """Task -> `temperature` and `threshold`, for the tasks that ask for them and whose labels can determine them.

    The temperature minimizes the negative log likelihood of logits / temperature (Guo et al. 2017,
    arXiv:1706.04599). The threshold maximizes its metric over the probabilities of the rows. Rows count as in the
    metrics: all alike, or by their weights if the task says `metrics_weighted`.
    """
    lacking = dataset.undefined.get("validation", {})
    wanted = {
        task: [name for name in fitted_by(spec) if name not in lacking.get(task, {})]
        for task, spec in recipe.tasks.items()
    }
    asking = {
        name: [t for t, task in enumerate(module.tasks) if wanted[task]]
        for name, module in built.model.modules_of_tasks().items()
    }
    found: Decisions = {}
    if any(asking.values()):
        for name, (logits_NAO, target_NA, weight_NA) in _on_validation(
            built, dataset, asking, recipe
        ).items():
            module = built.model.modules_of_tasks()[name]
            for a, t in enumerate(asking[name]):
                task, there = module.tasks[t], weight_NA[:, a] > 0
                weight_B = weight_NA[there, a] if recipe.tasks[task].metrics_weighted else None
                rows = logits_NAO[there, a], target_NA[there, a]
                found[task] = decide(recipe.tasks[task], module, *rows, wanted[task], weight_B)
    return {task: found[task] for task in recipe.tasks if task in found}


@torch.inference_mode()
def _on_validation(
    built: Built, dataset: Dataset, asking: Mapping[str, Sequence[int]], recipe: Recipe
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Task group -> logits (n, A, O), targets and weights in metrics (n, A) of its A asking tasks, on the CPU."""
    modules = built.model.modules_of_tasks()
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in asking if asking[name]}
    with evaluation_mode(built.model):
        for batch, logits in passes(built.model, dataset, dataset.splits["validation"]):
            for name, kept in parts.items():
                weight_BT = weight_in_metrics(batch, name, modules[name].tasks, recipe.tasks)
                whole = (logits.groups[name].float(), batch.target[name], weight_BT)
                logits_BAO, target_BA, weight_BA = (part[:, list(asking[name])].cpu() for part in whole)
                kept.append((logits_BAO, target_BA, weight_BA))
    joined = {name: [torch.cat(pieces) for pieces in zip(*kept, strict=True)] for name, kept in parts.items()}
    return {name: (logits, target, weight) for name, (logits, target, weight) in joined.items()}


def decide(
    spec: TaskSpec,
    module: TaskModule,
    logits_BO: Tensor,
    target: Tensor,
    wanted: Collection[str],
    weight_B: Tensor | None = None,
) -> dict[str, tuple[float, ...]]:
    """The temperature and the threshold of each output, if they are wanted.

    Args:
        spec: the task.
        module: the module of its task group.
        logits_BO: the logits of the rows that have a label.
        target: (B,) or (B, O), where -1 marks an unknown label of a multilabel task.
        wanted: `temperature`, `threshold`, or both.
        weight_B: the weights of the rows, above 0; by default all count alike.
    """
    decision: dict[str, tuple[float, ...]] = {}
    temperature = torch.ones(1)
    if "temperature" in wanted:
        decision["temperature"] = (fitted_temperature(module, logits_BO, target, weight_B),)
        temperature = torch.tensor(decision["temperature"])
    if "threshold" in wanted:
        metric: str = getattr(spec, "fit_threshold")  # noqa: B009
        # float64, since a vectorized float32 sigmoid gives equal logits probabilities that differ in the last bit
        p_BO = (logits_BO.double() / temperature).sigmoid().float()
        target_BO = target.view(len(target), -1)
        default: float = getattr(spec, "threshold", 0.5)
        weight_B = torch.ones(len(target)) if weight_B is None else weight_B
        decision["threshold"] = tuple(
            best_threshold(p_B[known], target_B[known], metric, default, weight_B[known])
            for p_B, target_B, known in zip(p_BO.T, target_BO.T, target_BO.T >= 0, strict=True)
        )
    return decision


def fitted_temperature(
    module: TaskModule, logits_BO: Tensor, target: Tensor, weight_B: Tensor | None = None
) -> float:
    """The temperature, between 0.05 and 20, that makes the labels most likely, each row by its weight."""
    from scipy.optimize import minimize_scalar  # it takes 0.3 s to load, before the first step of training

    logits_BO = logits_BO.double()

    def loss(log_temperature: float) -> float:
        return float(module.negative_log_likelihood(logits_BO / math.exp(log_temperature), target, weight_B))

    return math.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x)


def best_threshold(
    p_B: Tensor, target_B: Tensor, metric: str, default: float = 0.5, weight_B: Tensor | None = None
) -> float:
    """The threshold that gives the highest f1, balanced accuracy or accuracy; the answer is yes from it upwards.

    The threshold lies half way between two neighbouring probabilities of the rows, 0 and 1, in float32. If several
    thresholds are equally good, the highest one is taken. If all rows have the same answer, the result is `default`.
    `weight_B` are the weights of the rows, above 0; by default all count alike.
    """
    p, order = p_B.float().sort(descending=True)
    weight = torch.ones_like(p_B) if weight_B is None else weight_B
    weight, zero = weight[order].double(), torch.zeros(1, dtype=torch.float64)
    yes, no = weight * (target_B[order] == 1), weight * (target_B[order] == 0)
    tp, fp = torch.cat([zero, yes.cumsum(0)]), torch.cat([zero, no.cumsum(0)])
    positives, negatives = yes.sum(), no.sum()
    if positives == 0 or negatives == 0:
        return default
    if metric == "f1":
        score = 2 * tp / (tp + fp + positives)
    elif metric == "balanced_accuracy":
        score = (tp / positives + (negatives - fp) / negatives) / 2
    else:
        score = (tp + negatives - fp) / (positives + negatives)
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
