"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from mtl.recipe.specs import OPTIMIZERS, OptimizerSpec, decayed, recipe_errors

if TYPE_CHECKING:
    import torch


@OPTIMIZERS.register("sgd")
class SGD(OptimizerSpec):
    """Stochastic gradient descent with momentum; `l2` as for adam."""

    reference: ClassVar[str] = "Robbins and Monro 1951; Sutskever et al. 2013"
    example: ClassVar[Mapping[str, Any]] = {"lr": 0.1, "momentum": 0.9, "nesterov": True}

    l2: float = Field(0.0, ge=0, le=1e3, description="factor of the penalty")
    momentum: float = Field(0.0, ge=0, lt=1, description="what stays of the last step")
    nesterov: bool = Field(False, description="look ahead along the momentum")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise recipe_errors("sgd", [(("nesterov",), "needs momentum > 0")])
        return self

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.SGD(
            decayed(groups, self.l2), lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True
        )
