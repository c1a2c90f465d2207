"""A plug-in with one part of each family; `FAULT` says which of them raises what, and at which call.

`part:exception:call`, as in `weighting:SystemExit:3`.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import mtl
from mtl.backbones.layers import Layers
from mtl.data.types import Columns
from mtl.model.stitch import CrossStitch
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.kinds import Classes
from mtl.model.trunk import Plan, StitchedTowers
from mtl.model.weighting import WeightedSum, Weighting
from mtl.optimizers.sgd import SGD
from mtl.recipe.specs import OPTIMIZERS, SCHEDULES
from mtl.schedules.constant import Constant
from mtl.sources.synthetic import Synthetic
from mtl.weightings.sum import Sum

CALLS: dict[str, int] = {}


def called(part: str) -> None:
    """Raise, if it is the turn of this part."""
    asked, kind, call = os.environ.get("FAULT", "none:none:0").split(":")
    CALLS[part] = CALLS.get(part, 0) + 1
    if part == asked and CALLS[part] == int(call):
        if kind == "_exit":
            os._exit(0)
        raise getattr(builtins, kind)("licence server gone")


@mtl.register_source("rows")
class Rows(Synthetic):
    """The generated rows."""

    def columns(self, seed: int) -> Columns:
        called("source")
        return super().columns(seed)


class Loss(Classes):
    """The cross-entropy."""

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        called("task")
        return super().row_loss(logits_BTO, target)

    def metric(self, names: frozenset[str]) -> Any:
        called("metric")
        return super().metric(names)


@mtl.register_task("kind")
class Kind(mtl.tasks.Multiclass):
    """Classes."""

    def group(self, n_outputs: int) -> tuple[str, ...]:
        return ("kind", str(n_outputs))

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> Any:
        plain = super().build(head, constants)
        plain.__class__ = Loss
        return plain


class Stage(nn.Module):
    """What it gets."""

    def forward(self, x: Tensor) -> Tensor:
        called("backbone")
        return x


@mtl.register_backbone("stages")
class Stages(Layers):
    """Layers, of which the first hands on what it gets."""

    def build(self, *given: Any, **more: Any) -> Any:
        (name, stage, shape), *others = super().build(*given, **more)
        return [(name, nn.Sequential(stage, Stage()), shape), *others]


class Unit(CrossStitch):
    """A cross-stitch unit."""

    def forward(self, x: Tensor) -> Tensor:
        called("sharing")
        return super().forward(x)

    def sharing_matrix(self) -> Tensor:
        called("matrix")
        return super().sharing_matrix()


@mtl.register_sharing("units")
class Units(mtl.SharingSpec):
    """A unit after the first stage."""

    reference: ClassVar[str] = "ours"

    def sites(self) -> tuple[str, ...]:
        return ("fc1",)

    def build(self, plan: Plan) -> mtl.Trunk:
        towers = plan.stages(tuple(plan.towers))
        unit = Unit(len(plan.towers), towers.shapes["fc1"])
        return StitchedTowers(towers, {"fc1": unit}, plan.tasks_of_towers(), plan.reading_of())


class Weights(WeightedSum):
    """The plain sum."""

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        called("weighting")
        return super().forward(losses_N, seen_N)


@mtl.register_weighting("weights")
class WeightsSpec(Sum):
    """The plain sum."""

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        return Weights(task_weights)


class Steps(torch.optim.SGD):
    """Gradient descent."""

    def step(self, closure: Any = None) -> Any:
        called("optimizer")
        return super().step(closure)


@OPTIMIZERS.register("steps")
class StepsSpec(SGD):
    """Gradient descent."""

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:  # type: ignore[override]
        return Steps(groups, lr=self.lr)


@SCHEDULES.register("rate")
class Rate(Constant):
    """A constant rate."""

    def after_warmup(self, step: int, total: int) -> float:
        called("schedule")
        return float(np.ones(1)[0])
