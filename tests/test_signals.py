"""Stop signals: a flag that is looked at, an exception, or the end at once; and handlers that are put back."""

from __future__ import annotations

import importlib
import os
import pty
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mtl import signals
from mtl.errors import HUNG_UP, INTERRUPTED, TERMINATED, HungUp, Terminated
from mtl.signals import STOPPING, StopAsked, StopSignals, end_at_once, undoing

KINDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated, signal.SIGHUP: HungUp}
CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED, signal.SIGHUP: HUNG_UP}


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Whatever a test does, the signals mean afterwards what they meant before."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore them
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
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
    assert type(caught.value.as_interrupt()) is KINDS[number]


def test_a_second_interrupt_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not one that comes at once: both the terminal and a parent may have sent the first."""
    clock = [100.0, 100.1, 100.4, 100.5]
    monkeypatch.setattr(signals, "monotonic", lambda: clock.pop(0))
    with StopSignals() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT


def test_one_inside_another_knows_what_came_before() -> None:
    with StopSignals() as outer:
        os.kill(os.getpid(), signal.SIGTERM)
        with StopSignals() as inner, pytest.raises(StopAsked) as caught:
            inner.check()
        assert caught.value.number == outer.number == signal.SIGTERM


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


@pytest.mark.parametrize("number", STOPPING)
def test_what_is_ignored_stays_so(number: signal.Signals) -> None:
    """As under nohup, or as a script starts a command in the background."""
    signal.signal(number, signal.SIG_IGN)
    with StopSignals() as stop, undoing():
        os.kill(os.getpid(), number)
        stop.check()
    assert signal.getsignal(number) is signal.SIG_IGN
    with undoing():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.SIG_IGN


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


# --- when no run trains ---


class Ended(BaseException):
    """In the place of the end of the process."""


@pytest.fixture
def no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)


@pytest.fixture
def command(no_end: None) -> None:
    """The handlers of the command line."""
    for number in STOPPING:
        signal.signal(number, end_at_once)


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("number", STOPPING)
def test_an_exception_and_then_the_end(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = [7.0, 7.1, 7.4, 7.5]
    monkeypatch.setattr(signals, "monotonic", lambda: clock.pop(0))
    with undoing():
        with pytest.raises(KeyboardInterrupt) as caught:
            os.kill(os.getpid(), number)
        assert caught.type is KINDS[number]
        for _ in range(2):
            os.kill(os.getpid(), number)
        assert capfd.readouterr().err == ""
        with pytest.raises(Ended) as ended:
            os.kill(os.getpid(), number)
        assert ended.value.args == (CODES[number],)
        assert capfd.readouterr().err == "interrupted\n"
    assert [signal.getsignal(number) for number in STOPPING] == [end_at_once] * len(STOPPING)


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("number", STOPPING)
def test_what_was_begun_is_undone_and_then_the_end_is_at_once_again(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    undone = []

    @undoing()
    def begins() -> None:
        try:
            with undoing():  # as a download within a longer piece of work
                os.kill(os.getpid(), number)
        finally:
            undone.append(number)

    for times in (1, 2):  # a decorated function begins anew each time
        with pytest.raises(KeyboardInterrupt):
            begins()
        assert undone == [number] * times
    assert capfd.readouterr().err == ""
    with pytest.raises(Ended):
        os.kill(os.getpid(), number)
    assert capfd.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("number", STOPPING)
def test_handlers_of_other_programs_stay(number: signal.Signals) -> None:
    """As of those who call mtl in Python."""
    came = []

    def own(number: int, frame: object) -> None:
        came.append(number)

    signal.signal(number, own)
    with undoing():
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) is own
    assert came == [number]


@pytest.mark.usefixtures("command")
def test_in_another_thread_nothing_is_undone() -> None:
    """Python sets handlers in the main thread only."""
    seen: list[object] = []

    def look() -> None:
        with undoing():
            seen.extend(signal.getsignal(number) for number in STOPPING)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [end_at_once] * len(STOPPING)


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("number", STOPPING)
def test_the_end_at_once_while_something_is_imported(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow_to_import.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Ended) as ended:
        importlib.import_module("slow_to_import")
    assert ended.value.args == (CODES[number],)
    assert capfd.readouterr().err == "interrupted\n"
    assert "slow_to_import" not in sys.modules


@pytest.mark.usefixtures("no_end")
@pytest.mark.parametrize(
    ("number", "shown"), [(signal.SIGINT, b"\r\ninterrupted\r\n"), (15, b"interrupted\r\n")]
)
def test_the_echo_of_a_terminal_is_ended(number: int, shown: bytes) -> None:
    """Where a terminal shows ^C, what follows begins on a line of its own."""
    ours, terminal = pty.openpty()
    kept = os.dup(2)
    os.dup2(terminal, 2)
    try:
        with pytest.raises(Ended):
            end_at_once(number)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    os.close(terminal)
    seen = b""
    with suppress(OSError):  # EIO: the other end was closed
        while part := os.read(ours, 100):
            seen += part
    os.close(ours)
    assert seen == shown


@pytest.mark.usefixtures("no_end")
def test_nobody_reads_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: bytes) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(Ended):
        end_at_once(signal.SIGTERM)
