"""A constant rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mtl.recipe.specs import SCHEDULES
from mtl.schedules.warm_up import WarmedUp


@SCHEDULES.register("constant")
class Constant(WarmedUp):
    """factor = 1."""

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {"warmup_steps": 5}

    def after_warmup(self, step: int, total: int) -> float:
        return 1.0
