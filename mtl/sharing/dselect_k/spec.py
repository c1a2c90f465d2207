"""The settings of DSelect-k."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from mtl.recipe.sites import LearnedSharing
from mtl.recipe.specs import SHARING, recipe_errors

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("dselect_k")
class DSelectK(LearnedSharing):
    """As `mmoe`, but each tower learns which `k` of the experts it mixes; its gate is the same for all rows.

    A gate is a weighted sum of k selectors, and each selector a product of smooth steps that end at 0 and 1. The
    `entropy` term drives every selector to a single expert.
    """

    reference: ClassVar[str] = "Hazimeh et al. 2021, NeurIPS, arXiv:2106.03760, eq. 3 to 6, static gating"
    equation: ClassVar[str] = "y_i = sum_e q_ie f_e(x), at most k of the q_ie are above 0"
    when: ClassVar[str] = "for many experts, of which a tower should use few"
    example: ClassVar[Mapping[str, Any]] = {"experts": 4, "k": 2}

    experts: int = Field(4, ge=2, le=256, description="copies of the backbone, E; a power of two")
    k: int = Field(2, ge=1, le=256, description="experts that a tower mixes at most")
    gamma: float = Field(1.0, gt=0, le=1e3, description="the width of the smooth steps")
    entropy: float = Field(1e-3, ge=0, le=1e6, description="the factor of the selectors' entropy; 0: none")

    @model_validator(mode="after")
    def _codes(self) -> Self:
        if self.experts & (self.experts - 1):
            below = 1 << (self.experts.bit_length() - 1)
            what = f"{self.experts} is no power of two: use {below} or {2 * below}"
            raise recipe_errors("dselect_k", [(("experts",), what)])
        if self.k > self.experts:
            raise recipe_errors("dselect_k", [(("k",), f"is {self.k}, but there are {self.experts} experts")])
        return self

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.dselect_k.network import SelectedExperts

        return SelectedExperts(plan, self.experts, self.k, self.gamma, self.entropy)
