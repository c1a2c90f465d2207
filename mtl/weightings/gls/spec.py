"""The settings of geometric loss strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("gls")
class GeometricLossStrategy(WeightingSpec):
    """loss = (prod_t loss_t^weight_t)^(1 / sum_t weight_t), the geometric mean of the losses that a step sees.

    Its gradient is the mean of the gradients of log loss_t, times the loss itself, so that it does not depend on the
    scale of a task. Losses must be positive.
    """

    reference: ClassVar[str] = "Chennupati et al. 2019, CVPR workshops, arXiv:1904.08492"
    when: ClassVar[str] = "for positive losses of very different sizes"
    needs: ClassVar[Literal["losses", "totals", "gradients"]] = "totals"

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.gls.module import GeometricLoss

        return GeometricLoss(task_weights)
