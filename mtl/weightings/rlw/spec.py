"""The settings of random loss weighting."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("rlw")
class RandomLossWeighting(WeightingSpec):
    """loss = n sum_t softmax(z)_t weight_t loss_t over the n tasks that a step sees, z ~ N(0, 1) anew for each step.

    A baseline that other weightings have to beat. The paper's weights sum to 1; here they sum to n.
    """

    reference: ClassVar[str] = "Lin et al. 2022, TMLR, arXiv:2111.10603, algorithm 2"
    when: ClassVar[str] = "as a baseline that a learned weighting has to beat"

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.rlw.module import RandomLossWeights

        return RandomLossWeights(task_weights)
