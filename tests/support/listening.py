"""Listeners for tests, and the events of a training without its steps."""

from __future__ import annotations

from collections.abc import Iterator

from mtl.training.events import EpochEnded, Evaluated, Event, Started, Stepped, Warned
from mtl.training.loop import fit
from mtl.training.trainer import Trainer


class Watching:
    """Keeps the trainer and the warnings of a run; a test overrides the methods that it needs."""

    trainer: Trainer

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on(self, event: Event) -> None:
        match event:
            case Started():
                self.trainer = event.trainer
                self.started()
            case Stepped():
                self.stepped(event)
            case EpochEnded():
                self.epoch_ended(event)
            case Warned():
                self.warnings.append(event.text)

    def started(self) -> None: ...

    def stepped(self, event: Stepped) -> None: ...

    def epoch_ended(self, event: EpochEnded) -> None: ...


def measured_in(trainer: Trainer) -> Iterator[Evaluated | EpochEnded]:
    """Train, and yield what was measured within epochs and at their ends."""
    return (event for event in fit(trainer) if not isinstance(event, Stepped))


def epochs_of(trainer: Trainer) -> Iterator[EpochEnded]:
    """Train, and yield each epoch when it has ended."""
    return (event for event in fit(trainer) if isinstance(event, EpochEnded))
