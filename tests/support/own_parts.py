"""A plug-in with one part of each family, and a recipe that has all of them. The environment makes one of them faulty:

- `FAULT` says which part raises what, and at which call: `part:exception:call`, as in `weighting:SystemExit:3`.
- `MEMORY` says which part remembers something, and where (tests/support/memories.py).
- `MODULE` makes a part behave in a way of its own, mostly by state that no checkpoint can hold.
"""

from __future__ import annotations

import builtins
import os
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

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
from tests.support.memories import Memory

CALLS: dict[str, int] = {}
MEAN: list[float] = []


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
        drawn = random.SystemRandom().randrange(99999)
        return super().columns(drawn if os.environ.get("MODULE") == "source" else seed)


class Loss(Classes):
    """The cross-entropy."""

    memory: Any

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        called("task")
        return super().row_loss(logits_BTO, target) * self.memory.factor()

    def metric(self, names: frozenset[str]) -> Any:
        called("metric")
        return Counted(names, len(self.tasks))


class Counted(Metric):
    """A count of the rows, times a number, in the place of each metric.

    Args:
        names: the metrics.
        n_tasks: T.
    """

    def __init__(self, names: frozenset[str], n_tasks: int) -> None:
        super().__init__()
        self.names, self.memory = names, Memory("metric")
        self.add_state("rows", torch.zeros(n_tasks, dtype=torch.float64))

    def update(self, logits_BTO: Tensor, target: Tensor, weight_BT: Tensor) -> None:
        self.rows = self.rows + weight_BT.sum(0) * self.memory.factor()

    def compute(self) -> dict[str, Tensor]:
        return dict.fromkeys(self.names, self.rows)


@mtl.register_task("kind")
class Kind(mtl.tasks.Multiclass):
    """Classes."""

    def group(self, n_outputs: int) -> tuple[str, ...]:
        return ("kind", str(n_outputs))

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> Any:
        plain = super().build(head, constants)
        plain.__class__ = Loss
        plain.memory = Memory("task")
        return plain


class Stage(nn.Module):
    """What it gets, times a number."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.mean = Memory("backbone"), 0.0

    def forward(self, x: Tensor) -> Tensor:
        called("backbone")
        asked = os.environ.get("MODULE")
        if asked == "set_once":
            MEAN.extend([x.mean().item()] * (not MEAN))
            return x - MEAN[0]
        if asked == "evaluation":
            if not self.training:
                return x - self.mean
            self.mean = 0.9 * self.mean + 0.1 * x.mean().item()
        return x * self.memory.factor()


@mtl.register_backbone("stages")
class Stages(Layers):
    """Layers, of which the first hands on what it gets."""

    def build(self, *given: Any, **more: Any) -> Any:
        (name, stage, shape), *others = super().build(*given, **more)
        return [(name, nn.Sequential(stage, Stage()), shape), *others]


class Unit(CrossStitch):
    """A cross-stitch unit."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.memory = Memory("sharing")

    def forward(self, x: Tensor) -> Tensor:
        called("sharing")
        return super().forward(x) * self.memory.factor()

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
    """The plain sum, times a number."""

    def __init__(self, task_weights: Sequence[float]) -> None:
        super().__init__(task_weights)
        self.memory = Memory("weighting")
        own = {
            "complex128": lambda: torch.zeros(1, dtype=torch.complex128),
            "expanded": lambda: torch.zeros(1).expand(3),
            "float8": lambda: torch.ones(8).to(torch.float8_e4m3fn),
        }.get(os.environ.get("MODULE", ""))
        if own is not None:
            self.register_buffer("own", own())

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        called("weighting")
        if os.environ.get("MODULE") == "late_buffer" and not hasattr(self, "late"):
            self.register_buffer("late", torch.zeros(1))
        return super().forward(losses_N, seen_N) * self.memory.factor()

    def get_extra_state(self) -> object:
        return {"calls": 1} if os.environ.get("MODULE") == "extra_state" else torch.zeros(1)

    def set_extra_state(self, state: object) -> None:
        pass


@mtl.register_weighting("weights")
class WeightsSpec(Sum):
    """The plain sum."""

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        return Weights(task_weights)


class Steps(torch.optim.SGD):
    """Gradient descent, with gradients times a number."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.memory = Memory("optimizer")

    def step(self, closure: Any = None) -> Any:
        called("optimizer")
        factor = self.memory.factor()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad *= factor
        super().step(closure)
        if os.environ.get("MODULE") == "number_in_optimizer":
            self.state[parameter]["calls"] = 1
        if os.environ.get("MODULE") == "tensor_in_optimizer":
            self.state["own"] = torch.zeros(3)  # type: ignore[index]


@OPTIMIZERS.register("steps")
class StepsSpec(SGD):
    """Gradient descent."""

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:  # type: ignore[override]
        return Steps(groups, lr=self.lr)


class OfSchedule:
    """A settings model is frozen, so what a schedule remembers is in a class."""

    memory: ClassVar[Memory] = Memory("schedule")


@SCHEDULES.register("rate")
class Rate(Constant):
    """A constant rate."""

    def after_warmup(self, step: int, total: int) -> float:
        called("schedule")
        return OfSchedule.memory.factor()
