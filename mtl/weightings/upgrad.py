"""Gradients of the tasks are combined into one that makes no task worse."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mtl.recipe.specs import WEIGHTINGS, GradientWeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("upgrad")
class UPGrad(GradientWeightingSpec):
    """Each task's gradient is projected to where it hurts no task, and the projections are summed.

    gradient = sum_t weight_t * projection of g_t onto {v : <v, g_u> >= 0 for all tasks u}, over the shared slices; own
    slices and heads take weight_t times the gradient of their own loss. Where no two gradients conflict, this is the
    gradient of the weighted sum. A step costs a backward pass for each task, and memory for a gradient of each task.
    """

    reference: ClassVar[str] = "Quinton and Rey 2024, arXiv:2406.16232; TorchJD's UPGrad"
    equation: ClassVar[str] = "sum_t w_t argmin_v ||v - g_t||, v . g_u >= 0 for all u"
    when: ClassVar[str] = "where no task may be hurt; the plain sum where nothing conflicts"
    most_tasks: ClassVar[int] = 32
    preference: ClassVar[bool] = True

    norm_eps: float = Field(
        1e-12,
        ge=0,
        le=1,
        description="squared norm of all gradients together below which conflicts are ignored (TorchJD: 1e-4)",
    )
    reg_eps: float = Field(
        1e-4,
        gt=0,
        le=1,
        description="added to the diagonal of the Gramian, divided by its trace, for the solver",
    )

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.model.weighting import UPGradWeighting

        return UPGradWeighting(task_weights, self.norm_eps, self.reg_eps)
