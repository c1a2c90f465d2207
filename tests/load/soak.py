"""A long run of a toy task, and what grows with it: `python -m tests.load.soak --steps 100000`.

One process, one thread. Every 1/20 of the run it notes the resident memory, the open files and the time of the steps
since, which is the processor's: what else the machine does does not count. Caches and allocators have filled up by a
quarter of the run, and growth counts from there. Prints one line per note, and at the end the growth of memory over
10,000 steps, the bytes of logs per epoch in the first and in the last tenth, and the median step of the last
quarter over that of the second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np

from mtl.experiment import Silent, run

NOTES = 20
STEPS_PER_EPOCH = 100
BATCH = 16


def recipe(steps: int, save_every_step: bool) -> dict[str, object]:
    """Two tasks with a stitched tower each, 100 steps an epoch."""
    every: dict[str, object] = {"steps": 1} if save_every_step else {"epochs": 10}
    rows = STEPS_PER_EPOCH * BATCH
    return {
        "schema_version": 1,
        "name": "soak",
        "data": {"source": {"kind": "synthetic", "tasks": 2, "rows": rows, "test_rows": 50, "features": 8}},
        "tasks": {name: {"kind": "multiclass", "target": target} for name, target in (("a", "task0"), ("b", "task1"))},
        "model": {
            "backbone": {"kind": "layers", "stages": [{"name": "fc", "kind": "linear", "features": 8}]},
            "sharing": {"kind": "cross_stitch", "after": ["fc"]},
        },
        "optimizer": {"kind": "adam", "lr": 1e-3},
        "train": {
            "max_steps": steps,
            "batch_size": BATCH,
            "device": "cpu",
            "threads": 1,
            "checkpoint": {"every": every, "keep": 3},
        },
    }  # fmt: skip


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@dataclass
class Note:
    """What is noted: steps done, bytes in memory, open files, seconds of the median step since the last note."""

    step: int
    memory: int
    handles: int
    seconds: float


@dataclass
class Observer(Silent):
    """Looks at the process while it trains, and at its checkpoints after each step."""

    out: Path
    steps: int
    notes: list[Note] = field(default_factory=list)
    most_checkpoints: int = 0
    done: int = 0
    last: float = 0.0
    durations: list[float] = field(default_factory=list)

    def stepped(self, epoch: int, step: int, n_steps: int) -> None:
        now = process_time()
        if self.last:
            self.durations.append(now - self.last)
        self.done += 1
        checkpoints = self.out / "checkpoints"
        if checkpoints.is_dir():
            self.most_checkpoints = max(self.most_checkpoints, len(os.listdir(checkpoints)))
        if self.done % max(1, self.steps // NOTES) == 0:
            handles = len(os.listdir("/proc/self/fd"))
            self.notes.append(Note(self.done, resident(), handles, median(self.durations)))
            self.durations.clear()
        self.last = process_time()


@dataclass
class Found:
    """The figures of one soak; `most_checkpoints` counts whatever is in the folder."""

    steps: int
    megabytes_per_10000_steps: float
    handles: tuple[int, int]
    most_checkpoints: int
    log_bytes_per_epoch: tuple[float, float]
    step_time_ratio: float
    step_milliseconds: float


def soak(out: Path, steps: int, save_every_step: bool = False) -> tuple[Found, Sequence[Note]]:
    """Train a toy task for so many steps and look at what grows."""
    observer = Observer(out, steps)
    run(recipe(steps, save_every_step), out=out, console=observer)
    notes = observer.notes
    late = notes[len(notes) // 4 :]  # what fills up once has filled up
    slope = np.polyfit([n.step for n in late], [n.memory for n in late], 1)[0]
    lines = (out / "metrics.jsonl").read_bytes().splitlines()[:-1]  # the last is of the test split
    tenth = max(1, len(lines) // 10)
    quarter = len(notes) // 4
    second, fourth = (
        median(n.seconds for n in part) for part in (notes[quarter : 2 * quarter], notes[-quarter:])
    )
    found = Found(
        steps=observer.done,
        megabytes_per_10000_steps=round(slope * 10_000 / 2**20, 3),
        handles=(notes[0].handles, notes[-1].handles),
        most_checkpoints=observer.most_checkpoints,
        log_bytes_per_epoch=(
            round(sum(map(len, lines[:tenth])) / tenth, 1),
            round(sum(map(len, lines[-tenth:])) / tenth, 1),
        ),
        step_time_ratio=round(fourth / second, 3),
        step_milliseconds=round(1000 * median(n.seconds for n in notes), 3),
    )
    return found, notes


def main() -> None:
    parser = argparse.ArgumentParser(description="A long run of a toy task, and what grows with it.")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--save-every-step", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, notes = soak(Path(folder) / "run", given.steps, given.save_every_step)
    for note in notes:
        print(
            f"step {note.step:7}  {note.memory / 2**20:7.1f} MB  {note.handles} files  {1000 * note.seconds:.3f} ms"
        )
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
