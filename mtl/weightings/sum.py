"""The plain sum of the losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("sum")
class Sum(WeightingSpec):
    """loss = sum_t weight_t * loss_t, with the weights that the tasks give."""

    reference: ClassVar[str] = "ours"
    when: ClassVar[str] = "as the baseline"

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.model.weighting import WeightedSum

        return WeightedSum(task_weights)
