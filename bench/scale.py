"""How time and memory grow with rows, with tasks, and with processes.

    python -m bench.scale [--sections rows,store,tasks,ranks,exchange] [--largest 10000000] [--steps 1000] [--json FILE]

rows: 8 Parquet files of 20 numeric inputs and 20 label columns, 10^4 to 10^7 rows in all, held in memory and in the
store of `data.in_memory: false`, which is written first and warm then. store: steps of both, in turn in one process.
tasks: 100,000 rows with 2 to 617 label columns. ranks: the same steps by one and by two processes, with one thread
each. exchange: how long two processes take to sum a tensor. The other measurements are processes of their own; peak
memory is the kernel's VmHWM, and resident memory is what stays after the steps, files that are mapped included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
INPUTS, TARGETS, BLOCK, BATCH = 20, 20, 250_000, 256
N_ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
N_TASKS = (2, 8, 32, 128, 617)
N_FILES = 8
IN_TURN = 50
"""Steps that two ways train in turn."""
EXCHANGED = (0.001, 1, 10, 100)
"""MB that two processes sum."""
RANKED: dict[str, tuple[str, ...]] = {
    "two towers of vectors": ("synthetic_stitch", "~data.source.labelled", "train.batch_size=256"),
    "two towers of images": ("fashion_stitch", "train.batch_size=256"),
}
"""Network -> the recipe and the changes that one and two processes train."""


def write_table(folder: Path, n_rows: int, n_targets: int) -> None:
    """Parquet files in which label t is a noisy function of input t mod 20: classes, yes or no, and numbers in turn."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    rng = np.random.default_rng(0)
    bounds = [n_rows * i // N_FILES for i in range(N_FILES + 1)]
    for i, (start, end) in enumerate(itertools.pairwise(bounds)):
        writer = None
        for at in range(start, end, BLOCK):
            n = min(BLOCK, end - at)
            x = rng.standard_normal((n, INPUTS), dtype=np.float32)
            columns = {f"x{c:02d}": x[:, c] for c in range(INPUTS)}
            for t in range(n_targets):
                z = x[:, t % INPUTS] + 0.5 * rng.standard_normal(n, dtype=np.float32)
                columns[f"y{t:03d}"] = (
                    np.digitize(z, [-0.5, 0.5]).astype(np.int8),
                    (z > 0).astype(np.int8),
                    z,
                )[t % 3]
            block = pa.table(columns)
            writer = writer or pq.ParquetWriter(folder / f"part-{i}.parquet", block.schema)
            writer.write_table(block)
        if writer is not None:
            writer.close()


def recipe_of(path: Path, n_targets: int, *, in_memory: bool) -> dict[str, Any]:
    """One tower for all tasks, so that the network does not hide what the rows take."""
    kinds = ("multiclass", "binary", "regression")
    return {
        "schema_version": 1,
        "name": "scale",
        "data": {
            "source": {"kind": "table", "path": str(path), "inputs": {"numeric": ["x*"]}},
            "split": {"validation": 0.01, "test": 0.01},
            "in_memory": in_memory,
        },
        "tasks": {f"y{t:03d}": {"kind": kinds[t % 3], "target": f"y{t:03d}"} for t in range(n_targets)},
        "model": {
            "towers": "one",
            "backbone": {
                "kind": "layers",
                "norm": {"kind": "none"},
                "stages": [{"name": f"fc{i}", "kind": "linear", "features": 64} for i in (1, 2)],
            },
            "sharing": {"kind": "none"},
        },
        "optimizer": {"kind": "adamw", "lr": 2e-3},
        "train": {"epochs": 1, "batch_size": BATCH, "device": "cpu"},
    }


def measure(path: Path, n_targets: int, in_memory: bool, steps: int) -> None:
    """Train some steps of a new process; print what it took as JSON."""
    began = perf_counter()
    from mtl.training.process import load_torch, start_process

    start_process()
    load_torch()
    from mtl.experiment.run import prepare
    from mtl.recipe.load import load_recipe
    from mtl.training.events import Stepped
    from mtl.training.loop import fit

    trainer, _ = prepare(load_recipe(recipe_of(path, n_targets, in_memory=in_memory)))
    seconds: list[float] = []
    last = perf_counter()
    for event in fit(trainer):
        now = perf_counter()
        seconds, last = [*seconds, now - last], now
        if not isinstance(event, Stepped) or len(seconds) > steps:
            break
    first = last - began - sum(seconds[1:])
    print(
        json.dumps(
            {"first": first, "step": median(seconds[1:]), "peak": _kib("VmHWM"), "resident": _kib("VmRSS")}
        )
    )


def measure_in_turn(path: Path, n_targets: int, steps: int) -> None:
    """Train with the rows in memory and in the store, some steps of each in turn; print how they compare."""
    from mtl.experiment.run import prepare
    from mtl.recipe.load import load_recipe
    from mtl.training.loop import fit

    running = {
        kept: fit(prepare(load_recipe(recipe_of(path, n_targets, in_memory=kept == "memory")))[0])
        for kept in ("memory", "store")
    }
    seconds: dict[str, list[float]] = {kept: [] for kept in running}
    for _ in range(steps // IN_TURN):
        for kept, events in running.items():
            last = perf_counter()
            for _ in itertools.islice(events, IN_TURN):
                now = perf_counter()
                seconds[kept].append(now - last)
                last = now
    memory, store = seconds["memory"][1:], seconds["store"][1:]
    print(
        json.dumps(
            {
                "memory": median(memory),
                "store": median(store),
                "store / memory": median(store) / median(memory),
                "of means": mean(store) / mean(memory),
            }
        )
    )


def _kib(name: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def measure_ranks(arguments: list[str], steps: int) -> None:
    """The steps of one of several processes; rank 0 prints what they took."""
    from mtl.distributed.join import joined
    from mtl.experiment.follow import spread
    from mtl.experiment.run import prepare
    from mtl.recipe.load import load_recipe
    from mtl.training.loop import fit

    with joined() as ranks:
        recipe, *changes = arguments
        trainer, _ = prepare(load_recipe(recipe, [*changes, "train.device=cpu"]), threads=1, ranks=ranks)
        spread(trainer, ranks)
        seconds: list[float] = []
        last = perf_counter()
        for _ in fit(trainer):
            now = perf_counter()
            seconds, last = [*seconds, now - last], now
            if len(seconds) > steps:
                break
        if ranks.rank == 0:
            n_bytes = sum(parameter.nbytes for parameter in trainer.built.model.parameters())
            print(
                json.dumps(
                    {"step": median(seconds[1:]), "least": min(seconds[1:]), "megabytes": n_bytes / 2**20}
                )
            )


def measure_exchange(repeats: int) -> None:
    """The time in which two processes sum a tensor; rank 0 prints it for each size."""
    import torch

    from mtl.distributed.join import joined

    with joined() as ranks:
        found = {}
        for megabytes in EXCHANGED:
            tensor, seconds = torch.ones(int(megabytes * 2**18)), []
            for _ in range(repeats):
                began = perf_counter()
                ranks.sum(tensor)
                seconds.append(perf_counter() - began)
            found[str(megabytes)] = median(seconds)
        if ranks.rank == 0:
            print(json.dumps(found))


def child(*arguments: str, processes: int = 1) -> dict[str, float]:
    """What a process of its own prints last."""
    command = [sys.executable, "-m", "bench.scale", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if processes > 1:
        environment["OMP_NUM_THREADS"] = "1"
        command[1:2] = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def of_rows(folder: Path, largest: int, steps: int) -> Iterator[Mapping[str, object]]:
    for n_rows in (n for n in N_ROWS if n <= largest):
        path = folder / f"rows-{n_rows}"
        if not path.exists():
            write_table(path, n_rows, TARGETS)
        for kept in ("memory", "store, written", "store, warm"):
            found = child("--measure", str(path), str(TARGETS), str(kept == "memory"), "--steps", str(steps))
            yield {"rows": n_rows, "rows in": kept, **found}


def of_store(folder: Path, largest: int, steps: int) -> Iterator[Mapping[str, object]]:
    for n_rows in (n for n in N_ROWS if n <= largest):
        path = folder / f"rows-{n_rows}"
        if not path.exists():
            write_table(path, n_rows, TARGETS)
        yield {"rows": n_rows, **child("--in-turn", str(path), str(TARGETS), "--steps", str(steps))}


def of_tasks(folder: Path, steps: int) -> Iterator[Mapping[str, object]]:
    for n_tasks in N_TASKS:
        path = folder / f"tasks-{n_tasks}"
        write_table(path, 100_000, n_tasks)
        found = child("--measure", str(path), str(n_tasks), "True", "--steps", str(steps))
        yield {"tasks": n_tasks, **found, "step per task": found["step"] / n_tasks}


def of_ranks(steps: int) -> Iterator[Mapping[str, object]]:
    for name, arguments in RANKED.items():
        alone, together = (child("--ranks", *arguments, "--steps", str(steps), processes=n) for n in (1, 2))
        yield {
            "network": name,
            "MB of weights": together["megabytes"],
            "one process": alone["step"],
            "two processes": together["step"],
            "times as fast": alone["step"] / together["step"],
        }


def of_exchange(repeats: int) -> Iterator[Mapping[str, object]]:
    for megabytes, seconds in child("--exchange", "--steps", str(repeats), processes=2).items():
        yield {"MB that two processes sum": megabytes, "ms": 1000 * seconds}


def shown(rows: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Print rows as a table, each as soon as it is there; return them."""
    found = []
    for row in rows:
        if not found:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
        print("| " + " | ".join(map(_cell, row.values())) + " |", flush=True)
        found.append(row)
    return found


def _cell(value: object) -> str:
    """Four digits of a number with a fraction; a whole number or a text as it is."""
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sections", default="rows,store,tasks,ranks,exchange")
    parser.add_argument("--largest", type=int, default=N_ROWS[-1])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--exchange", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--in-turn", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--ranks", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        path, n_targets, in_memory = given.measure
        measure(Path(path), int(n_targets), in_memory == "True", given.steps)
        return
    if given.in_turn:
        path, n_targets = given.in_turn
        measure_in_turn(Path(path), int(n_targets), given.steps)
        return
    if given.exchange:
        measure_exchange(given.steps)
        return
    if given.ranks:
        measure_ranks(given.ranks, given.steps)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MTL_CACHE"] = str(folder / "cache")
        sections = {
            "rows": lambda: of_rows(folder, given.largest, given.steps),
            "store": lambda: of_store(folder, given.largest, given.steps),
            "tasks": lambda: of_tasks(folder, given.steps),
            "ranks": lambda: of_ranks(given.steps // 20),
            "exchange": lambda: of_exchange(given.steps // 20),
        }
        found: dict[str, object] = {}
        for section in given.sections.split(","):
            print(f"\n### {section}\n")
            found[section] = shown(sections[section]())
    if given.json:
        from bench.speed.measure import machine

        given.json.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
