"""One run, killed at seeded random times and restarted by the same command until it ends; nothing may differ.

    python -m tests.faults.many_kills [--kind plain] [--kills 100] [--seed 0] [--epochs 800] [--seconds 2.5]

The recipe is synthetic_stitch with more epochs and a checkpoint every ten steps; KINDS has other kinds of runs. Of
the kills, one in five comes at any time before the run takes its lock (imports), one in five within 2.5 s from there
(reading the data, restoring, the first steps), the others within 2.5 s after its first own save (training, saving,
retention, evaluation). At the end the model, the optimizer, the state, the logs and the table of metrics must have
the bytes of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.whole import checkpoints, final_bytes

ROOT = Path(__file__).parents[2]
START_LIMIT = 300.0
"""Seconds that a process may take to begin training on a busy machine."""


KINDS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "accumulate": ("train.accumulate=3",),
    "evaluations": ("data.split.validation=0.2", "train.evaluate_every.steps=7"),
    "phases": ("phases={alone: {model.sharing: {kind: none}}, stitched: {optimizer.lr: 0.001}}",),
    "memory": ("weighting.kind=gradvac", "~data.source.labelled"),
}
"""Kind of run -> the changes of the recipe; `memory` has a weighting that remembers gradients of earlier steps."""


def place(run: Path) -> Path:
    """The run that is under way: that of the last phase that has begun, if the recipe has phases."""
    return max(run.glob("[0-9]-*"), default=run)


def command(out: Path, kind: str, epochs: int, every: int) -> list[str]:
    changes = [f"train.epochs={epochs}", f"train.checkpoint.every.steps={every}", "train.threads=1"]
    changes += KINDS[kind]
    return [
        *(sys.executable, "-m", "mtl", "run", "synthetic_stitch", *changes),
        *("train.device=cpu", "--resume", "auto", "--out", str(out), "--quiet"),
    ]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def holds(process: subprocess.Popen[str], run: Path) -> bool:
    """Whether the process has taken the lock of the run."""
    lock = place(run) / ".lock"
    return lock.is_file() and lock.read_text().startswith(f"pid {process.pid} ")


def entries(run: Path) -> set[str]:
    """The checkpoints of a run, and what is left of those that were being written or deleted."""
    folder = place(run) / "checkpoints"
    return {f"{place(run).name}/{name}" for name in os.listdir(folder)} if folder.is_dir() else set()


def newest_of(run: Path) -> tuple[int, int]:
    """The number of the phase (0 if there is none) and the step of the newest checkpoint (-1 if there is none)."""
    own = place(run)
    saved = [int(name[-8:]) for name in entries(run) if "/step-" in name]
    return 0 if own == run else int(own.name[0]), max(saved, default=-1)


def wait(process: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    """Wait for it, or say that the process ended."""
    end = time.monotonic() + START_LIMIT
    while not until():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"ended before it was killed: {process.communicate()[1]}")
        time.sleep(0.002)


def killed(
    run: Path, arguments: list[str], draws: random.Random, start_seconds: float, seconds: float
) -> tuple[str, float]:
    """Start the run once and kill it; where the kill fell, and how long the process took to take the lock."""
    before, newest, process, began = entries(run), newest_of(run), start(arguments), time.monotonic()
    where = draws.choices(("start", "restoring", "training"), (1, 1, 3))[0]
    try:
        if where == "start":
            time.sleep(draws.uniform(0, start_seconds))
        else:
            wait(process, lambda: holds(process, run))
            start_seconds = time.monotonic() - began
            if where == "training":
                wait(process, lambda: newest_of(run) > newest)
            time.sleep(draws.uniform(0, seconds))
        if process.poll() is not None:
            raise SystemExit(f"ended before it was killed: {process.communicate()[1]}")
        process.kill()
        process.wait()
    finally:
        process.kill()
        assert process.stderr is not None
        process.stderr.close()
    assert process.returncode == -9
    left = entries(run) - before
    for prefix, found in ((".tmp-", "save"), (".old-", "replacement"), (".del-", "retention")):
        if any(f"/{prefix}" in name for name in left):
            return found, start_seconds
    return where, start_seconds


def attempt(
    folder: Path, kills: int, seed: int, epochs: int, every: int, seconds: float, kind: str = "plain"
) -> dict[str, object]:
    """Kill a run `kills` times, let it end, and compare; the figures of it.

    Args:
        seconds: from the lock, or from the first save, within which a kill comes.

    Raises:
        AssertionError: a checkpoint was lost or damaged, or the end differs.
    """
    run, straight = folder / "killed", folder / "straight"
    draws, places, reached = random.Random(seed), Counter[str](), list[int]()
    newest, start_seconds, began = (0, -1), 4.0, time.monotonic()
    undisturbed = start(command(straight, kind, epochs, every))
    try:
        for _ in range(kills):
            where, start_seconds = killed(
                run, command(run, kind, epochs, every), draws, start_seconds, seconds
            )
            places[where] += 1
            found = checkpoints(place(run) / "checkpoints")
            assert None not in found.values(), f"not whole: {found.keys()}"
            now = newest_of(run)
            assert now >= newest, f"{newest} was there and is lost"
            assert len(found) >= min(3, now[1] // every), f"only {found.keys()}"
            newest = now
            reached.append(now[1])
        last = start(command(run, kind, epochs, every))
        _, complaints = last.communicate()
        assert last.returncode == 0, complaints
        _, complaints = undisturbed.communicate()
        assert undisturbed.returncode == 0, complaints
    finally:
        undisturbed.kill()
        undisturbed.wait()
    one, two = ends(straight), ends(run)
    assert list(one) == list(two)
    assert [name for name in one if one[name] != two[name]] == []
    assert [name for name in entries(run) if "/." in name] == []
    return {
        "kind": kind,
        "kills": kills,
        "where": dict(places.most_common()),
        "killed_at_steps": reached,
        "steps": sum(int(one[name]) for name in one if name.endswith("/step")),
        "files_compared": len(one),
        "bytes_compared": sum(map(len, one.values())),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def ends(run: Path) -> dict[str, bytes]:
    """Name -> the bytes of what two equal runs have in common, for each phase."""
    runs = sorted(run.glob("[0-9]-*")) or [run]
    return {f"{i}/{name}": data for i, own in enumerate(runs) for name, data in final_bytes(own).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="plain")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=800)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = given.kills, given.seed, given.epochs, given.every, given.seconds, given.kind
        figures = attempt(Path(folder), *options)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
