"""The runs of a comparison on the machines of a Ray cluster, which may die under way."""

from __future__ import annotations

import os
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Self

import ray
from ray.exceptions import RayError

from mtl.comparison.processes.on_ray.node import Hello, News, Plugin, Setup, versions
from mtl.comparison.processes.on_ray.place import LOOK, Needs, Place
from mtl.comparison.processes.pool import LOG, Job, Report, Workers, report_of
from mtl.comparison.processes.process import COMPARED, PATIENCE
from mtl.errors import EnvironmentFault, UserError
from mtl.runs.disk import write_whole

RETRIES = 3
"""A run whose machine or process died goes on elsewhere, up to this many times."""
WAITED = 20.0
"""Seconds without a node after which a line says so."""


class RayWorkers:
    """At most `n` actors of Ray, each of which makes one run after the other; `with RayWorkers(...)` ends them all.

    References are made by a process on this machine: each is made once, and may read a file that only this one has.

    Args:
        n: the number of actors.
        threads: the threads of each run.
        plugins: the plug-ins that each loads.
        folder: the folder of the comparison, whose workers.log gets what the processes print.
        says: is given facts that the user should know.
        module: what each process runs.
        all_share: whether every node must see the folder.
    """

    def __init__(
        self,
        n: int,
        threads: int,
        plugins: Sequence[str],
        folder: Path,
        says: Callable[[str], None],
        module: str = COMPARED,
        all_share: bool = False,
    ) -> None:
        self.n, self.threads, self.plugins, self.folder, self.says = n, threads, plugins, folder, says
        self.module, self.all_share = module, all_share
        self._places: list[Place] = []
        self._said: set[str] = set()
        self._losses: Counter[str] = Counter()
        self._since = monotonic()
        self._marker, self._token = f".here-{secrets.token_hex(8)}", secrets.token_hex(16)

    def __enter__(self) -> Self:
        write_whole(self.folder / self._marker, self._token.encode())
        self._log = open(self.folder / LOG, "ab")
        return self

    def __exit__(self, *_: object) -> None:
        """Let every run under way end after a save, bring back what it saved, and end all actors."""
        try:
            with suppress(RayError):
                for place in self._places:
                    place.stop()
            until = monotonic() + PATIENCE
            while any(place.job and place.asked for place in self._places) and monotonic() < until:
                with suppress(UserError):  # the first error is what the user has to know
                    for place, answer in self._answers():
                        if self._lost_by(place, answer, lambda report: None) is not None:
                            place.free()
        finally:
            for place in self._places:
                place.end()
            self._log.close()
            (self.folder / self._marker).unlink(missing_ok=True)

    def do(self, jobs: Sequence[Job], on: Callable[[Report], None], may_begin: Callable[[], bool]) -> None:
        """As `Pool.do`; a run whose machine or process died goes on elsewhere from its last checkpoint."""
        waiting = deque(job for job in jobs if not _is_reference(job))
        while self._hand_out(waiting, may_begin):
            for place, answer in self._answers():
                lost = self._lost_by(place, answer, on)
                if lost is not None:
                    self._again(place, lost, waiting)
        here = [job for job in jobs if _is_reference(job)]
        if here:
            with Workers(1, self.threads, self.plugins, self.folder) as workers:
                workers.do(here, on, may_begin)

    def _hand_out(self, waiting: deque[Job], may_begin: Callable[[], bool]) -> bool:
        """Give idle actors a job, start actors while there are fewer than `n` and jobs to do, and end those to spare.

        Returns:
            Whether something is under way.
        """
        while waiting and may_begin():
            needs = Needs.of(waiting[0].order, self.threads)
            idle = [place for place in self._places if place.is_idle]
            fit = next((place for place in idle if place.needs == needs), None)
            if fit is not None:
                fit.give(waiting.popleft())
                continue
            if idle and len(self._places) == self.n:
                self._end(idle[0])
            starting = [place for place in self._places if place.hello is None]
            if len(self._places) == self.n or len(starting) >= len(waiting):
                self._say_if_nothing_starts(needs)
                return True
            self._places.append(Place(self._setup(needs), needs))
        for place in [place for place in self._places if place.job is None]:
            self._end(place)
        return bool(self._places)

    def _setup(self, needs: Needs) -> Setup:
        plugins = [
            Plugin(name, Path(name).read_bytes() if name.endswith(".py") else None) for name in self.plugins
        ]
        folder, has_gpu = str(self.folder.absolute()), needs.gpus > 0
        return Setup(
            self.threads, plugins, folder, self._marker, self._token, os.getcwd(), has_gpu, self.module
        )

    def _answers(self) -> Iterator[tuple[Place, Hello | News | RayError]]:
        """What actors have answered, or how they were lost; this waits a while for one."""
        asked = {place.asked: place for place in self._places if place.asked is not None}
        ready, _ = ray.wait(list(asked), num_returns=1, timeout=LOOK) if asked else ([], [])
        for ref in ready:
            yield asked[ref], asked[ref].answer()

    def _lost_by(
        self, place: Place, answer: Hello | News | RayError, on: Callable[[Report], None]
    ) -> str | None:
        """Take an answer of an actor, and ask it again; returns how its run was lost, if it was.

        Raises:
            UserError: the run was refused, or the node has another mtl.
        """
        if isinstance(answer, RayError):
            job = place.job
            self._end(place, is_gone=True)
            place.job = job  # which the caller puts first in the queue again
            return _in_words(answer) if job is None else "was lost"
        if isinstance(answer, Hello):
            self._welcome(place, answer)
            return None
        job = place.job
        assert job is not None
        self._log.write(answer.log)
        self._log.flush()
        place.take(answer)
        for said in answer.said:
            if "ended" in said:
                place.free()
            on(report_of(job, said, f" on {place.host}"))
        if answer.lost is not None:
            return f"ended its process (exit code {answer.lost})"
        if place.job is not None:
            place.ask()
        return None

    def _welcome(self, place: Place, hello: Hello) -> None:
        """Take in an actor that has started.

        Raises:
            UserError: its mtl is another one.
            EnvironmentFault: it may not write to the folder that it shares, or does not see one that it must see.
        """
        own, node = versions(), f"--on: node {hello.host}"
        if hello.versions["mtl"] != own["mtl"]:
            what = f"has mtl {hello.versions['mtl']}, and this machine {own['mtl']}"
            raise UserError(node, what, "install the same version on both")
        if hello.is_shared is None:
            what = f"may not write to {self.folder.absolute()}, which it shares with this machine"
            raise EnvironmentFault(node, what, "give the user of Ray there the right to")
        if self.all_share and not hello.is_shared:
            what = f"does not see {self.folder.absolute()}, where the runs are kept"
            raise EnvironmentFault(node, what, "put --out on a path that all machines share")
        for name in ("torch", "python"):
            if hello.versions[name] != own[name]:
                what = f"node {hello.host} has {name} {hello.versions[name]}, and this machine {own[name]}"
                self._say_once(f"{what}; the last digits of its results may be others")
        place.hello, self._since = hello, monotonic()
        del self._losses[""]

    def _again(self, place: Place, lost: str, waiting: deque[Job]) -> None:
        """Put a run that was lost first in the queue, unless its job is over so.

        Raises:
            EnvironmentFault: no process starts, or the same run was lost too often.
        """
        job = place.job
        place.free()
        name = "" if job is None else job.name
        self._losses[name] += 1
        n = self._losses[name]
        if job is None:
            if n > RETRIES:
                todo = "install mtl-recipes there, the same version as here"
                raise EnvironmentFault("--on", f"no process starts on the nodes of Ray: {lost}", todo)
            return
        if job.once:
            self.says(f"{name}: node {place.host} {lost}; what it made counts as lost after a while")
            return
        if n > RETRIES:
            what = f"node {place.host} {lost}, which is the {n}th loss of this run"
            raise EnvironmentFault(name, what, f"see {self.folder / LOG}")
        told = f"{name}: node {place.host} {lost}; what is saved of the run goes on elsewhere"
        self.says(f"{told} (retry {n} of {RETRIES})")
        waiting.appendleft(job)

    def _end(self, place: Place, is_gone: bool = False) -> None:
        self._places.remove(place)
        place.end(is_gone)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.says(line)

    def _say_if_nothing_starts(self, needs: Needs) -> None:
        """Say so if no actor starts for a while: other work has the machines, or none is large enough."""
        if any(place.hello is not None for place in self._places):
            self._since = monotonic()
        elif monotonic() - self._since > WAITED:
            self._say_once(f"no node of Ray has {needs} free; the runs wait for one")


def _is_reference(job: Job) -> bool:
    return job.order.get("do") == "reference"


def _in_words(error: RayError) -> str:
    """The last line of what Ray says; those before are a traceback, or advice on Ray."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
