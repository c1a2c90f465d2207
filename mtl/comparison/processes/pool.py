"""Several processes make the runs of a comparison, each one after the other."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.errors import EnvironmentFault, UserError

LOG = "workers.log"
ATTEMPTS = 3
"""A run whose process was killed goes on in another process, up to this many times."""
PATIENCE = 120.0
"""Seconds that a stopped process has to save its run."""


@dataclass(frozen=True)
class Job:
    """One run, or one reference.

    Args:
        name: what a line of progress calls it.
        order: what the process is told.
    """

    name: str
    order: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """What a process says of its job: a step of so many, or how it ended."""

    job: Job
    step: int | None
    of: int | None
    ended: str | None
    why: str = ""


class Workers:
    """At most `n` processes, each with a number of threads of its own; `with Workers(...)` ends them all.

    Args:
        n: the number of processes.
        threads: the threads of each.
        plugins: the plug-ins that each loads.
        folder: the folder of the comparison, whose workers.log gets what they print.
    """

    def __init__(self, n: int, threads: int, plugins: Sequence[str], folder: Path) -> None:
        self.n, self.threads, self.plugins, self.folder = n, threads, plugins, folder
        self._processes: dict[subprocess.Popen[bytes], Job | None] = {}
        self._rests: dict[subprocess.Popen[bytes], bytes] = {}
        self._log = open(folder / LOG, "ab")  # noqa: SIM115, closed in __exit__

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stdin of every process, which ends its run after a save, and wait for all."""
        for process in self._processes:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._log.close()

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
        waiting, tries = deque(jobs), dict.fromkeys((job.name for job in jobs), 0)
        with selectors.DefaultSelector() as selector:
            while True:
                self._hand_out(waiting, selector, may_begin)
                if not any(self._processes.values()):
                    return
                for key, _ in selector.select():
                    process: subprocess.Popen[bytes] = key.data
                    job = self._processes[process]
                    assert job is not None
                    for line in self._lines(process):
                        report = _read(job, line)
                        on(report)
                        if report.ended is not None:
                            self._processes[process] = None
                    if process.poll() is not None and self._processes[process] is not None:
                        self._lost(process, job, tries, selector)
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
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # a process that is gone is noticed when its output ends
                process.stdin.write(json.dumps(job.order).encode() + b"\n")
                process.stdin.flush()

    def _start(self, selector: selectors.BaseSelector) -> subprocess.Popen[bytes]:
        threads = str(self.threads)
        process = subprocess.Popen(
            [sys.executable, "-m", "mtl.comparison.processes.child", *self.plugins],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            start_new_session=True,  # an interrupt of the terminal is for the parent, which ends its children
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        selector.register(process.stdout, selectors.EVENT_READ, process)
        self._processes[process], self._rests[process] = None, b""
        return process

    def _lines(self, process: subprocess.Popen[bytes]) -> list[bytes]:
        """The whole lines that a process has written."""
        assert process.stdout is not None
        read = process.stdout.read()
        if read == b"":  # its output has ended, and so does the process
            process.wait()
        *lines, self._rests[process] = (self._rests[process] + (read or b"")).split(b"\n")
        return lines

    def _lost(
        self,
        process: subprocess.Popen[bytes],
        job: Job,
        tries: dict[str, int],
        selector: selectors.BaseSelector,
    ) -> None:
        """Forget a process that ended without a report.

        Raises:
            EnvironmentFault: the same job has ended so too often.
        """
        assert process.stdout is not None and process.stdin is not None
        selector.unregister(process.stdout)
        for pipe in (process.stdout, process.stdin):
            with suppress(OSError):
                pipe.close()
        del self._processes[process], self._rests[process]
        tries[job.name] += 1
        if tries[job.name] == ATTEMPTS:
            what = f"its process ended {ATTEMPTS} times without a result (exit code {process.returncode})"
            raise EnvironmentFault(job.name, what, f"see {self.folder / LOG}")


def _read(job: Job, line: bytes) -> Report:
    """A line of a process.

    Raises:
        UserError: the job was refused, or a part of the user's failed.
    """
    said = json.loads(line)
    ended = said.get("ended")
    if ended == "refused":
        kind = EnvironmentFault if said["code"] == EnvironmentFault.code else UserError
        raise kind(job.name, "; ".join(said["errors"]))
    if ended == "failed":
        raise UserError(job.name, said["why"], "see workers.log")
    return Report(job, said.get("step"), said.get("of"), ended, said.get("why", ""))


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
