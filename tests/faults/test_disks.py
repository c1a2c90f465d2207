"""Disks that are really full, or turn read-only while a run trains (F3, F25): small tmpfs mounts, and processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtl.errors import ENVIRONMENT
from mtl.sources import fashion_mnist
from tests.data.files.test_download import Server
from tests.faults.test_runs import STEPS, Command, _quick, straight
from tests.faults.test_stop_signals import begin, fetches, small_fashion
from tests.support.assertions import Capture, contents
from tests.support.lives import GROUPED, Life

__all__ = ["_quick", "straight"]
pytestmark = GROUPED


def mount(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)


class Disk:
    """A file system of 2 MB."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def room(self) -> int:
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize

    def fill(self, left: int) -> None:
        """Leave so many bytes of room."""
        with (self.path / "filler").open("wb") as file:
            file.write(bytes(self.room() - left))
        assert self.room() == left

    def empty(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    if shutil.which("mount") is None or not sys.platform.startswith("linux"):
        pytest.skip("NOT TESTED: disks that are full or read-only; there is no mount of Linux")
    done = mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", path)
    if done.returncode != 0:
        why = f"{done.stderr.strip()}; as root or below `unshare --mount --map-root-user` they are"
        pytest.skip(f"NOT TESTED: disks that are full or read-only; {why}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", path], check=True)


@pytest.fixture
def command(capsys: Capture, straight: Path, disk: Disk) -> Command:
    return Command(capsys, straight, disk.path / "out")


# --- full ---


def test_a_disk_that_is_full_at_a_save(command: Command, disk: Disk, tmp_path: Path) -> None:
    """Held before step 5, by when one checkpoint is there; then 8 kB are left, which is two files of the next."""
    with begin(command, tmp_path, "backward:5:stop") as life:
        life.await_stop()
        assert command.saved() == [STEPS]
        disk.fill(8192)
        before = contents(command.out / "checkpoints")
        life.send(signal.SIGCONT)
        done = life.end()
    *warnings, error = done.stderr.splitlines()
    what = "cannot write checkpoint at step 6: no space left on device; last good: step-00000003"
    assert (done.returncode, error) == (ENVIRONMENT, f"error: {command.out}/checkpoints: {what}")
    free = r"[\d.]+ (kB|bytes) are free, and a checkpoint takes [\d.]+ kB; make room"
    little = rf"warning: {command.out}/checkpoints: {free}"
    assert re.fullmatch(little, "\n".join(warnings))
    assert contents(command.out / "checkpoints") == before
    disk.empty()
    command.goes_on()


@pytest.mark.parametrize("left", [0, 4096, 12288])
def test_a_disk_that_is_full_at_the_start(left: int, command: Command, disk: Disk, tmp_path: Path) -> None:
    """One line, before anything is trained; and once there is room, the same command runs."""
    disk.fill(left)
    with begin(command, tmp_path, "forward:1:raise") as life:  # code 1 if it came to that
        done = life.end()
    assert (done.returncode, done.stdout) == (ENVIRONMENT, "")
    place = rf"error: {command.out}(/recipe\.yaml|/recipe\.resolved\.yaml|/run\.json)?: "
    assert re.fullmatch(place + r"cannot (write|make the run folder): no space left on device\n", done.stderr)
    disk.empty()
    command.goes_on()


def test_a_cache_on_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    """The part for which there is room is not left behind either."""
    disk.fill(200 * 1024)
    environment = {"MTL_CACHE": str(disk.path / "cache"), "MTL_OFFLINE": ""}
    remote = fashion_mnist.FILES[0].remote
    with Server() as server:
        server.on(remote.name, (200, bytes(10**6), {"Content-Length": str(remote.size)}))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        arguments = (server.url, small_fashion(tmp_path), "out")
        with Life(fetches, *arguments, folder=tmp_path, environment=environment) as life:
            done = life.end()
        server.shutdown()
        thread.join()
    assert server.asked == ["/" + remote.name]
    part = re.escape(f"{disk.path}/cache/fashion_mnist/{remote.name}.part")
    line = rf"error: \S+f\.yaml:\d+:\d+: data\.source: {part}: cannot write: No space left on device; "
    assert done.returncode == ENVIRONMENT
    assert re.fullmatch(line + "set MTL_CACHE to another folder", done.stderr.splitlines()[-1])
    assert contents(disk.path / "cache") == {"fashion_mnist": None, "fashion_mnist/.lock": b""}
    assert disk.room() == 200 * 1024


# --- read-only ---


def test_a_disk_that_turns_read_only(command: Command, disk: Disk, tmp_path: Path) -> None:
    """F25: in the second epoch. The lock is open for writing, so the kernel wants another mount, on top of the folder.

    Two logs say so, the save ends the run, and once the disk can be written to it goes on to the same bytes.
    """
    with begin(command, tmp_path, "backward:5:stop") as life:
        life.await_stop()
        for arguments in (("--bind", command.out, command.out), ("-o", "remount,bind,ro", command.out)):
            done = mount(*arguments)
            assert done.returncode == 0, done.stderr
        before = contents(command.out)
        life.send(signal.SIGCONT)
        ended = life.end()
        assert contents(command.out) == before
    subprocess.run(["umount", command.out], check=True)
    read_only = "read-only file system"
    what = f"cannot write checkpoint at step 6: {read_only}; last good: step-00000003"
    assert (ended.returncode, ended.stdout) == (ENVIRONMENT, "")
    assert ended.stderr.splitlines() == [
        *(
            f"warning: {command.out}/{name}.jsonl: cannot write: {read_only}; training goes on without it"
            for name in ("metrics", "sharing")
        ),
        f"error: {command.out}/checkpoints: {what}",
    ]
    command.goes_on()


def test_a_disk_that_is_read_only_at_the_start(command: Command, disk: Disk, tmp_path: Path) -> None:
    assert mount("-o", "remount,ro", disk.path).returncode == 0
    with begin(command, tmp_path, "forward:1:raise") as life:
        done = life.end()
    said = f"error: {command.out}: cannot make the run folder: read-only file system\n"
    assert (done.returncode, done.stdout, done.stderr) == (ENVIRONMENT, "", said)
    assert mount("-o", "remount,rw", disk.path).returncode == 0
    command.goes_on()
