"""Adam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mtl.recipe.specs import OPTIMIZERS, Beta, OptimizerSpec, decayed

if TYPE_CHECKING:
    import torch


@OPTIMIZERS.register("adam")
class Adam(OptimizerSpec):
    """Adam; `l2` adds l2 * w to the gradient of conv and linear weights, the penalty l2/2 * sum w^2."""

    reference: ClassVar[str] = "Kingma and Ba 2015, arXiv:1412.6980"
    example: ClassVar[Mapping[str, Any]] = {"lr": 0.1, "l2": 0.01}

    l2: float = Field(0.0, ge=0, le=1e3, description="factor of the penalty")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="what stays of the running means of the gradient and of its square"
    )
    eps: float = Field(1e-8, gt=0, le=1, description="added to the root of the mean square")

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.Adam(
            decayed(groups, self.l2), lr=self.lr, betas=self.betas, eps=self.eps, fused=True
        )
