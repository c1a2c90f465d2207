"""The settings of sluice networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mtl.errors import UserError
from mtl.recipe.sites import Mixing
from mtl.recipe.specs import SHARING

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("sluice")
class Sluice(Mixing):
    """Cross-stitches between subspaces of towers; each head reads a learned mixture of layers.

    After each named stage the channels of a tower are parted into subspaces, and alpha mixes those of all towers. The
    layers of a reading are the sites whose shape is that of the last stage, and the last stage. With `orthogonality`
    above 0 a penalty keeps the subspaces of a tower apart.
    """

    reference: ClassVar[str] = "Ruder et al. 2019, AAAI, arXiv:1705.08142, eq. 2 to 4"
    equation: ClassVar[str] = (
        "[y_11, y_12, y_21, ...] = alpha [x_11, x_12, x_21, ...], then sum_l beta_kl y_kl over layers l"
    )
    when: ClassVar[str] = (
        "for tasks that have a part of their features in common, or need features of different depth"
    )
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1",), "subspaces": 2}

    subspaces: int = Field(2, ge=1, le=256, description="equal parts of each tower's channels")
    orthogonality: float = Field(
        0.0, ge=0, le=1e6, description="the factor of the penalty on subspaces that are alike; 0: none"
    )

    def keeps_equal_towers_equal(self, n_towers: int) -> bool:
        """Whether alpha, which mixes the subspaces of all towers, starts even."""
        return super().keeps_equal_towers_equal(n_towers * self.subspaces)

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.sluice.network import SluiceTowers

        towers = plan.stages(tuple(plan.towers))
        for i, site in enumerate(self.after):
            width = towers.shapes[site][0]
            if width % self.subspaces:
                what = f"{width} channels or features after it cannot be parted into {self.subspaces} equal subspaces"
                raise UserError("", what, path=("after", i))
        n = len(plan.towers) * self.subspaces
        return SluiceTowers(
            plan,
            towers,
            self.in_order(plan.stage_names),
            self.subspaces,
            self.diagonal(n),
            self.orthogonality,
        )
