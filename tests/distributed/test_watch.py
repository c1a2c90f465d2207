"""What ranks learn of each other: a fault elsewhere, a place that does not answer, and what a rank tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mtl.distributed import watch as watching
from mtl.distributed.launch import Place
from mtl.distributed.told import told_of
from mtl.distributed.watch import Watch
from mtl.errors import BUG, ENVIRONMENT, INTERRUPTED, TERMINATED, USER, Terminated, UserError


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signs of life in quick succession, and the exit codes of processes that a watch has ended."""
    ended: list[int] = []
    for name, value in {"BEAT": 0.05, "SILENT": 0.5, "LOST": 1.0}.items():
        monkeypatch.setattr(watching, name, value)
    monkeypatch.setattr("mtl.distributed.watch.os._exit", ended.append)
    return ended


class Met:
    """Two watches as of two ranks, and what each would tell the user."""

    def __init__(self) -> None:
        self.store: TCPStore | None = TCPStore("localhost", 0, None, True, wait_for_workers=False)
        self.lines: tuple[list[str], list[str]] = ([], [])
        self.port = self.store.port
        self.watches = [
            Watch(Place(rank, 2, rank, "localhost", self.port, "it"), self.lines[rank].append)
            for rank in (0, 1)
        ]
        for watch in self.watches:  # as if each were the first of its process
            watch._store = watching.PrefixStore("it", watch._store.underlying_store)  # type: ignore[attr-defined]
            watch._store.set(f"beat/{watch.place.rank}", "0")
            watch.names = ["process 1 on a", "process 2 on b"]
            watch._thread.start()


@pytest.fixture
def met(quick: list[int]) -> Iterator[Met]:
    found = Met()
    yield found
    for watch in found.watches:
        watch._stop.set()


def wait_until(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_rank_that_hangs_ends_after_the_fault_of_another_one(met: Met, quick: list[int]) -> None:
    time.sleep(0.3)
    assert quick == []
    met.watches[1].end("not enough memory")
    wait_until(lambda: met.lines[0])
    assert quick[0] == ENVIRONMENT
    assert met.lines[0][0] == "rank 1 of 2: not enough memory"


def test_a_rank_that_hangs_leaves_the_line_to_rank_0(met: Met, quick: list[int]) -> None:
    met.watches[0].end("a fault")
    wait_until(lambda: quick)
    assert met.lines == ([], [])


def test_where_ranks_meet_nobody_answers(met: Met, quick: list[int]) -> None:
    wait_until(lambda: met.watches[0]._seen and met.watches[1]._seen)
    for watch in met.watches:
        watch._read = lambda rank: (None, False, "")  # type: ignore[method-assign]
    wait_until(lambda: met.lines[0])
    assert met.lines[0][0] == f"localhost:{met.port}, where the ranks meet, does not answer"


def test_a_silent_rank_is_named(met: Met, quick: list[int]) -> None:
    wait_until(lambda: met.watches[0]._seen)
    met.watches[1]._stop.set()
    wait_until(lambda: met.lines[0])
    assert met.lines[0][0] == "rank 1 of 2 (process 2 on b) is gone"


class Odd(Exception):
    code = 404


def test_what_a_rank_tells_of_its_end() -> None:
    assert told_of(UserError("a.csv", "is empty")) == ("a.csv: is empty", USER)
    assert told_of(KeyboardInterrupt()) == ("", INTERRUPTED)
    assert told_of(Terminated()) == ("", TERMINATED)
    assert told_of(MemoryError())[1] == ENVIRONMENT
    bug = Odd("x")
    line, code = told_of(bug)
    assert code == BUG
    assert line.startswith("a bug in mtl: Odd: 'x'; traceback in ")
    path = Path(line.split("traceback in ")[1].split(" on ")[0])
    assert "Odd: x" in path.read_text()
    assert told_of(bug) == (line, code), "one file for each fault"
    path.unlink()
