"""Stop signals end a command at once, except in two parts of it.

While a run trains, from the creation of its folder on, a signal sets a flag, and each step looks at the flag. While a
file is written that must not stay half, a signal raises an exception. Slow imports are done before either part.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType
from typing import Any

from mtl.errors import INTERRUPTED, HungUp, Terminated

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
REPEATED = 0.5
"""Seconds in which a repeated signal counts as the same one: some parents pass on a signal that the group also got."""


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """A signal handler that ends the process, without waiting for an import or for a read."""
    end_echo(number)
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(getattr(interrupt_of(number), "code", INTERRUPTED))


def interrupt_of(number: int) -> KeyboardInterrupt:
    """The exception that the command line and Python's users expect of a stop signal."""
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return Terminated() if number == signal.SIGTERM else HungUp()


def end_echo(number: int) -> None:
    """End the line in which a terminal shows ^C."""
    with suppress(OSError):
        if number == signal.SIGINT and os.isatty(2):
            os.write(2, b"\n")


def _in_main_thread() -> bool:
    """Whether this is the main thread; only there handlers can be set."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def undoing() -> Iterator[None]:
    """Let a signal raise KeyboardInterrupt or Terminated inside, so that `finally` blocks run before the end.

    A second signal, `REPEATED` seconds later, ends the command at once. A program may have set handlers of its own,
    as Python's users do; nothing changes there.
    """
    first: float | None = None

    def came(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = monotonic()
            end_echo(number)
            raise interrupt_of(number)
        if monotonic() - first >= REPEATED:
            end_at_once(number)

    ours = [n for n in STOPPING if _in_main_thread() and signal.getsignal(n) is end_at_once]
    try:
        for number in ours:
            signal.signal(number, came)
        yield
    finally:
        for number in ours:
            signal.signal(number, end_at_once)


class StopAsked(Exception):
    """A stop signal came. It is raised between two steps only, where the state of a run is whole."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def as_interrupt(self) -> KeyboardInterrupt:
        """As `interrupt_of` its number."""
        return interrupt_of(self.number)


class StopSignals:
    """`with StopSignals() as stop`: SIGINT, SIGTERM and SIGHUP set a flag, and `stop.check()` raises.

    A second SIGINT stops at once. A context inside another one takes over the signal that came to the outer one. At
    the end, the earlier handlers are restored. An ignored signal stays ignored: with nohup or `&`, a shell starts a
    command in this way to keep it alive.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in STOPPING if _in_main_thread() else ():
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._came)
        for handler in self._before.values():
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, StopSignals):
                self.number, self._at = outer.number, outer._at
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == self.number:
            if monotonic() - self._at < REPEATED:
                return
            end_echo(number)
            raise KeyboardInterrupt
        self.number, self._at = number, monotonic()

    def check(self) -> None:
        """Raise if a signal has come.

        Raises:
            StopAsked: a signal has come.
        """
        if self.number is not None:
            end_echo(self.number)
            raise StopAsked(self.number)
