"""The settings of the multi-task attention network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mtl.errors import UserError, quoted
from mtl.recipe.sites import SharingAtSites
from mtl.recipe.specs import SHARING

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("mtan")
class MTAN(SharingAtSites):
    """One trunk for all towers; after each named stage, each tower masks its features.

    p is what a block of the trunk gives. W_g and W_h are 1 x 1 convolutions or linear maps of the tower. One f, which
    has the layers of the block, serves all towers. The heads read what is masked after the last stage.
    """

    reference: ClassVar[str] = "Liu, Johns and Davison 2019, arXiv:1803.10704, eq. 1 and 2"
    equation: ClassVar[str] = "y_k = sigmoid(norm(W_h relu(norm(W_g [p ; f(y_k of the block before)])))) * p"
    when: ClassVar[str] = (
        "for tasks that look at different parts of the same features, where towers of their own would be too large"
    )
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1", "fc2")}

    after: tuple[str, ...] = Field(
        min_length=1,
        max_length=200,
        description="the stages after which towers attend; the last one is the last stage",
    )

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.mtan.network import AttentionNetwork

        sites = self.in_order(plan.stage_names)
        if sites[-1] != plan.stage_names[-1]:
            what = f"the heads read stage {quoted(plan.stage_names[-1])}, after which no tower attends"
            raise UserError("", what, f"add {quoted(plan.stage_names[-1])}", path=("after",))
        return AttentionNetwork(plan, sites)
