"""The settings of learning to branch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mtl.recipe.sites import LearnedSharing, SharingAtSites
from mtl.recipe.specs import SHARING

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("ltb")
class LearningToBranch(LearnedSharing, SharingAtSites):
    """After each named stage, every tower goes on with the activation of one tower; which one is learned.

    In training the choice is a sample of a Gumbel-softmax, whose temperature falls from step to step. In evaluation it
    is the most probable tower, so that the network is a tree.
    """

    reference: ClassVar[str] = (
        "Guo, Lee and Ulbricht 2020, ICML, arXiv:2006.01895; Jang et al. 2017, arXiv:1611.01144"
    )
    equation: ClassVar[str] = "y_i = sum_j d_ij x_j, d_i = softmax((logits_i + Gumbel noise) / temperature)"
    when: ClassVar[str] = "where the trained network should be a tree that says which towers branch off where"
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1",)}

    temperature: float = Field(5.0, gt=0, le=1e3, description="of the first step; the larger, the more even")
    decay: float = Field(0.999, gt=0, le=1, description="what is left of the temperature after each step")
    coldest: float = Field(0.1, gt=0, le=1e3, description="the temperature falls no lower")

    def build(self, plan: Plan) -> Trunk:
        from mtl.model.trunk import StitchedTowers
        from mtl.sharing.ltb.network import Branching

        towers = plan.stages(tuple(plan.towers))
        units = {
            site: Branching(len(plan.towers), self.temperature, self.decay, self.coldest)
            for site in self.after
        }
        return StitchedTowers(towers, units, plan.tasks_of_towers(), plan.reading_of())
