"""The settings of impartial multi-task learning by losses, IMTL-L."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("imtl_l")
class ImpartialLosses(WeightingSpec):
    """loss = sum_t weight_t (exp(s_t) loss_t - s_t), with a learned s_t for each task that starts at 0.

    At its minimum exp(s_t) loss_t is 1 for every task. It is `uncertainty` with another factor and sign of s_t.
    """

    reference: ClassVar[str] = "Liu et al. 2021, ICLR, Towards Impartial Multi-task Learning, section 3.2"
    when: ClassVar[str] = "for losses of different sizes, which it makes equal"

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.imtl_l.module import ImpartialLossWeighting

        return ImpartialLossWeighting(task_weights)
