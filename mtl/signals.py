"""Stop signals: a flag while a run trains, looked at between steps; at any other time the end of the command."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from time import monotonic
from types import FrameType
from typing import Any

from mtl.errors import INTERRUPTED, TERMINATED, Terminated

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
REPEATED = 0.5
"""Seconds in which the same signal again is no second one: some parents pass on what their whole group has got."""


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """A handler that ends the process, without waiting for what it is importing."""
    end_echo(number)
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)


def end_echo(number: int) -> None:
    """End the line in which a terminal shows ^C."""
    with suppress(OSError):
        if number == signal.SIGINT and os.isatty(2):
            os.write(2, b"\n")


class _Handlers:
    """In the main thread, `_came` handles the stop signals inside `with`; the previous handlers are put back.

    A signal that is ignored stays so: a shell starts a command like that to keep it alive, as with nohup or `&`.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Any:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _came(self, number: int, frame: FrameType | None) -> None:
        raise NotImplementedError


class Interrupts(_Handlers):
    """`with Interrupts():` a stop signal raises KeyboardInterrupt or Terminated, so that what was begun is undone.

    While something is imported it ends the process: nothing is begun then, and libraries lose such an exception, or
    report it by screens of their own. So does another one while things are being undone, after `REPEATED` seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._at: float | None = None

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self._at is None and not _importing(frame):
            self._at = monotonic()
            end_echo(number)
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated
        if self._at is None or monotonic() - self._at >= REPEATED:
            end_at_once(number)


def _importing(frame: FrameType | None) -> bool:
    """Whether a call on the way to `frame` is an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


class StopAsked(Exception):
    """A stop signal came; raised at the edge of a step only, where the state of a run is whole."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def as_interrupt(self) -> KeyboardInterrupt:
        """What the command line and Python's users expect of this signal."""
        return KeyboardInterrupt() if self.number == signal.SIGINT else Terminated()


class StopSignals(_Handlers):
    """`with StopSignals() as stop`: SIGINT, SIGTERM and SIGHUP set a flag, and `stop.check()` raises.

    A second SIGINT breaks off at once. One inside another takes over the signal that the outer one has got.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None
        self._at = 0.0

    def __enter__(self) -> StopSignals:
        super().__enter__()
        for handler in self._before.values():
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, StopSignals):
                self.number, self._at = outer.number, outer._at
        return self

    def _came(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == self.number:
            if monotonic() - self._at < REPEATED:
                return
            end_echo(number)
            raise KeyboardInterrupt
        self.number, self._at = number, monotonic()

    def check(self) -> None:
        """Raises:
        StopAsked: a signal has come.
        """
        if self.number is not None:
            end_echo(self.number)
            raise StopAsked(self.number)
