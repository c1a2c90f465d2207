"""A rate that falls in steps."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from mtl.recipe.specs import SCHEDULES
from mtl.schedules.warm_up import WarmedUp


@SCHEDULES.register("step")
class Step(WarmedUp):
    """factor = gamma ^ (number of milestones passed), a milestone being a fraction of the run."""

    reference: ClassVar[str] = "ours"

    at: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.5, 0.75), min_length=1, max_length=1000, description="fractions of the run"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor at each of them")

    def after_warmup(self, step: int, total: int) -> float:
        # the product is rounded, since 0.07 * 100 is a bit above 7
        return self.gamma ** sum(step >= round(fraction * total, 6) for fraction in self.at)
