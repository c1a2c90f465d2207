"""A few rows pass through every part that a plug-in may define, before a run writes to the disk.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

import copy

import torch

from mtl.contracts import (
    check_decoded,
    check_losses,
    check_metrics,
    check_predicted,
    check_row_loss,
    of_module,
)
from mtl.dataset.batch import Batch
from mtl.errors import UserError, quoted
from mtl.evaluation.evaluate import evaluation_mode
from mtl.evaluation.meter import new_metric, weight_in_metrics
from mtl.model.tasks.module import TaskModule
from mtl.task_groups import TaskGroup
from mtl.training.trainer import Trainer
from mtl.training.weighting_contract import check_combined, check_objective

ROWS = 8


def rehearse(trainer: Trainer) -> None:
    """Compute losses, metrics, predictions and the weighting on the first training rows; the trainer stays unchanged.

    Raises:
        UserError: the result of a part breaks the contract of its family.
    """
    first = trainer.dataset.splits["train"][:ROWS].copy()
    if trainer.sampler.smallest == 1:
        _rehearse_single_row(trainer, trainer.dataset.rows.batch(first[:1]))
    batch = trainer.dataset.rows.batch(first)
    with evaluation_mode(trainer.built.model):
        logits = trainer.built.model(batch.inputs)
    sums = [
        _rehearse_group(trainer, group, logits.groups[group.name], batch) for group in trainer.built.groups
    ]
    _rehearse_weighting(trainer, trainer.in_order(sums))


def _rehearse_weighting(trainer: Trainer, losses_N: torch.Tensor) -> None:
    with trainer.recipe.at("weighting"):
        weighting = copy.deepcopy(trainer.weighting)  # a weighting that keeps losses must not keep these
        seen_N = torch.ones_like(losses_N, dtype=torch.bool)
        if weighting.needs == "gradients":
            n_shared = trainer.shared.n_shared if trainer.shared is not None else 0
            jacobian_SP = losses_N.new_ones(len(losses_N), max(n_shared, 1))
            if weighting.batches > 1:
                jacobian_SP = jacobian_SP.expand(weighting.batches, -1, -1)
            check_combined(weighting, weighting.combine(jacobian_SP, losses_N.detach(), seen_N), jacobian_SP)
        else:
            check_objective(weighting, losses_N, seen_N)
        _require_positive(trainer, losses_N)


def _require_positive(trainer: Trainer, losses_N: torch.Tensor) -> None:
    """Refuse a loss that is not positive, where the weighting needs positive ones.

    Raises:
        UserError: the loss of a task is 0 or less on the first training rows.
    """
    if not trainer.weighting.positive:
        return
    for task, loss in zip(trainer.recipe.tasks, losses_N.tolist(), strict=True):
        if loss <= 0:
            kind = trainer.recipe.weighting.kind
            what = f"{kind} needs positive losses, and that of task {quoted(task)} is {loss:g}"
            raise UserError("", what, "take a weighting of any losses, such as sum or rlw", path=("kind",))


def _rehearse_single_row(trainer: Trainer, batch: Batch) -> None:
    """Refuse a batch of one row if the network has a batch norm, which has no variance of one value."""
    model = copy.deepcopy(trainer.built.model).train()
    with trainer.recipe.at("train", "batch_size"):
        try:
            model(batch.inputs)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "", "a batch of one row cannot be normalized over the batch",
                "take model.backbone.norm.kind: layer or none, or batches of more rows",
            ) from None  # fmt: skip


def _rehearse_group(
    trainer: Trainer, group: TaskGroup, logits_BTO: torch.Tensor, batch: Batch
) -> torch.Tensor:
    spec, n_tasks, module = group.spec, len(group.tasks), trainer.modules[group.name]
    with trainer.recipe.at("tasks", group.tasks[0]):
        logits_BTO = logits_BTO.float()
        target, present = batch.target[group.name], batch.present[group.name]
        if (
            type(module).row_loss is not TaskModule.row_loss
        ):  # a module with its own `loss` needs no `row_loss`
            check_row_loss(module, module.row_loss(logits_BTO, target), tuple(present.shape))
        found = module.loss(logits_BTO, target, batch.weight[group.name])
        check_losses(module, found, n_tasks, logits_BTO)
        names = tuple(
            dict.fromkeys(m for task in group.tasks for m in trainer.recipe.tasks[task].metric_names)
        )
        with torch.no_grad():
            metric = module.metric(frozenset(names))
            if not callable(getattr(metric, "update", None)):
                raise of_module(
                    module, "metric", f"gives an object of type {type(metric).__name__}, not a Metric"
                )
            metric, tasks = new_metric(module, trainer.recipe.tasks, trainer.device), trainer.recipe.tasks
            metric.update(
                logits_BTO.detach(), target, weight_in_metrics(batch, group.name, group.tasks, tasks)
            )
            check_metrics(module, metric.compute(), names, n_tasks)
            predicted = check_predicted(module, module.predict(logits_BTO.detach()), n_tasks, len(batch.rows))
            for t in range(n_tasks):
                own = {name: values[:, t].cpu().numpy() for name, values in predicted.items()}
                check_decoded(spec, spec.decode(own, group.outputs[t]), len(batch.rows))
    return found[0]
