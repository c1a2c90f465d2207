"""One actor of a Ray cluster, as the command sees it: a place for one run after the other."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from mtl.comparison.processes.on_ray.copies import Incoming, Outgoing
from mtl.comparison.processes.on_ray.node import AT_ONCE, Hello, News, Node, Setup
from mtl.comparison.processes.pool import Job
from mtl.comparison.processes.process import PATIENCE
from mtl.errors import EnvironmentFault
from mtl.runs.disk import make_folder
from mtl.runs.folder import RECORD
from mtl.runs.lock import RunLock

LOOK = 1.0
"""Seconds that a node waits for news before it answers that there are none."""
CLOSED = 10.0
"""Seconds in which a node deletes what it keeps for itself."""


@dataclass(frozen=True)
class Needs:
    """What a run takes of a machine.

    Args:
        cpus: its threads.
        gpus: 1 where its recipe names CUDA.
    """

    cpus: int
    gpus: int

    @classmethod
    def of(cls, order: Mapping[str, Any], threads: int) -> Needs:
        """What a job takes."""
        return cls(threads, int(str(order["recipe"]["train"]["device"]).startswith("cuda")))

    def __str__(self) -> str:
        return f"{self.cpus} CPU" + (f" and {self.gpus} GPU" if self.gpus else "")


class Place:
    """An actor, the run that it makes, and the copy of this run where the node does not share the folder.

    Ray starts the actor once a node has what it needs; until then, `hello` is None.

    Args:
        setup: what the node has to know.
        needs: what a run takes of it.
    """

    def __init__(self, setup: Setup, needs: Needs) -> None:
        self.needs = needs
        self.hello: Hello | None = None
        self.job: Job | None = None
        made: Any = ray.remote(Node).options(num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=0)
        self._actor: Any = made.remote(setup)
        self._incoming: Incoming | None = None
        self._lock: RunLock | None = None
        self.asked: Any = self._actor.hello.remote()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a job."""
        return self.hello is not None and self.job is None

    @property
    def host(self) -> str:
        """The name of its machine; empty while that is not known."""
        return "" if self.hello is None else self.hello.host

    def give(self, job: Job) -> None:
        """Hand it a run, with what there is of this run already where the folder is not shared.

        Raises:
            UserError: another process writes to this run.
        """
        assert self.hello is not None
        self.job = job
        order = dict(job.order)
        if "out" in order:
            order["out"] = self._made_ready(Path(order["out"]).absolute(), self.hello.is_shared)
        self._actor.begin.remote(order)
        self.ask()

    def _made_ready(self, out: Path, is_shared: bool | None) -> str:
        """The path of a run folder, whose copy here is locked, and sent, where the node does not share it."""
        if not is_shared:
            make_folder(out)
            self._lock = RunLock(out)
            self._lock.take()
            self._incoming = Incoming(out)
            self._actor.expect.remote(f"{out.parent.name}-{out.name}")
            with suppress(RayError):  # the next answer tells that the actor is gone
                self._send(out)
        return str(out)

    def _send(self, out: Path) -> None:
        """Send what there is of a run; a piece is sent after the one before it has arrived."""
        pieces = Outgoing(out).round(is_over=True) if (out / RECORD).exists() else iter(())
        while some := list(islice(pieces, AT_ONCE)):
            ray.get(self._actor.take.remote(some))

    def ask(self) -> None:
        """Ask for news."""
        self.asked = self._actor.news.remote(LOOK)

    def answer(self) -> Hello | News | RayError:
        """The answer that has come, or how the actor was lost.

        Raises:
            EnvironmentFault: a disk of the node refused.
        """
        try:  # an interrupt in the middle leaves the answer to be taken later
            answer: Hello | News | RayError = ray.get(self.asked, timeout=PATIENCE)
        except RayTaskError as error:
            self.asked = None
            if not isinstance(error.cause, OSError):
                raise
            why = (error.cause.strerror or str(error.cause)).lower()
            raise EnvironmentFault(f"--on: node {self.host}", why, "make room there") from error
        except RayError as error:
            answer = error
        self.asked = None
        return answer

    def take(self, news: News) -> None:
        """Write the parts of the run folder that have come."""
        for piece in news.pieces:
            assert self._incoming is not None
            self._incoming.take(piece)

    def stop(self) -> None:
        """Let the run under way end after a save; news tell when it has."""
        if self.job is not None:
            self._actor.stop.remote()

    def free(self) -> None:
        """Its run is over."""
        if self._incoming is not None:
            self._incoming.close()
        if self._lock is not None:
            self._lock.release()
        self.job = self._incoming = self._lock = None

    def end(self, is_gone: bool = False) -> None:
        """End the actor; one that is gone is not asked to tidy up before."""
        self.free()
        with suppress(RayError):
            if self.hello is not None and not is_gone:
                ray.get(self._actor.close.remote(), timeout=CLOSED)
        with suppress(RayError):
            ray.kill(self._actor)
