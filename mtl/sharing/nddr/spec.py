"""The settings of neural discriminative dimensionality reduction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mtl.recipe.sites import Mixing
from mtl.recipe.specs import SHARING

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("nddr")
class NDDR(Mixing):
    """After each named stage, learned matrices between the channels of any two towers mix them; a norm follows.

    W_ii starts as alpha times the identity, and W_ij as (1 - alpha) / (K - 1) times the identity.
    """

    reference: ClassVar[str] = "Gao et al. 2019, CVPR, arXiv:1801.08297"
    equation: ClassVar[str] = "y_i = norm(sum_j W_ij x_j)"
    when: ClassVar[str] = (
        "for a few tasks with many rows, where one weight for all channels of a tower is too coarse"
    )
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1",)}

    def build(self, plan: Plan) -> Trunk:
        from mtl.model.trunk import StitchedTowers
        from mtl.sharing.nddr.network import Reduction

        n_towers, towers = len(plan.towers), plan.stages(tuple(plan.towers))
        units = {
            site: Reduction(plan, n_towers, towers.shapes[site], self.diagonal(n_towers))
            for site in self.after
        }
        return StitchedTowers(towers, units, plan.tasks_of_towers(), plan.reading_of())
