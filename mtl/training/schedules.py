"""The learning rate's factor as a pure function of the step: nothing to save, nothing to resume.

s: the optimizer step, 0 <= s < S; S: all steps of the run.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from pydantic import Field

from mtl.errors import UserError
from mtl.recipe.spec import SCHEDULES, ScheduleSpec


class WarmedUp(ScheduleSpec):
    """A schedule that may begin with a linear warm-up: factor (s + 1) / W for s < W."""

    warmup_steps: int = Field(0, ge=0, lt=10**8, description="optimizer steps of linear warm-up, W")

    def factor(self, step: int, total: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.after_warmup(step - self.warmup_steps, max(total - self.warmup_steps, 1))

    def after_warmup(self, step: int, total: int) -> float:
        """The factor with both counted from the end of the warm-up."""
        raise NotImplementedError

    def check(self, total: int) -> None:
        if self.warmup_steps and self.warmup_steps >= total:
            raise UserError(
                "",
                f"{self.warmup_steps} warm-up steps, but the run has {total} steps",
                path=("warmup_steps",),
            )


@SCHEDULES.register("constant")
class Constant(WarmedUp):
    """factor = 1."""

    reference: ClassVar[str] = "ours"

    def after_warmup(self, step: int, total: int) -> float:
        return 1.0


@SCHEDULES.register("cosine")
class Cosine(WarmedUp):
    """factor = m + (1 - m) * (1 + cos(pi * s / S)) / 2, with m the last factor."""

    reference: ClassVar[str] = "Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5"

    min_factor: float = Field(0.0, ge=0, le=1, description="the last factor, m")

    def after_warmup(self, step: int, total: int) -> float:
        return self.min_factor + (1 - self.min_factor) * (1 + math.cos(math.pi * step / total)) / 2


@SCHEDULES.register("step")
class Step(WarmedUp):
    """factor = gamma ^ (number of milestones passed), a milestone being a fraction of the run."""

    reference: ClassVar[str] = "ours"

    at: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.5, 0.75), min_length=1, max_length=1000, description="fractions of the run"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor at each of them")

    def after_warmup(self, step: int, total: int) -> float:
        # rounded: 0.07 * 100 is a bit above 7
        return self.gamma ** sum(step >= round(fraction * total, 6) for fraction in self.at)


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
