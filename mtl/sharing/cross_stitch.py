"""Cross-stitch networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from mtl.errors import quoted
from mtl.recipe.specs import SHARING, Model, SharingSpec, recipe_errors

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


class Convex(Model):
    """alpha[i, i] = convex, the rest shared evenly: rows sum to one."""

    convex: float = Field(gt=0, le=1, description="the diagonal of each alpha")


Start = Annotated[
    Annotated[Literal["identity", "uniform"], Tag("<word>")] | Annotated[Convex, Tag("<mapping>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<mapping>"),
]


@SHARING.register("cross_stitch")
class CrossStitchSharing(SharingSpec):
    """After each named stage, y_i = sum_j alpha[i, j] * x_j over towers; alpha is learned."""

    reference: ClassVar[str] = "Misra et al. 2016, eq. 1, arXiv:1604.03539"
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1",)}

    after: tuple[str, ...] = Field(
        min_length=1, max_length=200, description="the stages after which towers mix"
    )
    granularity: Literal["scalar", "channel", "dense"] = Field(
        "scalar", description="one K x K matrix per site, per channel, or all units of all towers to all"
    )
    init: Start = Field(Convex(convex=0.9), description="the start of alpha")
    lr_scale: float = Field(
        1.0,
        ge=0,
        le=1e4,
        description="the alphas' learning rate over the base rate; 0 keeps them at their start",
    )

    @model_validator(mode="after")
    def _distinct_sites(self) -> Self:
        for i, site in enumerate(self.after):
            if site in self.after[:i]:
                raise recipe_errors("cross_stitch", [(("after", i), f"site {quoted(site)} is given twice")])
        return self

    def sites(self) -> tuple[str, ...]:
        return self.after

    def sharing_lr_scale(self) -> float:
        return self.lr_scale

    def keeps_equal_towers_equal(self, n_towers: int) -> bool:
        return math.isclose(self.diagonal(n_towers), 1 / n_towers)

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

    def diagonal(self, n_towers: int) -> float:
        """The initial value of each alpha[i, i]."""
        if isinstance(self.init, Convex):
            return self.init.convex
        starts: dict[Any, float] = {"identity": 1.0, "uniform": 1 / n_towers}
        return starts[self.init]
