"""SIGKILL within a save of a run that trains: before each call to the disk, and in the middle of each write.

Each run is a process of its own that begins from a checkpoint and dies in its next save; the same command then goes on
to the bytes of the run that nothing disturbed. tests/faults/test_saves.py does the same to a save alone, at the level
of system calls.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import OK, TERMINATED
from mtl.experiment import recorder
from tests.faults.test_runs import STEPS, Command, _quick, straight
from tests.faults.whole import content
from tests.support.assertions import Capture
from tests.support.lives import GROUPED, Life
from tests.support.lives import command as in_a_life

__all__ = ["_quick", "straight"]
pytestmark = GROUPED
CALLS = ("mkdir", "open", "write", "fsync", "rename", "replace", "unlink", "rmdir")
BEGINNINGS = {
    "a new step, and retention": (2, [1, 2], ["train.checkpoint.every={steps: 1}"]),
    "the state of a stop is replaced": (2 * STEPS, [STEPS, 2 * STEPS], []),
}
"""What the next save is, at the end of an epoch -> where the run was stopped before, what was saved then, changes."""


def dies(n: int, *arguments: str) -> int:
    """The command, killed at the n-th call of its first save; with 0 it lives on, and says which there were."""
    main, saves = threading.main_thread(), 0
    calls: list[str] = []
    real_save = recorder.Recorder.save

    def save(self: recorder.Recorder) -> None:
        nonlocal saves
        saves += 1
        real_save(self)
        saves += 1
        if n == 0 and saves == 2:
            print(*calls)

    def watched(name: str) -> Any:
        real = getattr(os, name)

        def call(*given: Any, **named: Any) -> Any:
            if saves == 1 and threading.current_thread() is main:
                calls.append(name)
                if len(calls) == n:
                    if name == "write":
                        real(given[0], given[1][: len(given[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        return call

    recorder.Recorder.save = save  # type: ignore[method-assign]
    for name in CALLS:
        setattr(os, name, watched(name))
    return in_a_life(*arguments)


class Killed:
    """A run that was stopped, to be copied, gone on with, and killed in its save."""

    def __init__(self, beginning: str, capsys: Capture, straight: Path, folder: Path) -> None:
        self.capsys, self.straight, self.folder = capsys, straight, folder
        step, saved, self.changes = BEGINNINGS[beginning]
        self.stopped = Command(capsys, straight, folder / "stopped")
        with Life(in_a_life, *self.arguments(self.stopped), folder=folder, fail=f"step:{step}:term") as life:
            assert life.end().returncode == TERMINATED
        assert self.stopped.saved() == saved
        self.before = step
        self.calls = self.life(0)[1].splitlines()[0].split()

    def arguments(self, command: Command) -> list[str]:
        options = ["--quiet", "--resume", "auto", "--out", str(command.out)]
        return ["run", f"{self.straight}/r.yaml", *self.changes, *options]

    def life(self, n: int) -> tuple[Command, str]:
        """The run that dies at its n-th call, and what it said on stdout."""
        command = Command(self.capsys, self.straight, self.folder / f"{n}")
        shutil.copytree(self.stopped.out, command.out)
        with Life(dies, n, *self.arguments(command), folder=self.folder) as life:
            done = life.end()
        assert done.returncode == (-signal.SIGKILL if n else OK), done.stderr
        return command, done.stdout

    def at(self, n: int) -> None:
        """It dies at its n-th call: nothing may be lost, and it must go on to the same bytes."""
        command, _ = self.life(n)
        folder, saved = command.out / "checkpoints", command.saved()
        if saved[-1] < self.before:  # between two renames: the next start puts it back
            (aside,) = folder.glob(f".old-{self.before:08d}-*")
            assert content(aside) is not None
            saved.append(self.before)
        assert len(saved) >= 2
        command.goes_on()
        shutil.rmtree(command.out)


def report(killed: Killed, numbers: Sequence[int]) -> None:
    where = Counter(killed.calls[n - 1] for n in numbers)
    print(f"killed at {len(numbers)} of {len(killed.calls)} calls: {dict(where)}")
    assert set(where) == set(killed.calls) <= set(CALLS)
    assert {"mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir"} <= set(where)


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_killed_in_a_save(beginning: str, capsys: Capture, straight: Path, tmp_path: Path) -> None:
    """At the first and the last call of each kind, and at every rename."""
    killed = Killed(beginning, capsys, straight, tmp_path)
    last = len(killed.calls) - 1
    ends = {killed.calls.index(name) for name in killed.calls}
    ends |= {last - killed.calls[::-1].index(name) for name in ("fsync", "write")}
    renames = {n for n, name in enumerate(killed.calls) if name == "rename"}
    numbers = [n + 1 for n in sorted(ends | renames)]
    for n in numbers:
        killed.at(n)
    report(killed, numbers)


@pytest.mark.slow
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_killed_at_every_call_of_a_save(
    beginning: str, capsys: Capture, straight: Path, tmp_path: Path
) -> None:
    killed = Killed(beginning, capsys, straight, tmp_path)
    numbers = range(1, len(killed.calls) + 1)
    for n in numbers:
        killed.at(n)
    report(killed, numbers)
