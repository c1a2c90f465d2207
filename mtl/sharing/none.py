"""Towers that never mix."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mtl.recipe.specs import SHARING, SharingSpec

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("none")
class NoSharing(SharingSpec):
    """Each tower on its own: one network per tower, trained side by side."""

    reference: ClassVar[str] = "ours"
    equation: ClassVar[str] = "y_k = x_k"
    when: ClassVar[str] = (
        "as the baseline; with `towers: one`, for tasks that are closely related or a network that must be small"
    )

    def build(self, plan: Plan) -> Trunk:
        from mtl.model.trunk import StitchedTowers

        return StitchedTowers(plan.stages(tuple(plan.towers)), {}, plan.tasks_of_towers(), plan.reading_of())
