"""The position of a run in its training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from typing_extensions import TypedDict

MAX_STEPS = 10**8
"""A run has fewer steps than this, since names of checkpoints have eight digits."""


class Best(TypedDict):
    """The best value of a metric so far, with its epoch and step."""

    value: float
    epoch: int
    step: int


@dataclass
class Progress:
    """The position of a run in its training, which is everything that a checkpoint needs beside tensors.

    Args:
        epoch: the number of complete epochs.
        step_in_epoch: the number of steps done in the epoch under way.
        step: the number of optimizer steps done.
        horizon: the number of steps that the schedule was made for; 0 stands for that of the recipe.
        best: the best value of the selecting metric so far.
        best_epoch, best_step: the epoch and the step of the best value.
        bests: task -> the best value of its headline metric so far, where the recipe selects a step for each task.
        stale: the number of evaluations since the best value, of the selecting metric or of any of `bests`.
        evaluated: the step of the last evaluation.
        skipped: the number of steps that were skipped because a loss or gradient was infinite or NaN.
        skipped_in_a_row: the number of skipped steps since the last step that was taken.
        stopped: whether early stopping ended the run.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    horizon: int = 0
    best: float | None = None
    best_epoch: int | None = None
    best_step: int | None = None
    bests: dict[str, Best] = field(default_factory=dict)
    stale: int = 0
    evaluated: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    stopped: bool = False

    def contradiction(self) -> str:
        """What cannot be so in any run; empty for a position that training reaches."""
        best = (self.best, self.best_epoch, self.best_step)
        bests = [*self.bests.values()]
        if self.best is not None and self.best_epoch is not None and self.best_step is not None:
            bests.append(Best(value=self.best, epoch=self.best_epoch, step=self.best_step))
        elif best != (None, None, None):
            return "the best value has no step, or the best step no value"
        limits = {
            "step": (self.step, MAX_STEPS - 1),
            "horizon": (self.horizon, MAX_STEPS - 1),
            "epoch": (self.epoch, self.step),
            "step_in_epoch": (self.step_in_epoch, self.step),
            "evaluated": (self.evaluated, self.step),
            "stale": (self.stale, self.step + 1),
            "skipped": (self.skipped, self.step),
            "skipped_in_a_row": (self.skipped_in_a_row, self.skipped),
            "best_step": (max((own["step"] for own in bests), default=0), self.step),
            "best_epoch": (max((own["epoch"] for own in bests), default=0), self.epoch + 1),
        }
        for name, (value, most) in limits.items():
            if not 0 <= value <= most:
                return f"{name} is {value}, at most {most} is possible at step {self.step}"
        if not all(math.isfinite(own["value"]) for own in bests):
            return "a best value is not finite"
        return ""

    @property
    def best_steps(self) -> set[int]:
        """The steps whose weights the end of the run needs."""
        chosen = {best["step"] for best in self.bests.values()}
        return chosen if self.best_step is None else chosen | {self.best_step}
