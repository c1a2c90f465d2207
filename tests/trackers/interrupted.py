"""A listener that interrupts a run at the end of an epoch."""

from __future__ import annotations

from mtl.training.events import EpochEnded
from tests.support.listening import Watching


class Interrupted(Watching):
    """Raises KeyboardInterrupt at the end of an epoch.

    Args:
        epoch: the number of epochs that are done then.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def epoch_ended(self, event: EpochEnded) -> None:
        if self.trainer.progress.epoch == self.epoch:
            raise KeyboardInterrupt
