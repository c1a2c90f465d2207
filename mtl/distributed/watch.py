"""Each rank tells the others that it lives, so that a lost one ends all with a line that names it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from time import monotonic, sleep
from typing import TypeVar

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from mtl.distributed.launch import Place
from mtl.errors import ENVIRONMENT, EnvironmentFault

T = TypeVar("T")
BEAT = 0.5
"""Seconds between two signs of life."""
SILENT = 2.5
"""A rank that was silent for so many seconds is gone if an exchange has failed meanwhile."""
LOST = 20.0
"""A rank that is silent for so long is gone in any case, as where its machine has lost power."""
ANSWER = timedelta(seconds=10)
"""The place where ranks meet answers within this time."""


class RankLost(EnvironmentFault):
    """A rank has ended, or does not answer."""


class Watch:
    """Signs of life of all ranks, in the store where they have met.

    Args:
        place: the place of this process.
        on_lost: called by the watching thread with the line to tell, before it ends the process.
    """

    n_made = 0
    """How many watches this process has made: each has keys of its own."""

    def __init__(self, place: Place, on_lost: Callable[[str], None]) -> None:
        self.place, self.on_lost = place, on_lost
        self.names = [""] * place.n
        self.todo = ""
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._left: set[int] = set()
        self._faults: dict[int, str] = {}
        self._answered = monotonic()
        self._stop = threading.Event()
        Watch.n_made += 1
        self._store = PrefixStore(
            f"mtl/{place.key}/{Watch.n_made}",
            TCPStore(place.host, place.port, None, False, ANSWER, wait_for_workers=False),
        )
        self._thread = threading.Thread(target=self._run, name="mtl-watch", daemon=True)

    def begin(self) -> None:
        """Tell the name of this rank, learn those of the others, and begin to watch."""
        own = f"process {os.getpid()} on {socket.gethostname()}"
        self._store.set(f"beat/{self.place.rank}", "0")
        self._store.set(f"name/{self.place.rank}", own)
        keys = [f"name/{rank}" for rank in range(self.place.n)]
        self._store.wait(keys, timedelta(minutes=5))
        self.names = [self._store.get(key).decode() for key in keys]
        self._store.wait([f"beat/{rank}" for rank in range(self.place.n)], ANSWER)
        self._thread.start()

    def end(self, fault: str = "") -> None:
        """Tell the others that this rank leaves in order, or with a fault of its own, and stop watching."""
        self._stop.set()
        with suppress(RuntimeError):  # nobody may be left to be told
            if fault:
                self._store.set(f"fault/{self.place.rank}", fault)
            self._store.set(f"left/{self.place.rank}", "1")

    def call(self, exchange: Callable[[], T]) -> T:
        """The result of an exchange.

        Raises:
            RankLost: it failed because a rank is gone.
        """
        try:
            return exchange()
        except RuntimeError:
            line = self.missing(2 * SILENT)
            if line is None:
                raise
            raise RankLost("", line, self.todo) from None

    def missing(self, patience: float) -> str | None:
        """Which ranks are gone, or have told a fault; None if all others still give signs of life.

        Args:
            patience: seconds to wait for the silence of a rank.
        """
        until = monotonic() + patience
        while True:
            self._look()
            for rank, fault in self._faults.items():
                return f"rank {rank} of {self.place.n}: {fault}"
            gone = self._silent(SILENT) or sorted(self._left - {self.place.rank})
            if gone:
                return self._line(gone)
            if monotonic() > until:
                return None
            sleep(0.1)

    @property
    def tells(self) -> bool:
        """Whether this rank is the one that tells the user: rank 0, or the first one that is left."""
        gone = self._silent(SILENT)  # one that has left has told, or left that to a lower rank
        return all(rank in gone for rank in range(self.place.rank))

    def publish(self, name: str, value: str) -> None:
        """Tell something to the ranks that wait for it."""
        self._store.set(name, value)

    def awaited(self, name: str) -> str:
        """What another rank publishes.

        Raises:
            RankLost: a rank is gone before that.
        """
        while True:
            if self.call(lambda: self._store.check([name])):
                return self.call(lambda: self._store.get(name)).decode()
            self._look()
            gone = self._silent(LOST) or sorted(self._left - {self.place.rank})
            if (gone or self._faults) and not self.call(lambda: self._store.check([name])):
                raise RankLost("", self.missing(0.0) or self._line(gone), self.todo)
            sleep(BEAT)

    def has_left(self, rank: int) -> bool:
        """Whether a rank has left in order, or gives no sign of life."""
        self._look()
        return rank in self._left or rank in self._silent(SILENT)

    def _line(self, ranks: list[int]) -> str:
        if monotonic() - self._answered > SILENT:  # then nothing is known of any rank
            return f"{self.place.host}:{self.place.port}, where the ranks meet, does not answer"
        named = " and ".join(f"rank {rank} of {self.place.n} ({self.names[rank]})" for rank in ranks)
        return f"{named} {'is' if len(ranks) == 1 else 'are'} gone"

    def _silent(self, seconds: float) -> list[int]:
        now = monotonic()
        return sorted(
            rank
            for rank, (_, since) in [*self._seen.items()]
            if rank not in self._left and now - since > seconds
        )

    def _look(self) -> None:
        """Take note of the signs of the other ranks. A store that is gone gives none."""
        now = monotonic()
        for rank in range(self.place.n):
            if rank == self.place.rank:
                continue
            beat, left, fault = self._read(rank)
            before = self._seen.get(rank)
            if before is None or (beat is not None and beat != before[0]):
                self._seen[rank] = (beat or b"", now)
            if left:
                self._left.add(rank)
            if fault:
                self._faults[rank] = fault

    def _read(self, rank: int) -> tuple[bytes | None, bool, str]:
        keys = [f"{what}/{rank}" for what in ("beat", "left", "fault")]
        try:
            beat = self._store.get(keys[0])
            left = self._store.check([keys[1]])
            fault = self._store.get(keys[2]).decode() if self._store.check([keys[2]]) else ""
        except RuntimeError:
            return None, False, ""
        self._answered = monotonic()
        return beat, left, fault

    def _run(self) -> None:
        count, ended = 0, None
        while not self._stop.wait(BEAT):
            count += 1
            with suppress(RuntimeError):  # the others' silence tells that the store is gone
                self._store.set(f"beat/{self.place.rank}", str(count))
            self._look()
            if ended is None and (self._faults or self._left):
                ended = monotonic()
            gone = self._silent(LOST)
            waits = (
                ended is not None and monotonic() - ended > LOST
            )  # as for a CUDA device, which no signal ends
            if (gone or waits) and not self._stop.is_set():
                if self.tells:
                    self.on_lost(self.missing(0.0) or self._line(gone))
                os._exit(ENVIRONMENT)
