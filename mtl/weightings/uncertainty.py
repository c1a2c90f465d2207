"""Losses are weighed by a learned uncertainty of each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mtl.recipe.specs import WEIGHTINGS, WeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting


@WEIGHTINGS.register("uncertainty")
class Uncertainty(WeightingSpec):
    """loss = sum_t weight_t * (c_t exp(-s_t) loss_t + s_t / 2), with a learned s_t = log sigma_t^2 for each task.

    c_t is 1/2 for a regression with a Gaussian error, eq. 7 of the paper; TorchJD's UW has it for every task. For
    classification the paper's eq. 10 has 1. Each s_t starts at 0.
    """

    reference: ClassVar[str] = "Kendall, Gal and Cipolla 2018, arXiv:1705.07115, eq. 7 and 10"
    when: ClassVar[str] = "for losses of different units, such as squares beside cross-entropies"

    form: Literal["half", "by_kind"] = Field(
        "half",
        description="half: c = 1/2 for every task, as in TorchJD; by_kind: 1/2 for regression, 1 for classes",
    )

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.model.weighting import UncertaintyWeighting

        halves = [0.5 if self.form == "half" or quantity else 1.0 for quantity in is_quantity]
        return UncertaintyWeighting(task_weights, halves)
