"""A sharing scheme: each tower goes a learned part of the way to the mean of all towers.

Shapes: B batch, K towers, C channels or features of one tower.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

import mtl
from mtl.model.trunk import Plan, StitchedTowers


class Gate(nn.Module):
    """The unit of one site, (B, K*C, ...) to the same; g is the logistic function of a free number."""

    def __init__(self, n_towers: int, start: float) -> None:
        super().__init__()
        self.n_towers = n_towers
        self.gate = nn.Parameter(torch.tensor(math.log(start / (1 - start))))

    def forward(self, x: Tensor) -> Tensor:
        x_BKC = x.unflatten(1, (self.n_towers, -1))
        mean_B1C = x_BKC.mean(1, keepdim=True)
        return torch.lerp(x_BKC, mean_B1C.expand_as(x_BKC), self.gate.sigmoid()).flatten(1, 2)

    @torch.no_grad()
    def sharing_matrix(self) -> Tensor:
        """(K, K): the same unit written as a cross-stitch, for logs and plots."""
        g = self.gate.sigmoid()
        return (1 - g) * torch.eye(self.n_towers, device=g.device) + g / self.n_towers


@mtl.register_sharing("gated_mean")
class GatedMean(mtl.SharingSpec):
    """y_i = (1 - g) x_i + g mean_j x_j with one gate g in (0, 1) per site."""

    reference: ClassVar[str] = "ours"

    after: tuple[str, ...] = Field(min_length=1, max_length=200, description="the stages with a gate")
    start: float = Field(0.1, gt=0, lt=1, description="g at the start")

    def sites(self) -> tuple[str, ...]:
        return self.after

    def build(self, plan: Plan) -> mtl.Trunk:
        towers = plan.stages(tuple(plan.towers))
        units = {site: Gate(len(plan.towers), self.start) for site in self.after}
        return StitchedTowers(towers, units, plan.tasks_of_towers(), plan.reading_of())
