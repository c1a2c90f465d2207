"""Several processes make the runs of a comparison, or other jobs, each one after the other."""

from __future__ import annotations

import os
import selectors
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from mtl.comparison.processes.process import COMPARED, Process
from mtl.errors import EnvironmentFault, UserError

LOG = "workers.log"
ATTEMPTS = 3
"""A run whose process was killed goes on in another process, up to this many times."""


@dataclass(frozen=True)
class Job:
    """One run, or one reference.

    Args:
        name: what a line of progress calls it.
        order: what the process is told.
        once: whether it is over if its process is killed, since whoever asked for it sees to what is lost.
    """

    name: str
    order: Mapping[str, Any]
    once: bool = False


@dataclass(frozen=True)
class Report:
    """What a process says of its job: a step of so many, or how it ended; `said` is all of it."""

    job: Job
    step: int | None
    of: int | None
    ended: str | None
    why: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)


class Pool(Protocol):
    """Makes jobs, on this machine or on others; `with` a pool, its processes end when it does."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def do(self, jobs: Sequence[Job], on: Callable[[Report], None], may_begin: Callable[[], bool]) -> None:
        """Do all jobs, in their order, and call `on` with each report.

        Args:
            jobs: what is to be done.
            on: is called with each report.
            may_begin: asked before each job; once it says no, no further job begins.

        Raises:
            UserError: a run was refused.
            EnvironmentFault: a process ended without a report, again and again.
        """


class Workers:
    """At most `n` processes, each with a number of threads of its own; `with Workers(...)` ends them all.

    Args:
        n: the number of processes.
        threads: the threads of each.
        plugins: the plug-ins that each loads.
        folder: the folder of the comparison, whose workers.log gets what they print.
        module: what each process runs.
    """

    def __init__(
        self, n: int, threads: int, plugins: Sequence[str], folder: Path, module: str = COMPARED
    ) -> None:
        self.n, self.threads, self.plugins, self.folder, self.module = n, threads, plugins, folder, module
        self._processes: dict[Process, Job | None] = {}
        self._log = open(folder / LOG, "ab")  # noqa: SIM115, closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stdin of every process, which ends its run after a save, and wait for all."""
        for process in self._processes:
            process.stop()
        for process in self._processes:
            process.close()
        self._log.close()

    def do(self, jobs: Sequence[Job], on: Callable[[Report], None], may_begin: Callable[[], bool]) -> None:
        """As `Pool.do`."""
        waiting, tries = deque(jobs), dict.fromkeys((job.name for job in jobs), 0)
        with selectors.DefaultSelector() as selector:
            while True:
                self._hand_out(waiting, selector, may_begin)
                if not any(self._processes.values()):
                    return
                for key, _ in selector.select():
                    process: Process = key.data
                    job = self._processes[process]
                    if job is None:  # an idle process says nothing, so that its output has ended
                        process.reports()
                        self._forget(process, selector)
                        continue
                    for said in process.reports():
                        report = report_of(job, said)
                        on(report)
                        if report.ended is not None:
                            self._processes[process] = None
                    if process.code is not None and self._processes[process] is not None:
                        self._forget(process, selector)
                        if not job.once:
                            self._again(process, job, tries)
                            waiting.appendleft(job)

    def _hand_out(
        self, waiting: deque[Job], selector: selectors.BaseSelector, may_begin: Callable[[], bool]
    ) -> None:
        """Give each idle process a job; start another process while there are fewer than `n` and jobs to do."""
        while waiting and may_begin():
            idle = next((process for process, job in self._processes.items() if job is None), None)
            if idle is None and len(self._processes) == self.n:
                return
            process = idle or self._start(selector)
            job = waiting.popleft()
            self._processes[process] = job
            process.give(job.order)

    def _start(self, selector: selectors.BaseSelector) -> Process:
        process = Process(self.threads, self.plugins, self._log, self.module)
        selector.register(process.output, selectors.EVENT_READ, process)
        self._processes[process] = None
        return process

    def _forget(self, process: Process, selector: selectors.BaseSelector) -> None:
        """Forget a process that has ended."""
        selector.unregister(process.output)
        process.close()
        del self._processes[process]

    def _again(self, process: Process, job: Job, tries: dict[str, int]) -> None:
        """Count that a process ended without a report of its job.

        Raises:
            EnvironmentFault: the same job has ended so too often.
        """
        tries[job.name] += 1
        if tries[job.name] == ATTEMPTS:
            what = f"its process ended {ATTEMPTS} times without a result (exit code {process.code})"
            raise EnvironmentFault(job.name, what, f"see {self.folder / LOG}")


def report_of(job: Job, said: Mapping[str, Any], where: str = "") -> Report:
    """What a process has said of its job.

    Args:
        job: the job.
        said: the report, as the process wrote it.
        where: is put behind the name of the job, where the process is on another machine.

    Raises:
        UserError: the job was refused, or a part of the user's failed.
    """
    ended = said.get("ended")
    if ended == "refused":
        kind = EnvironmentFault if said["code"] == EnvironmentFault.code else UserError
        raise kind(job.name + where, "; ".join(said["errors"]))
    if ended == "failed":
        raise UserError(job.name + where, said["why"], "see workers.log")
    return Report(job, said.get("step"), said.get("of"), ended, said.get("why", ""), said)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
