"""A schedule that may begin with a linear warm-up: the base of most members.

The factor is a pure function of the step: nothing to save, nothing to resume.
s: the optimizer step, 0 <= s < S; S: all steps of the run.
"""

from __future__ import annotations

from pydantic import Field

from mtl.errors import UserError
from mtl.recipe.specs import ScheduleSpec


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
