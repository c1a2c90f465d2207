"""A sharing scheme: each tower goes a learned part of the way to the mean of all towers.

Shapes: B batch, K towers, C channels or features of one tower.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

import mtl

if TYPE_CHECKING:
    from torch import nn


@mtl.register_sharing("gated_mean")
class GatedMean(mtl.SharingSpec):
    """y_i = (1 - g) x_i + g mean_j x_j with one gate g in (0, 1) per site."""

    reference: ClassVar[str] = "ours"

    after: tuple[str, ...] = Field(min_length=1, max_length=200, description="the stages with a gate")
    start: float = Field(0.1, gt=0, lt=1, description="g at the start")

    def sites(self) -> tuple[str, ...]:
        return self.after

    def build(self, n_towers: int, shape: tuple[int, ...]) -> nn.Module:
        import torch
        from torch import Tensor, nn

        class Gate(nn.Module):
            """The unit of one site, (B, K*C, ...) to the same; g is the logistic function of a free number."""

            def __init__(self, start: float) -> None:
                super().__init__()
                self.gate = nn.Parameter(torch.tensor(math.log(start / (1 - start))))

            def forward(self, x: Tensor) -> Tensor:
                x_BKC = x.unflatten(1, (n_towers, shape[0]))
                mean_B1C = x_BKC.mean(1, keepdim=True)
                return torch.lerp(x_BKC, mean_B1C.expand_as(x_BKC), self.gate.sigmoid()).flatten(1, 2)

            @torch.no_grad()
            def alpha_KK(self) -> Tensor:
                """(K, K): the same unit written as a cross-stitch, for logs and plots."""
                g = self.gate.sigmoid()
                return (1 - g) * torch.eye(n_towers, device=g.device) + g / n_towers

        return Gate(self.start)
