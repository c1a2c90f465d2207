"""Stop signals while a run trains: a flag, looked at between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from mtl.errors import Terminated

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopAsked(Exception):
    """A stop signal came; raised at the edge of a step only, where the state of a run is whole."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def as_interrupt(self) -> KeyboardInterrupt:
        """What the command line and Python's users expect of this signal."""
        return KeyboardInterrupt() if self.number == signal.SIGINT else Terminated()


class StopSignals:
    """`with StopSignals() as stop`: SIGINT, SIGTERM and SIGHUP set a flag, and `stop.check()` raises.

    A second SIGINT breaks off at once. In another thread than the main one nothing changes. The previous handlers
    are put back.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # under nohup a run outlives its terminal
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == self.number:
            raise KeyboardInterrupt
        self.number = number

    def check(self) -> None:
        """Raises:
        StopAsked: a signal has come.
        """
        if self.number is not None:
            raise StopAsked(self.number)
