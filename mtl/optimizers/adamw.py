"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mtl.recipe.specs import OPTIMIZERS, Beta, OptimizerSpec, decayed

if TYPE_CHECKING:
    import torch


@OPTIMIZERS.register("adamw")
class AdamW(OptimizerSpec):
    """Adam whose `weight_decay` shrinks conv and linear weights directly, by lr * weight_decay * w."""

    reference: ClassVar[str] = "Loshchilov and Hutter 2019, arXiv:1711.05101"
    example: ClassVar[Mapping[str, Any]] = {"lr": 0.1, "weight_decay": 0.1}

    weight_decay: float = Field(0.01, ge=0, le=1e3, description="factor of the shrinking")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="what stays of the running means of the gradient and of its square"
    )
    eps: float = Field(1e-8, gt=0, le=1, description="added to the root of the mean square")

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(
            decayed(groups, self.weight_decay), lr=self.lr, betas=self.betas, eps=self.eps, fused=True
        )
