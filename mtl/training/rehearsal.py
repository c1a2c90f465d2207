"""A few rows through everything that a plug-in may have written, before anything is written to disk.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

import copy

import torch

from mtl.evaluation.evaluate import evaluation_mode
from mtl.promises import broken, check_decoded, check_losses, check_metrics
from mtl.training.fit import Trainer

ROWS = 8


def rehearse(trainer: Trainer) -> None:
    """Losses, metrics, predictions and the weighting on the first training rows; changes nothing.

    Raises:
        UserError: a part does not give what its family promises.
    """
    index = torch.from_numpy(trainer.dataset.splits["train"][:ROWS].copy()).to(trainer.device)
    with evaluation_mode(trainer.built.model):
        logits = trainer.built.model.forward_groups(trainer.dataset.inputs[index])
    losses = [_rehearse_group(trainer, number, logits, index) for number in range(len(trainer.built.groups))]
    losses_N = torch.cat(losses).index_select(0, trainer._to_results)
    with trainer.recipe.at("weighting"):
        total = copy.deepcopy(trainer.weighting)(losses_N)  # one that keeps losses must not see these
        if getattr(total, "shape", None) != ():
            got = tuple(total.shape) if hasattr(total, "shape") else type(total).__name__
            raise broken(trainer.recipe.weighting, "build", f"weighs the losses to {got}, not to one number")


def _rehearse_group(
    trainer: Trainer, number: int, logits: dict[str, torch.Tensor], index: torch.Tensor
) -> torch.Tensor:
    group, dataset = trainer.built.groups[number], trainer.dataset
    spec, n_tasks = group.spec, len(group.tasks)
    with trainer.recipe.at("tasks", group.tasks[0]):
        logits_BTO = logits[group.name].float()
        target, present = dataset.targets(group.name, index), dataset.present[group.name][index]
        loss_T = spec.losses(logits_BTO, target, dataset.weights(group.name, index), group.constants)
        check_losses(spec, loss_T, n_tasks, logits_BTO)
        names = tuple(
            dict.fromkeys(m for task in group.tasks for m in trainer.recipe.tasks[task].metric_names)
        )
        with torch.no_grad():
            meter = spec.meter(n_tasks, group.n_outputs, frozenset(names), group.constants)
            if not callable(getattr(meter, "update", None)):
                raise broken(spec, "meter", f"gives an object of type {type(meter).__name__}, not a Metric")
            if trainer.device.type == "mps":  # which has no float64
                meter = meter.set_dtype(torch.float32)
            meter = meter.to(trainer.device)
            meter.update(logits_BTO.detach(), target, present)
            check_metrics(spec, meter.compute(), names, n_tasks)
            for t in range(n_tasks):
                found = spec.decode(logits_BTO[:, t].detach(), group.outputs[t], group.constants_of(t))
                check_decoded(spec, found, len(index))
    return loss_T
