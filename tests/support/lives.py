"""Processes that have imported everything and run nothing, so that each life of a run can have one of its own.

A server imports mtl and torch once and is forked for each life, which takes milliseconds where a new interpreter
takes seconds. A life knows nothing of the process of the tests nor of other lives: what a run left in a module of its
own process cannot help the next life of it.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import multiprocessing.util
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

import mtl.experiment.resume
import mtl.experiment.run
import mtl.report.plots
from mtl.__main__ import main
from mtl.errors import OK, Terminated
from mtl.stages import listening
from mtl.training.events import Stepped
from tests.support.failpoints import Faults
from tests.support.listening import Watching

ROOT = Path(__file__).parents[2]
MEMBERS = [
    f"mtl.{family}.{path.stem}"
    for family in ("sources", "backbones", "sharing", "weightings", "tasks")
    for path in sorted((ROOT / "mtl" / family).glob("[a-z]*.py"))
]
PRELOADED = [
    *(
        "mtl.cli",
        "mtl.commands.doctor",
        "mtl.experiment.run",
        "mtl.experiment.resume",
        "mtl.inference.predict",
        *MEMBERS,
    ),
    *(
        "torch._dynamo",
        "torch._inductor",
        "torch.profiler",
        "scipy.optimize",
        "pyarrow.csv",
        "pyarrow.parquet",
    ),
    *("requests", "pooch", "pytest"),
]
"""What a run imports sooner or later; torch's first optimizer imports its compiler, for 2 s."""
LIMIT = 120.0
"""Seconds that a life may take on a busy machine."""
GROUPED = pytest.mark.xdist_group("lives")
"""For tests that start lives: all of them in one worker, or each would have a server of its own."""

multiprocessing.util.get_temp_dir()  # of the server's socket: made now, not in the folder of a test, which is deleted
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(PRELOADED)


@cache
def start_server() -> None:
    """Once, from the folder of the checkout, and not watched by coverage, which lives would not report to."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
            patch.delenv(name, raising=False)
        patch.chdir(ROOT)
        forkserver.ensure_running()


class Life:
    """A process of its own, in a session of its own.

    Args:
        act: what it does; what it returns is the exit code, None for 0. A function of a module, to be found by name.
        arguments: what `act` is called with.
        folder: an existing folder for what it says.
        cwd: its working directory; by default `folder`.
        environment: added to ours, where OMP_NUM_THREADS is set to 1.
        fail: planned faults, as in `tests.support.failpoints`.
        terminal: the path of a terminal, to be its stdin, stdout and stderr and to send it signals.
        rights: whether root may do there what only root may; without, it is the owner of its files and no more.
    """

    def __init__(
        self,
        act: Callable[..., int | None],
        *arguments: Any,
        folder: Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        fail: str = "",
        terminal: str = "",
        rights: bool = True,
    ) -> None:
        start_server()
        number = len(list(folder.glob("*.stdout")))
        self.said = [folder / f"{number}.{name}" for name in ("stdout", "stderr")]
        for path in self.said:
            path.touch()
        given = {**os.environ, **(environment or {}), "OMP_NUM_THREADS": "1"}
        streams = [terminal] * 3 if terminal else [os.devnull, *map(str, self.said)]
        self._process = _processes.Process(
            target=_live, args=(act, arguments, str(cwd or folder), given, streams, rights, fail)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def send(self, number: int) -> None:
        """A signal to the whole process group."""
        os.killpg(self.pid, number)

    def await_stop(self) -> None:
        """Until the process has stopped itself by SIGSTOP (`stage:n:stop`); after SIGCONT: until it does so again."""
        self.await_that(lambda: self.state() == "T")

    def await_that(self, happens: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        while not happens():
            assert self._process.is_alive(), self.said[1].read_text()
            assert time.monotonic() < end
            time.sleep(0.002)

    def state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end; its exit code (negative: the signal that killed it), stdout and stderr."""
        self._process.join(LIMIT)
        code = self._process.exitcode
        assert code is not None, "it does not end"
        out, err = (path.read_text() for path in self.said)
        return subprocess.CompletedProcess([], code, out, err)


def _live(
    act: Callable[..., int | None],
    arguments: tuple[Any, ...],
    cwd: str,
    environment: Mapping[str, str],
    streams: list[str],
    rights: bool,
    fail: str,
) -> None:
    os.setsid()
    for number, path in enumerate(streams):
        descriptor = os.open(path, os.O_RDWR if number == 0 or path == streams[0] else os.O_WRONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(n, "r" if n == 0 else "w", closefd=False) for n in range(3)
    )
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stopping in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stopping, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("error")
    if not rights and os.geteuid() == 0:
        _give_up_rights()
    code: int | None = 70
    try:
        with listening(Faults(fail)):
            code = act(*arguments)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _give_up_rights() -> None:
    """Root passes every check of a file's mode by its capabilities (capabilities(7)): none of them is kept."""
    version_3, this_process = 0x20080522, 0
    header, none = (ctypes.c_uint32 * 2)(version_3, this_process), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def command(*arguments: str | Path) -> int:
    """`mtl ...` without the figures of the end, which take longer than the run and on which nothing depends."""
    mtl.report.plots.plot_run = lambda *given: []  # type: ignore[assignment]
    sys.argv = ["mtl", *map(str, arguments)]
    return main()


class KillAt(Watching):
    """Sends SIGTERM to its own process where so many optimizer steps are done, be it before the first one."""

    def __init__(self, step: int | None) -> None:
        super().__init__()
        self.step = step

    def started(self) -> None:
        self.started_at = self.trainer.progress.step
        self._kill()

    def stepped(self, event: Stepped) -> None:
        self._kill()

    def _kill(self) -> None:
        if self.trainer.progress.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def begin_or_go_on(made: Mapping[str, Any], out: Path, stop: int | None) -> int:
    """Begin a run or go on with it, in Python, until a step or to the end; prints what happened as JSON."""
    mtl.report.plots.plot_run = lambda *given: []  # type: ignore[assignment]
    listener, code = KillAt(stop), OK
    try:
        if (out / "run.json").exists():
            mtl.experiment.resume.resume(out, listeners=(listener,))
        else:
            mtl.experiment.run.run(made, out=out, listeners=(listener,))
    except Terminated as stopped:
        code = stopped.code
    trainer = listener.trainer
    facts = {"pid": os.getpid(), "started_at": listener.started_at, "said": listener.warnings}
    print(json.dumps({**facts, "per_epoch": trainer.steps_per_epoch, "step": trainer.progress.step}))
    return code
