"""The settings of the multi-task attention network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from mtl.errors import UserError, quoted
from mtl.recipe.specs import SHARING, SharingSpec, recipe_errors

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("mtan")
class MTAN(SharingSpec):
    """One trunk for all towers; after each named stage every tower attends to its features by a mask of its own."""

    reference: ClassVar[str] = "Liu, Johns and Davison 2019, arXiv:1803.10704, eq. 1 and 2"
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1", "fc2")}

    after: tuple[str, ...] = Field(
        min_length=1,
        max_length=200,
        description="the stages after which towers attend; the last one is the last stage",
    )

    @model_validator(mode="after")
    def _distinct_sites(self) -> Self:
        for i, site in enumerate(self.after):
            if site in self.after[:i]:
                raise recipe_errors("mtan", [(("after", i), f"site {quoted(site)} is given twice")])
        return self

    def sites(self) -> tuple[str, ...]:
        return self.after

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.mtan.network import AttentionNetwork

        sites = tuple(stage for stage in plan.stage_names if stage in self.after)
        if sites[-1] != plan.stage_names[-1]:
            what = f"the heads read stage {quoted(plan.stage_names[-1])}, after which no tower attends"
            raise UserError("", what, f"add {quoted(plan.stage_names[-1])}", path=("after",))
        return AttentionNetwork(plan, sites)
