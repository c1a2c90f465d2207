"""The position of a run in its training."""

from __future__ import annotations

from dataclasses import dataclass, field

from typing_extensions import TypedDict


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

    @property
    def best_steps(self) -> set[int]:
        """The steps whose weights the end of the run needs."""
        chosen = {best["step"] for best in self.bests.values()}
        return chosen if self.best_step is None else chosen | {self.best_step}
