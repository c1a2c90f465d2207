"""A schedule that may begin with a linear warm-up is the base of most members of this family.

The factor is a pure function of the step, so a checkpoint holds no state of a schedule.
s: the optimizer step, 0 <= s < S; S: all steps of the run.
"""

from __future__ import annotations

from pydantic import Field

from mtl.console import counted
from mtl.errors import UserError
from mtl.recipe.specs import ScheduleSpec


class WarmedUp(ScheduleSpec):
    """A schedule that may begin with a linear warm-up of W steps: factor = (s + 1) / W for s < W."""

    warmup_steps: int = Field(0, ge=0, lt=10**8, description="optimizer steps of linear warm-up, W")

    def factor(self, step: int, total: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.after_warmup(step - self.warmup_steps, max(total - self.warmup_steps, 1))

    def after_warmup(self, step: int, total: int) -> float:
        """The factor after the warm-up; `step` and `total` count from its end."""
        raise NotImplementedError

    def check(self, total: int) -> None:
        if self.warmup_steps and self.warmup_steps >= total:
            raise UserError(
                "",
                f"{counted(self.warmup_steps, 'warm-up step')}, but the run has {counted(total, 'step')}",
                path=("warmup_steps",),
            )
