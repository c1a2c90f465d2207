"""Announces each stage of a run: a profiler listens to the stages, and a test breaks a run at one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Stage = Literal["load", "forward", "backward", "step", "evaluate", "log", "save", "retain", "finish", "plot"]
STAGES: tuple[Stage, ...] = get_args(Stage)

Listener = Callable[[Stage], None]

_listeners: list[Listener] = []


def reached(stage: Stage) -> None:
    """Tell every listener that a stage begins; an exception of a listener ends the stage."""
    for listener in _listeners:
        listener(stage)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """`with listening(f):` calls `f(stage)` whenever a stage of a run in this process begins."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
