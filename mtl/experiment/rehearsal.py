"""A few rows through everything that a plug-in may have written, before anything is written to disk.

Shapes: B batch, T tasks of a group, O outputs per task, N all tasks.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn

from mtl.contracts import broken, check_decoded, check_losses, check_metrics
from mtl.errors import UserError, quoted
from mtl.evaluation.evaluate import evaluation_mode
from mtl.training.trainer import Trainer

ROWS = 8


def rehearse(trainer: Trainer) -> None:
    """Losses, metrics, predictions and the weighting on the first training rows; changes nothing.

    Raises:
        UserError: a part does not give what its family promises.
    """
    index = torch.from_numpy(trainer.dataset.splits["train"][:ROWS].copy()).to(trainer.device)
    if trainer.sampler.smallest == 1:
        _rehearse_single_row(trainer, index[:1])
    with evaluation_mode(trainer.built.model):
        logits = trainer.built.model.forward_groups(trainer.dataset.inputs[index])
    losses = [_rehearse_group(trainer, number, logits, index) for number in range(len(trainer.built.groups))]
    losses_N = torch.cat(losses).index_select(0, trainer._to_results)
    with trainer.recipe.at("weighting"):
        weighting = copy.deepcopy(trainer.weighting)  # one that keeps losses must not see these
        before = unsaved(weighting)
        total = weighting(losses_N)
        if getattr(total, "shape", None) != ():
            got = tuple(total.shape) if hasattr(total, "shape") else type(total).__name__
            raise broken(trainer.recipe.weighting, "build", f"weighs the losses to {got}, not to one number")
        for name, value in unsaved(weighting).items():
            if before.get(name) != value:
                what = f"gives a module that remembers {quoted(name)} where no checkpoint holds it: use register_buffer"
                raise broken(trainer.recipe.weighting, "build", what)


def unsaved(module: nn.Module) -> dict[str, str]:
    """Attribute of a module, or of one inside it -> its value as text, of all that its state_dict leaves out.

    Buffers with `persistent=False` do not count: whoever says so means it.
    """
    own = vars(nn.Module())
    return {
        f"{place}.{name}" if place else name: _as_text(value)
        for place, part in module.named_modules()
        for name, value in vars(part).items()
        if name not in own
    }


def _as_text(value: object, depth: int = 4) -> str:
    """Numbers, texts, tensors, arrays, random generators, and what holds them; of anything else the type."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return repr(value.tolist())
    if isinstance(value, int | float | str | None):
        return repr(value)
    if isinstance(value, torch.Generator):
        return repr(value.get_state().tolist())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, random.Random):
        return repr(value.getstate())
    inner: Iterable[object] = ()
    if depth and isinstance(value, Mapping):
        inner = [part for pair in value.items() for part in pair]
    elif depth and isinstance(value, list | tuple | set | deque):
        inner = value
    elif depth and not isinstance(value, nn.Module | type) and hasattr(value, "__dict__"):
        inner = vars(value).values()
    return f"{type(value).__name__}({', '.join(_as_text(part, depth - 1) for part in inner)})"


def _rehearse_single_row(trainer: Trainer, index: torch.Tensor) -> None:
    """Batch norm has no variance of one value."""
    model = copy.deepcopy(trainer.built.model).train()
    with trainer.recipe.at("train", "batch_size"):
        try:
            model.forward_groups(trainer.dataset.inputs[index])
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "", "a batch of one row cannot be normalized over the batch",
                "take model.backbone.norm.kind: layer or none, or batches of more rows",
            ) from None  # fmt: skip


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
