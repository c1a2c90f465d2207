"""A run emits one stream of events while it trains; the parts that watch or record the run listen to this stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mtl.training.trainer import Trainer


@dataclass(frozen=True)
class Started:
    """A run begins or goes on; `trainer` stays the same object until the run ends.

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
        epoch: the number of epochs before this one.
        step: the number of steps of this epoch that are done.
        n_steps: the number of steps in this epoch.
        n_rows: the number of training rows of this step.
    """

    epoch: int
    step: int
    n_steps: int
    n_rows: int


@dataclass(frozen=True)
class Evaluated:
    """The model was evaluated within an epoch.

    Args:
        rows: lines of metrics.jsonl, one for each split.
        seconds: the duration of the evaluation.
        is_best: whether this step is the best so far by validation.
    """

    rows: list[dict[str, Any]]
    seconds: float
    is_best: bool


@dataclass(frozen=True)
class EpochEnded:
    """An epoch was trained to its end, and its evaluation was made if one was due.

    Args:
        rows: lines of metrics.jsonl; the line of the training split comes first.
        steps: optimizer steps since the epoch began, or since a resumed run went on within it.
        n_rows: the training rows of these steps; a row that came twice counts twice.
        seconds: `train` and `evaluate` -> the seconds that each took within these steps.
        is_best: whether this step is the best so far by validation.
        is_last: whether the training ends here.
    """

    rows: list[dict[str, Any]]
    steps: int
    n_rows: int
    seconds: dict[str, float]
    is_best: bool
    is_last: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint was committed.

    Args:
        step: the number of optimizer steps done.
        path: the folder of the checkpoint.
    """

    step: int
    path: Path


@dataclass(frozen=True)
class Noted:
    """A piece of information for the person who watches."""

    text: str


@dataclass(frozen=True)
class Warned:
    """A warning for the person who watches: something differs from what that person expects."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The run is finished and its results are written; an interrupted or failed run does not emit this event.

    Args:
        metrics: the last row of each split with the selected weights: `test/garment/accuracy` -> value.
        epoch: the epoch of the selected weights.
        step: the step of the selected weights.
        baselines: the headline metric of the trivial baselines: `test/garment/linear` -> value.
        plugins: the plug-ins of the run, which later commands need too.
    """

    metrics: dict[str, float | None]
    epoch: int
    step: int
    baselines: dict[str, float | None]
    plugins: tuple[str, ...] = ()


Event = Started | Stepped | Evaluated | EpochEnded | Saved | Noted | Warned | Ended


class Halted(Exception):
    """A listener raises it to end a run in order, before its results: its state is saved, and it may be resumed."""


class Listener(Protocol):
    """An object that receives the events of a run, such as the console, the recorder or a tracker.

    It may have a list `lost` of texts, of what could not be told to the user; the record of the run gets them.
    """

    def on(self, event: Event) -> None:
        """Handle an event, or ignore it. An exception of this method ends the training."""


class Stream:
    """The listeners of one run. A stream is itself a listener, so one stream can feed another.

    Args:
        listeners: the listeners, in the order in which they receive each event.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = listeners

    @property
    def lost(self) -> list[str]:
        """What the listeners could not tell the user."""
        return [text for listener in self.listeners for text in getattr(listener, "lost", ())]

    def on(self, event: Event) -> None:
        """Hand an event to each listener, one after the other."""
        for listener in self.listeners:
            listener.on(event)
