"""Starts one run as several processes, as torchrun does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_LIMIT = 300.0
"""Seconds that processes may take to begin training on a busy machine."""


def torchrun(*arguments: str, processes: int = 2, folder: Path = ROOT) -> subprocess.Popen[str]:
    """`torchrun ... -m mtl ARGUMENTS`, with what it prints in one pipe each."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "mtl", *arguments),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = START_LIMIT) -> tuple[int, str, str]:
    """Exit code, stdout and stderr at the end; no process of the start is left after it."""
    try:
        out, told = process.communicate(timeout=seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, out, told


def told_by_mtl(stderr: str) -> list[str]:
    """The lines of mtl among those of torchrun."""
    return [line for line in stderr.splitlines() if re.match(r"(error|warning): |interrupted", line)]


def ranks_of(process: subprocess.Popen[str]) -> dict[int, int]:
    """Rank -> its process id, of the children that torchrun has started."""
    found = {}
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for child in children.read_text().split() if children.exists() else []:
        rank = _environment(int(child)).get("RANK")
        if rank is not None:
            found[int(rank)] = int(child)
    return found


def _environment(pid: int) -> Mapping[str, str]:
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def wait_for_lock(process: subprocess.Popen[str], run: Path) -> None:
    """Wait until rank 0 of this start holds the run, so that training is about to begin."""
    until = time.monotonic() + START_LIMIT
    while not _holds(run, ranks_of(process).get(0)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)


def _holds(run: Path, pid: int | None) -> bool:
    lock = run / ".lock"
    return pid is not None and lock.exists() and lock.read_text().startswith(f"pid {pid} ")
