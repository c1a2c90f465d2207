"""The settings of low-rank adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mtl.recipe.sites import require_stages
from mtl.recipe.specs import SHARING, SharingSpec

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("lora")
class LoRA(SharingSpec):
    """One trunk for all towers; in each adapted stage, each tower adds weights of low rank to the shared ones.

    W is shared, and trained too. A_k and B_k are a tower's own and have `rank` rows and columns. B_k starts at 0, which
    is hard sharing.
    """

    reference: ClassVar[str] = (
        "Hu et al. 2021, arXiv:2106.09685, eq. 3; Agiza et al. 2024 (MTLoRA), arXiv:2403.20320"
    )
    equation: ClassVar[str] = "y_k = (W + scale / rank * B_k A_k) x_k"
    when: ClassVar[str] = "for many tasks that need more of their own than scales"
    example: ClassVar[Mapping[str, Any]] = {"rank": 2}

    rank: int = Field(4, ge=0, le=65536, description="of each tower's own weights; 0: hard sharing")
    scale: float | None = Field(None, gt=0, le=1e6, description="alpha of the paper; default: the rank")
    stages: tuple[str, ...] = Field(
        (), max_length=200, description="the stages that are adapted; default: all conv and linear stages"
    )

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.lora.network import AdaptedTrunk

        require_stages(self.stages, plan.stage_names)
        return AdaptedTrunk(plan, self.rank, self.scale or float(self.rank), self.stages)
