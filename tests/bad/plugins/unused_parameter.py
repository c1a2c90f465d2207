"""S24: a unit with a parameter that no task reaches."""

import torch
from torch import nn

import mtl
from mtl.model.trunk import Plan, StitchedTowers


class Unused(nn.Module):
    """Gives its input back."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@mtl.register_sharing("unused_parameter")
class UnusedParameter(mtl.SharingSpec):
    """Shares nothing."""

    reference = "ours"

    def sites(self) -> tuple[str, ...]:
        return ("fc1",)

    def build(self, plan: Plan) -> mtl.Trunk:
        towers = plan.stages(tuple(plan.towers))
        return StitchedTowers(towers, {"fc1": Unused()}, plan.tasks_of_towers(), plan.reading_of())
