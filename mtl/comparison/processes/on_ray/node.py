"""What runs on a machine of a Ray cluster: it starts the process that makes runs, and tells what this one says."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import select
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from mtl import __version__
from mtl.comparison.processes.on_ray.copies import Incoming, Outgoing, Piece
from mtl.comparison.processes.process import COMPARED, PATIENCE, Process
from mtl.runs.lock import RunLock

AT_ONCE = 2
"""Pieces of files in one answer, which bounds the memory that an answer takes."""
MOST_LOGGED = 1 << 16
"""Bytes of the log in one answer."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in that the processes load.

    Args:
        name: a path on the machine of the command, or the name of an installed entry point.
        content: the content of the file; None for an entry point.
    """

    name: str
    content: bytes | None


@dataclass(frozen=True)
class Setup:
    """What a node has to know before its first run.

    Args:
        threads: of each run.
        plugins: the plug-ins of the command.
        folder: the folder of the comparison on the machine of the command.
        marker: the name of a file in it, which a node that shares the folder sees.
        token: what this file holds.
        working: the working folder of the command.
        has_gpu: whether the runs train on a GPU.
        module: what the process runs.
    """

    threads: int
    plugins: Sequence[Plugin]
    folder: str
    marker: str
    token: str
    working: str
    has_gpu: bool
    module: str = COMPARED


@dataclass(frozen=True)
class Hello:
    """What a node says first.

    Args:
        host: the name of the machine.
        is_shared: whether it sees the folder of the comparison; None: it does, and may not write there.
        versions: of mtl, torch and Python.
    """

    host: str
    is_shared: bool | None
    versions: Mapping[str, str]


@dataclass
class News:
    """What has happened since the last answer.

    Args:
        said: reports of the process.
        pieces: parts of the run folder, where it is not shared.
        log: what the process printed.
        lost: the exit code of a process that ended without a report.
    """

    said: list[dict[str, Any]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    log: bytes = b""
    lost: int | None = None


def versions() -> dict[str, str]:
    """The versions that decide what a run computes; builds of one torch for other devices count as the same."""
    torch = importlib.metadata.version("torch").split("+")[0]
    return {"mtl": __version__, "torch": torch, "python": platform.python_version()}


class Node:
    """An actor of Ray, which makes one run after the other in a process that is started as on a single machine.

    If Ray or its machine ends the actor, the process sees its stdin closed, saves its run and ends too.

    Args:
        setup: what it has to know.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._own = Path(tempfile.mkdtemp(prefix="mtl-"))
        self._is_shared = _sees(setup)
        self._log = open(self._own / "workers.log", "ab")  # noqa: SIM115, closed in `close`
        self._logged = 0
        self._process: Process | None = None
        self._waiting: tuple[dict[str, Any], float] | None = None
        self._run = self._own
        self._outgoing = Outgoing(self._own)
        self._incoming = Incoming(self._own)
        self._sending: Iterator[Piece] | None = None
        self._is_over = self._brings = False
        self._held = News()

    def hello(self) -> Hello:
        """The facts that the command has to know of this node."""
        is_shared: bool | None = self._is_shared
        if self._is_shared and not os.access(self.setup.folder, os.W_OK | os.X_OK):
            is_shared = None
        return Hello(socket.gethostname(), is_shared, versions())

    def expect(self, name: str) -> None:
        """Make room for a run whose folder is not shared; its earlier content comes by `take`."""
        if self._run != self._own:
            shutil.rmtree(self._run, ignore_errors=True)
        self._run = self._own / name
        self._incoming, self._outgoing = Incoming(self._run), Outgoing(self._run)

    def take(self, pieces: Sequence[Piece]) -> None:
        """Write parts of a run that began elsewhere."""
        for piece in pieces:
            self._incoming.take(piece)

    def begin(self, order: Mapping[str, Any]) -> None:
        """Begin a run, or go on with one, once no process holds its folder any more."""
        order = dict(order)
        self._brings = "out" in order and not self._is_shared
        if self._is_shared:
            self._run = Path(order.get("out", self._own))
        elif self._brings:
            order["out"] = str(self._run)
            self._outgoing.mark()
        self._sending, self._is_over, self._held = None, False, News()
        if self._process is None:
            self._process = self._start()
        self._waiting = (order, monotonic() + PATIENCE)

    def _start(self) -> Process:
        """The process that makes the runs; it sees a GPU only if Ray has given one to this actor."""
        working = self.setup.working if os.path.isdir(self.setup.working) else str(self._own)
        hidden = {} if self.setup.has_gpu else {"CUDA_VISIBLE_DEVICES": ""}
        plugins = [self._plugin(i, plugin) for i, plugin in enumerate(self.setup.plugins)]
        return Process(self.setup.threads, plugins, self._log, self.setup.module, hidden, working)

    def _plugin(self, i: int, plugin: Plugin) -> str:
        """The name by which the process loads a plug-in: its path where the same file is there, else a copy."""
        if plugin.content is None:
            return plugin.name
        path = Path(plugin.name)
        if path.is_file() and path.read_bytes() == plugin.content:
            return plugin.name
        copy = self._own / "plugins" / str(i) / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(plugin.content)
        return str(copy)

    def news(self, seconds: float) -> News:
        """What has happened; waits up to some seconds until something has.

        A report that the run has ended comes after the last piece of its folder.
        """
        assert self._process is not None
        if self._waiting is not None and not self._hand_over(seconds):
            return News(log=self._new_log())
        if not self._has_ended():
            self._held.said += self._reports(0.0 if self._sending else seconds)
            if not self._has_ended():
                self._held.lost = self._process.code
        news = News(pieces=self._next_pieces() if self._brings else [], log=self._new_log())
        if not self._has_ended() or not self._brings or (self._is_over and self._sending is None):
            news.said, news.lost, self._held = self._held.said, self._held.lost, News()
        if news.lost is not None:
            self._process.close()
            self._process = None
        return news

    def _hand_over(self, seconds: float) -> bool:
        """Give the process its order once the run's folder is free; its own refusal tells who holds it for too long."""
        assert self._waiting is not None and self._process is not None
        order, until = self._waiting
        lock, end = RunLock(self._run), monotonic() + seconds
        while lock.taken() and monotonic() < until:
            if monotonic() >= end:
                return False
            sleep(0.1)
        self._process.give(order)
        self._waiting = None
        return True

    def _has_ended(self) -> bool:
        return self._held.lost is not None or any("ended" in each for each in self._held.said)

    def _reports(self, seconds: float) -> list[dict[str, Any]]:
        assert self._process is not None
        ready, _, _ = select.select([self._process.output], [], [], seconds)
        return self._process.reports() if ready else []

    def _next_pieces(self) -> list[Piece]:
        """The next parts of the run folder: whenever a checkpoint was committed, and at the end."""
        has_ended = self._has_ended()
        if self._sending is None and not self._is_over and (has_ended or self._outgoing.is_due()):
            self._sending, self._is_over = self._outgoing.round(has_ended), has_ended
        if self._sending is None:
            return []
        pieces = list(islice(self._sending, AT_ONCE))
        if len(pieces) < AT_ONCE:
            self._sending = None
        return pieces

    def _new_log(self) -> bytes:
        with open(self._log.name, "rb") as file:
            file.seek(self._logged)
            read = file.read(MOST_LOGGED)
        self._logged += len(read)
        return read

    def stop(self) -> None:
        """End the run under way after a save; `news` tells when it has ended."""
        self._waiting = None
        if self._process is not None:
            self._process.stop()

    def close(self) -> None:
        """End the process, and delete what this node keeps for itself."""
        if self._process is not None:
            self._process.close()
        self._log.close()
        shutil.rmtree(self._own, ignore_errors=True)


def _sees(setup: Setup) -> bool:
    """Whether the folder of the comparison is the same here: it holds what the command has just written there."""
    try:
        return Path(setup.folder, setup.marker).read_text(encoding="ascii") == setup.token
    except (OSError, ValueError):
        return False
