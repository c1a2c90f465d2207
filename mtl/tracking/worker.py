"""A tracker works in a thread of its own, so that a dead server costs the training neither time nor its life."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from mtl.console import counted
from mtl.errors import printable
from mtl.recipe.specs import Tracker, TrackerSpec
from mtl.registry import fault_of_plugin

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a call is repeated; each pause is twice as long as the one before."""
MOST_CALLS = 10_000
"""Calls that wait at most; later ones are lost."""
SLOW = 60.0
"""Seconds after which a call that does not return is told; a busy machine takes 30 s to import MLflow's client."""
LONGEST_END = 60.0
"""Seconds that a run waits at its end for a tracker that takes one call after the other."""
SHOWN = 200
"""Characters of an exception's text that are told."""

Call = Callable[[Tracker], None]


class Worker:
    """Hands calls to one tracker, in their order.

    Args:
        spec: the tracker's settings.
    """

    def __init__(self, spec: TrackerSpec) -> None:
        self.name = spec.kind
        self._spec = spec
        self._calls: deque[Call] = deque()
        self._news = threading.Condition()
        self._ending, self._abandoned, self._off = threading.Event(), False, False
        self._began: float | None = None
        self._done, self._lost = 0, 0
        self._fault, self._told = "", False
        self._thread = threading.Thread(target=self._work, name=f"tracker {self.name}", daemon=True)
        self._thread.start()

    def put(self, call: Call) -> None:
        """Let the tracker make a call when it has made those before; this returns at once."""
        with self._news:
            if self._off or len(self._calls) >= MOST_CALLS:
                self._lost += 1
                return
            self._calls.append(call)
            self._news.notify()

    def trouble(self) -> str:
        """The first trouble with the tracker as a sentence; empty if there is none, or if it was told before."""
        began = self._began
        fault = self._fault
        if not fault and began is not None and monotonic() - began > SLOW:
            fault = f"has not answered for {SLOW:.0f} s; the run goes on without it"
        if not fault or self._told:
            return ""
        self._told = True
        return f"tracker '{self.name}': {fault}"

    def close(self, patience: float, between: Callable[[], None]) -> str:
        """Wait until all calls are made, or until the tracker has taken none of them for `patience` seconds.

        Args:
            patience: seconds.
            between: called while this waits; an exception of it ends the waiting.

        Returns:
            A sentence on calls that were not made; empty if all were.
        """
        with self._news:
            self._ending.set()
            self._news.notify()
        began = since = monotonic()
        done = self._done
        while self._thread.is_alive() and monotonic() - began < LONGEST_END:
            if done != self._done:
                done, since = self._done, monotonic()
            if monotonic() - since > patience:
                break
            self._thread.join(0.02)
            between()
        with self._news:
            left = len(self._calls) + self._lost
        if not left:
            return ""
        if not self._fault:
            self._fault = f"has not answered for {patience:.0f} s; the run ends without it"
        return f"tracker '{self.name}': {counted(left, 'call')} of {left + self._done} did not get there"

    def abandon(self) -> None:
        """Let the thread end after the call that it is making."""
        with self._news:
            self._abandoned = True
            self._ending.set()
            self._news.notify()

    def _work(self) -> None:
        try:
            tracker = self._spec.open()
        except BaseException as error:
            self._switch_off(error)
            return
        while (call := self._next()) is not None:
            if not self._delivered(tracker, call):
                return
            with self._news:
                self._calls.popleft()
                self._done += 1

    def _next(self) -> Call | None:
        with self._news:
            while not self._calls and not self._ending.is_set():
                self._news.wait()
            return self._calls[0] if self._calls and not self._abandoned else None

    def _delivered(self, tracker: Tracker, call: Call) -> bool:
        """Whether a call was made; one that a connection or a disk refused is made again after a pause."""
        pause = FIRST_PAUSE
        while not self._abandoned:
            last = self._ending.is_set()  # a run that ends waits for one more attempt, and for no pause
            self._began = monotonic()
            try:
                call(tracker)
                return True
            except OSError as error:
                self._fault = (
                    self._fault or f"{_said(error)}; it is tried again, and the run goes on without it"
                )
            except BaseException as error:
                self._switch_off(error)
                return False
            finally:
                self._began = None
            if last:
                break
            self._ending.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return False

    def _switch_off(self, error: BaseException) -> None:
        """Give a tracker up; even an exit or an interrupt that its code raises ends nothing but this thread."""
        with self._news:
            self._fault = self._fault or f"{_said(error)}; it is switched off, and the run goes on without it"
            self._off = True


def _said(error: BaseException) -> str:
    """An exception in one line; of a plug-in it names the method and the line."""
    fault = fault_of_plugin(error)
    text = f"{type(error).__name__}: {error}" if fault is None else f"{fault.place}: {fault.what}"
    first = printable(" ".join(text.split()))
    return first if len(first) <= SHOWN else first[: SHOWN - 3] + "..."
