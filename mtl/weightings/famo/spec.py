"""The settings of fast adaptive multitask optimization, FAMO."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("famo")
class FastAdaptiveMultitask(WeightingSpec):
    """loss = n c sum_t z_t log loss_t over the n tasks that a step sees, z = softmax(w), c = 1 / sum_t (z_t / loss_t).

    After each step the losses of the same batch are computed again, and w moves by Adam towards the tasks whose log
    loss fell least. It costs one more forward pass a step. The paper's weights sum to 1; here they sum to n.
    Losses must be positive; the tasks' own weights multiply z.
    """

    reference: ClassVar[str] = "Liu et al. 2023, NeurIPS, arXiv:2306.03792, algorithm 1"
    when: ClassVar[str] = (
        "for equal progress without a pass for each task; it computes each step's losses twice"
    )
    needs: ClassVar[Literal["losses", "totals", "gradients"]] = "totals"

    lr: float = Field(0.025, ge=0, le=1e3, description="learning rate of w")
    weight_decay: float = Field(1e-3, ge=0, le=1e3, description="pulls w towards equal weights")

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.famo.module import FastAdaptiveWeighting

        return FastAdaptiveWeighting(task_weights, self.lr, self.weight_decay)
