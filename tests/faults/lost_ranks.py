"""One run of two processes, of which one is killed at seeded random times; the rest has to end, and to go on.

    python -m tests.faults.lost_ranks [--kills 20] [--seed 0] [--epochs 200] [--norm layer]

Each time torchrun starts the run again by the same command, and SIGKILL ends one of the two ranks at some time from
the lock on. All must have ended within 30 s, and one line must name the rank that is gone. At the end the model, the
optimizer, the state and the logs must have the bytes of a run of two processes that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.whole import final_bytes

ROOT = Path(__file__).parents[2]
LIMIT = 30.0
"""Seconds within which a lost rank ends all."""
START_LIMIT = 300.0


def command(out: Path, *changes: str, processes: int = 2) -> list[str]:
    """The command of a run by several processes, which goes on where it is."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "mtl", "run"),
        *("synthetic_stitch", *changes, "--out", str(out), "--resume", "auto", "--quiet", "--no-report"),
    ]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks_of(process: subprocess.Popen[str]) -> dict[int, int]:
    """Rank -> its process id, of the children that torchrun has started."""
    found = {}
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for child in children.read_text().split() if children.exists() else []:
        try:
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            if variable.startswith(b"RANK="):
                found[int(variable[5:])] = int(child)
    return found


def killed(arguments: list[str], run: Path, rank: int, seconds: float) -> tuple[list[str], float]:
    """Start a run, kill one rank, and wait for the end: the lines of mtl, and how long the end took."""
    process, began = start(arguments), time.monotonic()
    try:
        while not (run / ".lock").exists() or len(ranks_of(process)) < 2 or not _holds(run, process):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() - began < START_LIMIT
            time.sleep(0.01)
        time.sleep(seconds)
        assert process.poll() is None, "ended before it was killed"
        os.kill(ranks_of(process)[rank], signal.SIGKILL)
        at = time.monotonic()
        _, told = process.communicate(timeout=3 * LIMIT)
    finally:
        process.kill()
        process.wait()
    lines = [line for line in told.splitlines() if re.match(r"error: |interrupted", line)]
    return lines, time.monotonic() - at


def _holds(run: Path, process: subprocess.Popen[str]) -> bool:
    """Whether rank 0 of this start has the lock of the run."""
    held = (run / ".lock").read_text()
    return held.startswith(f"pid {ranks_of(process).get(0)} ")


def attempt(folder: Path, kills: int, seed: int, *changes: str, seconds: float = 6.0) -> dict[str, object]:
    """Kill ranks of a run `kills` times, let it end, and compare; the figures of it.

    Raises:
        AssertionError: an end was late or unclear, or the results differ.
    """
    draws, run, straight = random.Random(seed), folder / "killed", folder / "straight"
    slowest, of_rank = 0.0, [0, 0]
    for _ in range(kills):
        rank = draws.randrange(2)
        lines, took = killed(command(run, *changes), run, rank, draws.uniform(0, seconds))
        assert took < LIMIT, f"rank {rank} was killed, and all ended after {took:.0f} s"
        assert len(lines) == 1, lines
        assert f"rank {rank} of 2" in lines[0], lines
        slowest, of_rank[rank] = max(slowest, took), of_rank[rank] + 1
    for out in (straight, run):
        done = start(command(out, *changes))
        _, told = done.communicate(timeout=1800)
        assert done.returncode == 0, told
    assert final_bytes(run) == final_bytes(straight)
    return {"kills": kills, "of rank 0": of_rank[0], "of rank 1": of_rank[1], "slowest end": round(slowest, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--norm", default="layer")
    given = parser.parse_args()
    changes = (
        f"train.epochs={given.epochs}",
        "train.checkpoint.every.steps=20",
        f"model.backbone.norm.kind={given.norm}",
        "data.split.validation=0.2",
    )
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(attempt(Path(folder), given.kills, given.seed, *changes)))


if __name__ == "__main__":
    main()
