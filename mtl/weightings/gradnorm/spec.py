"""The settings of gradient normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mtl.recipe.specs import WEIGHTINGS, GradientWeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("gradnorm")
class GradNorm(GradientWeightingSpec):
    """Learned weights under which the tasks' gradients get lengths that follow how slowly each task learns.

    The lengths are those over the shared slices, and the weights apply to them. Heads and own slices take weight_t
    times the gradient of their own loss. A step costs a backward pass for each task. Losses must be positive.
    """

    reference: ClassVar[str] = "Chen et al. 2018, ICML, arXiv:1711.02257, algorithm 1"
    equation: ClassVar[str] = (
        "sum_t a_t w_t g_t, a_t so that ||a_t w_t g_t|| follows (loss_t / its first value, relative)^alpha"
    )
    when: ClassVar[str] = "for tasks that learn at different speeds"

    alpha: float = Field(1.5, ge=0, le=100, description="how much a slow task is pulled; 0: equal lengths")
    lr: float = Field(0.025, ge=0, le=1e3, description="learning rate of the weights, by Adam")

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.gradnorm.module import GradientNormalization

        return GradientNormalization(task_weights, self.alpha, self.lr)
