"""The settings of constant weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("constant")
class Constant(WeightingSpec):
    """loss = n sum_t w_t loss_t / sum_t w_t over the n tasks that a step sees, with the weights that the tasks give.

    A task without labels in a step thus does not lower the sum of the weights, which under plain SGD is part of the
    learning rate. `sum` takes the weights as they are.
    """

    reference: ClassVar[str] = "ours"
    when: ClassVar[str] = "as `sum`, where the weights of the tasks should not change the learning rate"

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.constant.module import ConstantWeighting

        return ConstantWeighting(task_weights)
