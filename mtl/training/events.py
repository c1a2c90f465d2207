"""What happens while a run trains: one stream of events, which everything that watches or records a run listens to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mtl.training.trainer import Trainer


@dataclass(frozen=True)
class Started:
    """A run begins, or goes on; `trainer` stays the same object until it ends.

    Args:
        trainer: everything that the run trains with.
        path: the run folder.
    """

    trainer: Trainer
    path: Path


@dataclass(frozen=True)
class Stepped:
    """An optimizer step was taken.

    Args:
        epoch: epochs done before this one.
        step: steps done of this epoch.
        n_steps: steps that this epoch has.
    """

    epoch: int
    step: int
    n_steps: int


@dataclass(frozen=True)
class Evaluated:
    """The model was evaluated within an epoch.

    Args:
        rows: lines of metrics.jsonl, one for each split.
        seconds: how long it took.
        is_best: whether this step is the best so far by validation.
    """

    rows: list[dict[str, Any]]
    seconds: float
    is_best: bool


@dataclass(frozen=True)
class EpochEnded:
    """An epoch was trained to its end, and evaluated if that was due.

    Args:
        rows: lines of metrics.jsonl, that of the training split first.
        steps: optimizer steps since the epoch began, or since a resumed run went on within it.
        seconds: `train` and `evaluate` -> how long each took, counted like the steps.
        is_best: whether this step is the best so far by validation.
        is_last: whether the training ends here.
    """

    rows: list[dict[str, Any]]
    steps: int
    seconds: dict[str, float]
    is_best: bool
    is_last: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint was committed.

    Args:
        step: optimizer steps done.
        path: the folder of the checkpoint.
    """

    step: int
    path: Path


@dataclass(frozen=True)
class Noted:
    """Something that the person who watches may like to know."""

    text: str


@dataclass(frozen=True)
class Warned:
    """Something that is not as the person who watches would expect."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The run is finished and its results are written; a run that is interrupted or fails does not tell this.

    Args:
        metrics: the last row of each split with the selected weights: `test/garment/accuracy` -> value.
        epoch: the epoch of the selected weights.
        step: their step.
    """

    metrics: dict[str, float | None]
    epoch: int
    step: int


Event = Started | Stepped | Evaluated | EpochEnded | Saved | Noted | Warned | Ended


class Listener(Protocol):
    """Whoever is told what happens: the console, the recorder, a tracker."""

    def on(self, event: Event) -> None:
        """Take note of an event, or let it pass. What this raises ends the training."""


class Stream:
    """The listeners of one run; a stream is a listener itself, so that one can lead into another.

    Args:
        listeners: in the order in which they are told.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = listeners

    def on(self, event: Event) -> None:
        """Hand an event to each listener, one after the other."""
        for listener in self.listeners:
            listener.on(event)
