"""The settings of smooth Tchebycheff scalarization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("stch")
class SmoothTchebycheff(WeightingSpec):
    """loss = n^2 mu log sum_t exp(weight_t (loss_t - ideal) / (n mu)) over the n tasks that a step sees.

    A smooth maximum of the losses: the worst task weighs most, the more so the smaller mu is. The paper's preferences
    weight_t / n sum to one; the factor n^2 makes the weights of equal losses 1 each.
    """

    reference: ClassVar[str] = "Lin et al. 2024, ICML, arXiv:2402.19078, eq. 5"
    when: ClassVar[str] = "where the worst task counts"
    needs: ClassVar[Literal["losses", "totals", "gradients"]] = "totals"

    mu: float = Field(0.1, gt=0, le=1e6, description="how smooth the maximum is; the smaller, the sharper")
    ideal: float = Field(0.0, ge=-1e9, le=1e9, description="the loss that no task can go below")

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.stch.module import SmoothTchebycheffScalarization

        return SmoothTchebycheffScalarization(task_weights, self.mu, self.ideal)
