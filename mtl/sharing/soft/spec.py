"""The settings of soft parameter sharing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mtl.recipe.sites import require_stages
from mtl.recipe.specs import SHARING, SharingSpec

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("soft")
class Soft(SharingSpec):
    """Separate towers whose weights a penalty keeps alike; no activation passes from one to another."""

    reference: ClassVar[str] = (
        "Duong et al. 2015, ACL, P15-2139 (l2); Yang and Hospedales 2017, arXiv:1606.04038 (trace)"
    )
    equation: ClassVar[str] = "y_k = x_k, loss + penalty / 2 * sum_{k<l} ||W_k - W_l||^2"
    when: ClassVar[str] = "where no tower may need another one once it is trained"
    example: ClassVar[Mapping[str, Any]] = {"penalty": 0.01}

    penalty: float = Field(
        1e-3, ge=0, le=1e6, description="the factor of the penalty; 0: towers that share nothing"
    )
    norm: Literal["l2", "trace"] = Field(
        "l2",
        description="l2: squared distances between towers; trace: the trace norm of the weights of all towers",
    )
    stages: tuple[str, ...] = Field(
        (), max_length=200, description="the stages that are kept alike; default: all"
    )

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.soft.network import AlikeTowers

        require_stages(self.stages, plan.stage_names)
        return AlikeTowers(plan, self.penalty, self.norm, self.stages or plan.stage_names)
