"""A rate that falls on a cosine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from mtl.recipe.specs import SCHEDULES
from mtl.schedules.warm_up import WarmedUp


@SCHEDULES.register("cosine")
class Cosine(WarmedUp):
    """factor = m + (1 - m) * (1 + cos(pi * s / S)) / 2, with m the last factor."""

    reference: ClassVar[str] = "Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5"
    example: ClassVar[Mapping[str, Any]] = {"warmup_steps": 4}

    min_factor: float = Field(0.0, ge=0, le=1, description="the last factor, m")

    def after_warmup(self, step: int, total: int) -> float:
        return self.min_factor + (1 - self.min_factor) * (1 + math.cos(math.pi * step / total)) / 2
