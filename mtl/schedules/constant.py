"""A constant rate."""

from __future__ import annotations

from typing import ClassVar

from mtl.recipe.specs import SCHEDULES
from mtl.schedules.warm_up import WarmedUp


@SCHEDULES.register("constant")
class Constant(WarmedUp):
    """factor = 1."""

    reference: ClassVar[str] = "ours"

    def after_warmup(self, step: int, total: int) -> float:
        return 1.0
