"""A rate that rises to a peak and falls again."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from mtl.recipe.specs import SCHEDULES, ScheduleSpec


@SCHEDULES.register("one_cycle")
class OneCycle(ScheduleSpec):
    """Up from 1 / start_div to 1 on a cosine, then down to 1 / (start_div * final_div) on another.

    The optimizer's `lr` is the peak. As torch.optim.lr_scheduler.OneCycleLR, momentum left as it is.
    """

    reference: ClassVar[str] = "Smith and Topin 2018, arXiv:1708.07120"

    rise: float = Field(0.3, gt=0, lt=1, description="the fraction of the run that goes up")
    start_div: float = Field(25.0, ge=1, le=1e6, description="the peak rate over the first one")
    final_div: float = Field(1e4, ge=1, le=1e9, description="the first rate over the last one")

    def factor(self, step: int, total: int) -> float:
        first, last = 1 / self.start_div, 1 / (self.start_div * self.final_div)
        peak = max(self.rise * total - 1, 0.0)
        if step < peak:
            return _cosine(first, 1.0, step / peak)
        return _cosine(1.0, last, (step - peak) / max(total - 1 - peak, 1e-12))


def _cosine(begin: float, end: float, done: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * done)) / 2
