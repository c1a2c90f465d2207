"""The settings of dynamic weight average."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("dwa")
class DynamicWeightAverage(WeightingSpec):
    """loss = n sum_t softmax(r / temperature)_t weight_t loss_t, r_t: a task's mean loss over that an epoch before.

    n is the number of tasks that a step sees. A task whose loss falls slowly weighs more. A task weighs 1 until it was
    seen in two epochs.
    """

    reference: ClassVar[str] = "Liu, Johns and Davison 2019, CVPR, arXiv:1803.10704, eq. 7"
    when: ClassVar[str] = "for tasks that learn at different speeds"

    temperature: float = Field(2.0, gt=0, le=1e6, description="the larger, the more equal the weights")

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.dwa.module import DynamicWeights

        return DynamicWeights(task_weights, self.temperature)
