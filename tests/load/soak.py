"""A long run of a toy task, and what grows with it: `python -m tests.load.soak --steps 100000`.

One process, one thread. Every 1/20 of the run it notes the resident memory, the open files, the objects that Python
keeps track of, and the processor's time of the steps since: the median step, and the mean of all that was done, ends of
epochs, logs and checkpoints included. Beside the run, 20 times within each note, goes a yardstick: a few steps of the
same training, begun anew for each note and without logs and checkpoints. What slows both down is the machine; what
slows the run down alone is its age. Caches and allocators have filled up by a quarter of the run, and growth counts
from there.

Prints one line per note, and at the end the growth of memory and of objects over 10,000 steps, the bytes of logs per
epoch in the first and in the last tenth, and how the last quarter compares with the second: the median step and all of
it, each over the yardstick, and the yardstick alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean, median
from time import process_time

import numpy as np
import torch

from mtl.experiment.run import prepare, run
from mtl.recipe.load import load_recipe
from mtl.training.events import Event, Stepped
from mtl.training.loop import fit
from tests.support.recipes import linear, small, stitched

NOTES = 20
STEPS_PER_EPOCH = 100
BATCH = 16
LOOKS, YARDS = 20, 10
"""Within a note: how often the yardstick is laid on, and its steps each time."""


def recipe(steps: int, save_every_step: bool) -> dict[str, object]:
    """Two tasks with a stitched tower each, 100 steps an epoch."""
    every: dict[str, object] = {"steps": 1} if save_every_step else {"epochs": 10}
    return small(
        data__source__rows=STEPS_PER_EPOCH * BATCH,
        data__source__test_rows=50,
        data__source__features=8,
        model__backbone__stages=linear(8),
        model__sharing=stitched("fc1"),
        optimizer={"kind": "adam", "lr": 1e-3},
        train={
            "max_steps": steps,
            "batch_size": BATCH,
            "device": "cpu",
            "threads": 1,
            "checkpoint": {"every": every, "keep": 3},
        },
    )


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Yardstick:
    """The same training from its beginning, without a folder; the run's generators stay as they are."""

    def __init__(self, steps: int) -> None:
        with torch.random.fork_rng():
            self.trainer, _ = prepare(load_recipe(recipe(steps, save_every_step=False)))

    def seconds(self) -> list[float]:
        """The processor's seconds of each of the next few steps."""
        with torch.random.fork_rng():
            steps = (event for event in fit(self.trainer) if isinstance(event, Stepped))
            times = [process_time() for _ in islice(steps, YARDS + 1)]
        return [later - sooner for sooner, later in pairwise(times)]


@dataclass
class Note:
    """What is noted: steps done, bytes in memory, open files, Python's objects; and since the last note, in seconds of
    the processor, the median step, the mean of all that was done for a step, and the median step of a young run.
    """

    step: int
    memory: int
    handles: int
    objects: int
    seconds: float
    all_seconds: float
    yardstick: float


@dataclass
class Observer:
    """Looks at the process while it trains, and at its checkpoints after each step."""

    out: Path
    steps: int
    notes: list[Note] = field(default_factory=list)
    most_checkpoints: int = 0
    done: int = 0
    last: float = 0.0
    durations: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    yardstick: Yardstick | None = None
    yards: list[float] = field(default_factory=list)

    def on(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self._stepped(event.step)

    def _stepped(self, step: int) -> None:
        now, each = process_time(), max(1, self.steps // NOTES)
        if self.last:  # the first step of an epoch comes after the evaluation and the logs of the one before
            (self.between if step == 1 else self.durations).append(now - self.last)
        self.done += 1
        checkpoints = self.out / "checkpoints"
        if checkpoints.is_dir():
            self.most_checkpoints = max(self.most_checkpoints, len(os.listdir(checkpoints)))
        if self.done % max(1, each // LOOKS) == 0:
            self.yardstick = self.yardstick or Yardstick(10 * self.steps)
            self.yards += self.yardstick.seconds()
        if self.done % each == 0:
            self.yardstick = None
            gc.collect()
            handles, objects = len(os.listdir("/proc/self/fd")), len(gc.get_objects())
            times = median(self.durations), mean(self.durations + self.between), median(self.yards)
            self.notes.append(Note(self.done, resident(), handles, objects, *times))
            for seen in (self.durations, self.between, self.yards):
                seen.clear()
        self.last = process_time()


@dataclass
class Found:
    """The figures of one soak; `most_checkpoints` counts whatever is in the folder."""

    steps: int
    megabytes_per_10000_steps: float
    objects_per_10000_steps: float
    handles: tuple[int, int]
    most_checkpoints: int
    log_bytes_per_epoch: tuple[float, float]
    step_time_ratio: float
    all_time_ratio: float
    yardstick_ratio: float
    step_milliseconds: float


def soak(out: Path, steps: int, save_every_step: bool = False) -> tuple[Found, Sequence[Note]]:
    """Train a toy task for so many steps and look at what grows."""
    observer = Observer(out, steps)
    run(recipe(steps, save_every_step), out=out, listeners=(observer,))
    notes = observer.notes
    late = notes[len(notes) // 4 :]  # what fills up once has filled up
    at = [note.step for note in late]
    memory, objects = (
        float(np.polyfit(at, values, 1)[0])
        for values in ([n.memory for n in late], [n.objects for n in late])
    )
    lines = (out / "metrics.jsonl").read_bytes().splitlines()[:-1]  # the last is of the test split
    tenth = max(1, len(lines) // 10)
    found = Found(
        steps=observer.done,
        megabytes_per_10000_steps=round(memory * 10_000 / 2**20, 3),
        objects_per_10000_steps=round(objects * 10_000, 1),
        handles=(notes[0].handles, notes[-1].handles),
        most_checkpoints=observer.most_checkpoints,
        log_bytes_per_epoch=(
            round(sum(map(len, lines[:tenth])) / tenth, 1),
            round(sum(map(len, lines[-tenth:])) / tenth, 1),
        ),
        step_time_ratio=drift([n.seconds / n.yardstick for n in notes]),
        all_time_ratio=drift([n.all_seconds / n.yardstick for n in notes]),
        yardstick_ratio=drift([n.yardstick for n in notes]),
        step_milliseconds=round(1000 * median(n.seconds for n in notes), 3),
    )
    return found, notes


def drift(values: Sequence[float]) -> float:
    """The median of the last quarter over that of the second."""
    quarter = len(values) // 4
    return round(median(values[-quarter:]) / median(values[quarter : 2 * quarter]), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description="A long run of a toy task, and what grows with it.")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--save-every-step", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, notes = soak(Path(folder) / "run", given.steps, given.save_every_step)
    for note in notes:
        seconds = {"step": note.seconds, "all": note.all_seconds, "yardstick": note.yardstick}
        times = "  ".join(f"{name} {1000 * value:.3f} ms" for name, value in seconds.items())
        held = f"{note.memory / 2**20:7.1f} MB  {note.handles} files  {note.objects} objects"
        print(f"step {note.step:7}  {held}  {times}")
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
