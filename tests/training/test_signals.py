"""Stop signals: a flag that is looked at, and handlers that are put back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from mtl.errors import Terminated
from mtl.training.signals import STOPPING, StopAsked, StopSignals


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Whatever a test does, the signals mean afterwards what they meant before."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_which() -> None:
    assert STOPPING == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_noted_and_raised_at_the_edge(number: signal.Signals) -> None:
    with StopSignals() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.number == number
        with pytest.raises(StopAsked) as caught:
            stop.check()
    assert caught.value.number == number
    kind = KeyboardInterrupt if number == signal.SIGINT else Terminated
    assert type(caught.value.as_interrupt()) is kind


def test_a_second_interrupt_breaks_off() -> None:
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_others_may_come_twice(number: signal.Signals) -> None:
    with StopSignals() as stop:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert stop.number == number


def test_the_handlers_are_put_back() -> None:
    def own(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, own)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = {number: signal.getsignal(number) for number in STOPPING}
    seen: list[bool] = []

    def breaks() -> None:
        with StopSignals():
            seen.extend(signal.getsignal(number) is not before[number] for number in STOPPING)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert seen == [True] * len(STOPPING)
    assert {number: signal.getsignal(number) for number in STOPPING} == before


def test_under_nohup_the_end_of_the_terminal_is_no_stop() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        stop.check()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_in_another_thread_nothing_changes() -> None:
    before = {number: signal.getsignal(number) for number in STOPPING}
    seen: list[object] = []

    def look() -> None:
        with StopSignals() as stop:
            stop.check()
            seen.append({number: signal.getsignal(number) for number in STOPPING})

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
