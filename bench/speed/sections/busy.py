"""A step and a run beside busy processes, each of which trains the same network in plain PyTorch on one thread.

If n such threads share the cores evenly with those of mtl, mtl takes (threads + n) / cores times as long, or as long as
on a quiet machine if there are enough cores for all.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.speed.cases import CASES, steps_of
from bench.speed.measure import cell, child, environment_of, machine, spread, timed
from bench.speed.measure import table as markdown
from mtl.experiment.run import prepare
from mtl.training import devices

ROUNDS = 10
TITLE = "Beside busy processes"
LEVELS = (0, 1, 2, 4)
CASE, RUN = "fashion_stitch", "synthetic_stitch"
RUNS_PER_STEP, RUN_THREADS = 0.1, 1
BUSY = ["-m", "bench.speed.children", "busy"]
"""What follows `python` in a busy process, before the name of the case."""


@contextmanager
def busy_processes(n: int, case: str) -> Iterator[list[int]]:
    """`n` processes that train a case; each has begun when the context is entered, and has ended when it is left."""
    started: list[subprocess.Popen[str]] = []
    command = [sys.executable, *BUSY, case]
    try:
        for _ in range(n):
            started.append(
                subprocess.Popen(
                    command, env=environment_of(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
                )
            )
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != "busy\n":
                raise RuntimeError(f"{' '.join(command)} did not begin to train")
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.communicate()


def section(
    rounds: int, case: str = CASE, recipe: str = RUN, levels: Sequence[int] = LEVELS
) -> dict[str, Any]:
    """Number of busy processes -> milliseconds of a step, and seconds of a run from its start to its end."""
    steps: dict[int, list[float]] = {n: [] for n in levels}
    runs: dict[int, list[float]] = {n: [] for n in levels}
    own = CASES[case]()
    with devices.settings(own.train.deterministic):
        loop = {"mtl": steps_of(prepare(own)[0])}
        for n in (*levels, levels[0]):  # quiet at the beginning and at the end
            with busy_processes(n, case):
                steps[n] += timed(loop, rounds, warmup=2)["mtl"]
                runs[n] += [run_seconds(recipe) for _ in range(max(1, round(RUNS_PER_STEP * rounds)))]
        threads = {"step": torch.get_num_threads(), "run": RUN_THREADS}
    cores = machine()["cores"]
    return {
        str(n): {
            "step": spread(steps[n]),
            "run": spread(runs[n]),
            "even": {what: max(1.0, (own_threads + n) / cores) for what, own_threads in threads.items()},
        }
        for n in levels
    }


def run_seconds(recipe: str) -> float:
    """Seconds of a process that runs a recipe."""
    with TemporaryDirectory(prefix="mtl_bench_") as folder:
        return child(["-m", "mtl", "run", recipe, "--quiet", "--out", Path(folder, "run")]).seconds


def table(found: Mapping[str, Any]) -> str:
    """The table of this section."""
    shares = ("to quiet", "even share")
    head = ["busy processes", f"step of {CASE} ms", *shares, f"run of {RUN} s", *shares]
    quiet, rows = found["0"], []
    for n, own in found.items():
        ratios = [f"{own[what]['median'] / quiet[what]['median']:.2f}" for what in ("step", "run")]
        step, run = cell(own["step"], 1), cell(own["run"])
        even = [f"{own['even'][what]:.1f}" for what in ("step", "run")]
        rows.append([n, step, ratios[0], even[0], run, ratios[1], even[1]])
    return markdown(head, rows)
