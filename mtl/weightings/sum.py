"""The plain sum of the losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from torch import nn


@WEIGHTINGS.register("sum")
class Sum(WeightingSpec):
    """loss = sum_t weight_t * loss_t, with the weights that the tasks give."""

    reference: ClassVar[str] = "ours"

    def build(self, task_weights: tuple[float, ...]) -> nn.Module:
        from mtl.model.losses import WeightedSum

        return WeightedSum(task_weights)
