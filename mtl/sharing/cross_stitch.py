"""Cross-stitch networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mtl.recipe.sites import Mixing
from mtl.recipe.specs import SHARING

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("cross_stitch")
class CrossStitchSharing(Mixing):
    """After each named stage, each tower goes on with a learned mixture of all towers."""

    reference: ClassVar[str] = "Misra et al. 2016, eq. 1, arXiv:1604.03539"
    equation: ClassVar[str] = "y_i = sum_j alpha_ij x_j"
    when: ClassVar[str] = "for a few tasks of which nobody knows who is related to whom"
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1",)}

    granularity: Literal["scalar", "channel", "dense"] = Field(
        "scalar", description="one K x K matrix per site, per channel, or all units of all towers to all"
    )

    def build(self, plan: Plan) -> Trunk:
        from mtl.model.stitch import CrossStitch
        from mtl.model.trunk import StitchedTowers

        n_towers, towers = len(plan.towers), plan.stages(tuple(plan.towers))
        units = {
            site: CrossStitch(
                n_towers, towers.shapes[site], granularity=self.granularity, start=self.diagonal(n_towers)
            )
            for site in self.after
        }
        return StitchedTowers(towers, units, plan.tasks_of_towers(), plan.reading_of())
