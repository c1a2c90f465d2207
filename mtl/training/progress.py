"""Where a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """Where a run is; everything that a checkpoint needs beside tensors.

    Args:
        epoch: epochs done.
        step_in_epoch: steps done of the next one.
        step: optimizer steps done.
        horizon: the number of steps that the schedule was made for; 0: that of the recipe.
        best: the best value of the selecting metric so far.
        best_epoch, best_step: when that was.
        stale: evaluations since.
        evaluated: the step of the last evaluation.
        skipped: steps left out because something was not finite.
        skipped_in_a_row: how many of them were the last ones.
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
