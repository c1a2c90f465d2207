"""The position of a run in its training."""

from __future__ import annotations

from dataclasses import dataclass


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
        stale: the number of evaluations since the best value.
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
    stale: int = 0
    evaluated: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    stopped: bool = False
