"""The stages of a run, as they are reached: a profiler listens to them, and so does a test that breaks a run there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Stage = Literal["load", "forward", "backward", "step", "evaluate", "log", "save", "retain", "finish", "plot"]
STAGES: tuple[Stage, ...] = get_args(Stage)

Listener = Callable[[Stage], None]

_listeners: list[Listener] = []


def reached(stage: Stage) -> None:
    """Tell every listener that a stage begins; what a listener raises breaks the stage off."""
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
