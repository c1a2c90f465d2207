"""What sharing schemes have in common: named stages of the backbone, and a learning rate of their own parameters."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from mtl.errors import UserError, did_you_mean, quoted
from mtl.recipe.specs import Model, SharingSpec, recipe_errors


class SharingAtSites(SharingSpec):
    """A scheme that does something after each stage that the recipe names in `after`."""

    after: tuple[str, ...] = Field(
        min_length=1, max_length=200, description="the stages after which towers mix"
    )

    @model_validator(mode="after")
    def _distinct_sites(self) -> Self:
        for i, site in enumerate(self.after):
            if site in self.after[:i]:
                raise recipe_errors(self.kind, [(("after", i), f"site {quoted(site)} is given twice")])
        return self

    def sites(self) -> tuple[str, ...]:
        return self.after

    def in_order(self, stages: tuple[str, ...]) -> tuple[str, ...]:
        """The sites in the order of the backbone's stages."""
        return tuple(stage for stage in stages if stage in self.after)


class LearnedSharing(SharingSpec):
    """A scheme whose alphas, gates or choices are parameters, with a learning rate of their own."""

    lr_scale: float = Field(
        1.0,
        ge=0,
        le=1e4,
        description="the learning rate of alphas, gates or choices over the base rate; 0 keeps them at their start",
    )

    def sharing_lr_scale(self) -> float:
        return self.lr_scale


class Convex(Model):
    """alpha[i, i] = convex, the rest shared evenly: rows sum to one."""

    convex: float = Field(gt=0, le=1, description="the diagonal of each alpha")


Start = Annotated[
    Annotated[Literal["identity", "uniform"], Tag("<word>")] | Annotated[Convex, Tag("<mapping>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<mapping>"),
]


class Mixing(LearnedSharing, SharingAtSites):
    """A scheme whose sites start with a matrix of weights between towers."""

    init: Start = Field(Convex(convex=0.9), description="the start of alpha")

    def keeps_equal_towers_equal(self, n_towers: int) -> bool:
        return math.isclose(self.diagonal(n_towers), 1 / n_towers)

    def diagonal(self, n_towers: int) -> float:
        """The initial value of each alpha[i, i]."""
        if isinstance(self.init, Convex):
            return self.init.convex
        starts: dict[Any, float] = {"identity": 1.0, "uniform": 1 / n_towers}
        return starts[self.init]


def require_stages(given: tuple[str, ...], stages: tuple[str, ...]) -> None:
    """Refuse names in `stages` that no stage of the backbone has.

    Raises:
        UserError: the first of them, with a path relative to the sharing.
    """
    for i, name in enumerate(given):
        if name not in stages:
            known = ", ".join(stages)
            what = f"no stage {quoted(name)}; stages: {known}{did_you_mean(name, stages)}"
            raise UserError("", what, path=("stages", i))
