"""How long a training step takes, beside plain PyTorch and beside its own convolutions and matrix products.

    python -m bench.speed [--cases fashion_stitch,mlp_8] [--rounds 30] [--json bench/results/NAME.json]

In each round a step of mtl, one of the plain loop (bench/speed/reference.py), and one of the bare convolutions and
matrix products (bench/speed/floor.py) are timed in one process, in changing order. The table has medians over
rounds and, in parentheses, the fewest milliseconds; the ratios are those of the medians. `--profile CASE` prints where
the time of the steps of mtl goes instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

import mtl
from bench.speed import floor, reference
from mtl.experiment.run import prepare
from mtl.recipe.load import load_recipe
from mtl.training import devices
from mtl.training.step import train_step
from mtl.training.trainer import Trainer

WARMUP = 5
SITES = ["fc1", "fc2", "fc3"]


def mlp(n_tasks: int) -> mtl.Recipe:
    """Three stitched stages 128-32-32-32 for N tasks of yes or no."""
    stages = [{"name": name, "kind": "linear", "features": 32} for name in SITES]
    return load_recipe(
        {
            "schema_version": 1,
            "name": f"mlp_{n_tasks}",
            "data": {"source": {"kind": "synthetic", "tasks": n_tasks, "rows": 20_000, "test_rows": 100,
                                "features": 128, "latent": 1}},
            "tasks": {f"t{t}": {"kind": "binary", "target": f"task{t}"} for t in range(n_tasks)},
            "model": {
                "towers": "per_task",
                "backbone": {"kind": "layers", "stages": stages},
                "sharing": {"kind": "cross_stitch", "after": SITES},
            },
            "optimizer": {"kind": "adam", "lr": 1e-3},
            "train": {"epochs": 1, "batch_size": 128},
        }
    )  # fmt: skip


CASES: dict[str, Callable[[], mtl.Recipe]] = {
    "fashion_stitch": lambda: load_recipe("fashion_stitch"),
    "fashion_stitch_channel": lambda: load_recipe("fashion_stitch", ["model.sharing.granularity=channel"]),
    "fashion_none": lambda: load_recipe("fashion_stitch", ["model.sharing={kind: none}"]),
    "age_gender_stitch": lambda: load_recipe("age_gender_stitch"),
    **{f"mlp_{n}": (lambda n=n: mlp(n)) for n in (2, 8, 32, 128)},  # type: ignore[misc]
}


def steps_of(trainer: Trainer) -> Iterator[None]:
    """Train as a run does, without end, and without evaluation and checkpoints; each `next` takes one step."""
    epoch = 0
    trainer.built.model.train()
    while True:
        meter = trainer.new_meter()
        for rows in trainer.sampler.batches(epoch):
            if len(rows) == trainer.recipe.train.batch_size:
                train_step(trainer, [rows], meter)
                yield
        meter.values("train")
        epoch += 1


def timed(loops: dict[str, Iterator[None]], rounds: int) -> dict[str, list[float]]:
    """Name -> milliseconds of its step in each round; the order of the loops changes from round to round."""
    found: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    for i in range(WARMUP + rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            began = perf_counter()
            next(loops[name])
            if i >= WARMUP:
                found[name].append(1000 * (perf_counter() - began))
    return found


def case(name: str, rounds: int) -> dict[str, Any]:
    """The milliseconds of one case."""
    recipe = CASES[name]()
    with devices.settings(recipe.train.deterministic):
        trainer, _ = prepare(recipe)
        loops = {
            "mtl": steps_of(trainer),
            "plain": reference.steps_of(trainer),
            "floor": floor.steps_of(trainer),
        }
        times = timed(loops, rounds)
        threads = torch.get_num_threads()
    medians, least = ({k: how(v) for k, v in times.items()} for how in (median, min))
    return {"threads": threads, "median": medians, "least": least}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def profiled(name: str, steps: int) -> None:
    """Print the operations that take the most time of a step."""
    recipe = CASES[name]()
    with devices.settings(recipe.train.deterministic):
        loop = steps_of(prepare(recipe)[0])
        for _ in range(WARMUP):
            next(loop)
        with torch.profiler.profile(record_shapes=True) as profile:
            for _ in range(steps):
                next(loop)
    print(
        profile.key_averages(group_by_input_shape=True).table(
            sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40
        )
    )


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", metavar="CASE")
    given = parser.parse_args()
    if given.profile:
        profiled(given.profile, given.rounds)
        return
    found: dict[str, Any] = {}
    print("| case | threads | mtl ms | plain PyTorch ms | products alone ms | plain / mtl | mtl / products |")
    print("|---|---|---|---|---|---|---|")
    for name in given.cases.split(","):
        own = found[name] = case(name, given.rounds)
        cells = [f"{own['median'][k]:.2f} ({own['least'][k]:.2f})" for k in ("mtl", "plain", "floor")]
        ratios = own["median"]["plain"] / own["median"]["mtl"], own["median"]["mtl"] / own["median"]["floor"]
        print(
            f"| {name} | {own['threads']} | {' | '.join(cells)} | {ratios[0]:.2f} | {ratios[1]:.2f} |",
            flush=True,
        )
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"machine": machine(), "steps": found}, indent=1) + "\n")
