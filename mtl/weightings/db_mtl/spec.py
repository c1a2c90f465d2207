"""The settings of dual balancing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mtl.recipe.specs import WEIGHTINGS, GradientWeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("db_mtl")
class DualBalancing(GradientWeightingSpec):
    """The gradients of the logarithms of the losses, all made as long as the longest one, are summed.

    They are averaged over steps before. Over the shared slices only; heads and own slices take weight_t times the
    gradient of their own loss. A step costs a backward pass for each task. Losses must be positive.
    """

    reference: ClassVar[str] = "Lin et al. 2023, arXiv:2308.12029, algorithm 1"
    equation: ClassVar[str] = "max_u ||m_u|| sum_t w_t m_t / ||m_t||, m_t: mean gradient of log loss_t"
    when: ClassVar[str] = "for losses of different sizes and gradients of different lengths"

    beta: float = Field(
        0.9, ge=0, lt=1, description="the part of the average that step 1 keeps; 0: no average"
    )
    sigma: float = Field(0.5, ge=0, le=10, description="step k keeps beta / k^sigma")

    def why_not_on_features(self) -> str:
        return "keeps an average of each shared parameter's gradients unless beta is 0" if self.beta else ""

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.db_mtl.module import DualBalance

        return DualBalance(task_weights, self.beta, self.sigma)
