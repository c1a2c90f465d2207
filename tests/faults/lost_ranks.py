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
import signal
import tempfile
import time
from pathlib import Path

from tests.faults.whole import final_bytes
from tests.support.ranks import ended, ranks_of, told_by_mtl, torchrun, wait_for_lock

LIMIT = 30.0
"""Seconds within which a lost rank ends all."""


def arguments(out: Path, *changes: str) -> tuple[str, ...]:
    """The command of a run that goes on where it is."""
    return (
        "run",
        "synthetic_stitch",
        *changes,
        "--out",
        str(out),
        "--resume",
        "auto",
        "--quiet",
        "--no-report",
    )


def killed(run: Path, rank: int, seconds: float, *changes: str) -> tuple[list[str], float]:
    """Start a run, kill one rank, and wait for the end: the lines of mtl, and how long the end took."""
    process = torchrun(*arguments(run, *changes))
    try:
        wait_for_lock(process, run)
        time.sleep(seconds)
        assert process.poll() is None, "ended before it was killed"
        os.kill(ranks_of(process)[rank], signal.SIGKILL)
        at = time.monotonic()
    except BaseException:
        ended(process, 0)
        raise
    _, _, told = ended(process, 3 * LIMIT)
    return told_by_mtl(told), time.monotonic() - at


def attempt(folder: Path, kills: int, seed: int, *changes: str, seconds: float = 6.0) -> dict[str, object]:
    """Kill ranks of a run `kills` times, let it end, and compare; the figures of it.

    Raises:
        AssertionError: an end was late or unclear, or the results differ.
    """
    draws, run, straight = random.Random(seed), folder / "killed", folder / "straight"
    slowest, of_rank = 0.0, [0, 0]
    for _ in range(kills):
        rank = draws.randrange(2)
        lines, took = killed(run, rank, draws.uniform(0, seconds), *changes)
        assert took < LIMIT, f"rank {rank} was killed, and all ended after {took:.0f} s"
        assert len(lines) == 1, lines
        assert f"rank {rank} of 2" in lines[0], lines
        slowest, of_rank[rank] = max(slowest, took), of_rank[rank] + 1
    for out in (straight, run):
        code, _, told = ended(torchrun(*arguments(out, *changes)), 1800)
        assert code == 0, told
    assert final_bytes(run) == final_bytes(straight)
    return {
        "kills": kills,
        "of rank 0": of_rank[0],
        "of rank 1": of_rank[1],
        "slowest end": round(slowest, 1),
    }


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
