"""Start and memory on a large Parquet file: time to the first step, rows per second, peak memory.

    python bench/big_table.py [--rows 2000000] [--columns 50] [--steps 200]

The file has 42 float columns, 2 of text and 6 label columns of four kinds (for --columns 50). Peak memory is that of
a process of its own, from the kernel (VmHWM), less that of one which only imports torch, and less that of one which
also has the other libraries of a run (an optimizer of torch.optim, torchmetrics, pyarrow); it is set beside the size
of all columns as float32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

LABELS = {"tier": "multiclass", "churned": "binary", "clicked": "binary", "grade": "ordinal", "spend": "regression",
          "visits": "regression"}  # fmt: skip
TEXT = ("city", "plan")
BLOCK = 100_000


def peak_mb() -> float:
    """The largest resident size of this process so far."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def write_table(path: Path, rows: int, columns: int) -> None:
    """A Parquet file in which every label is a noisy function of the first numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    width = columns - len(LABELS) - len(TEXT)
    writer = None
    for start in range(0, rows, BLOCK):
        n = min(BLOCK, rows - start)
        x = rng.standard_normal((n, width), dtype=np.float32)
        z = x[:, :4] + 0.5 * rng.standard_normal((n, 4), dtype=np.float32)
        block = pa.table({
            **{f"x{i:02d}": x[:, i] for i in range(width)},
            "city": pa.array([f"city {c}" for c in rng.integers(0, 200, n)]),
            "plan": pa.array([("basic", "family", "premium")[c] for c in rng.integers(0, 3, n)]),
            "tier": np.digitize(z[:, 0], [-0.5, 0.5]),
            "churned": (z[:, 1] > 1).astype(np.int8),
            "clicked": (z[:, 2] > 0).astype(np.int8),
            "grade": np.digitize(z[:, 3], [-1, 0, 1]),
            "spend": np.exp(z[:, 0]).astype(np.float32),
            "visits": np.round(10 + 3 * z[:, 1]).astype(np.int16),
        })  # fmt: skip
        writer = writer or pq.ParquetWriter(str(path), block.schema)
        writer.write_table(block)
    assert writer is not None
    writer.close()


def recipe_of(path: Path) -> dict[str, object]:
    return {
        "schema_version": 1,
        "name": "big_table",
        "data": {
            "source": {"kind": "table", "path": str(path),
                       "inputs": {"numeric": ["x*"], "categorical": list(TEXT), "embedding": 8}},
            "split": {"validation": 0.05, "test": 0.05},
        },
        "tasks": {name: {"kind": kind, "target": name} for name, kind in LABELS.items()},
        "model": {
            "towers": "per_task",
            "backbone": {"kind": "layers", "stages": [{"name": "fc1", "kind": "linear", "features": 64},
                                                      {"name": "fc2", "kind": "linear", "features": 64}]},
            "sharing": {"kind": "cross_stitch", "after": ["fc1", "fc2"]},
        },
        "optimizer": {"kind": "adamw", "lr": 2e-3},
        "train": {"epochs": 1, "batch_size": 1024},
    }  # fmt: skip


def measure(path: Path, steps: int) -> None:
    """Train some steps; print what it took as JSON."""
    began = perf_counter()
    from mtl.evaluation.meter import Meter
    from mtl.experiment.run import prepare
    from mtl.recipe.load import load_recipe
    from mtl.training.step import train_step

    trainer, _ = prepare(load_recipe(recipe_of(path)))
    prepared = perf_counter()
    meter = Meter(trainer.modules, trainer.recipe.tasks, trainer.device)
    trainer.built.model.train()
    parts = trainer.sampler.batches(0)
    train_step(trainer, [next(parts)], meter)
    first = perf_counter()
    for _ in range(steps):
        train_step(trainer, [next(parts)], meter)
        trainer.progress.step += 1
    seconds = perf_counter() - first
    print(
        json.dumps(
            {
                "prepared": prepared - began,
                "first": first - began,
                "steps": seconds / steps,
                "peak": peak_mb(),
            }
        )
    )


def child(*arguments: str) -> str:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--imports", choices=("torch", "all"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.steps)
        return
    if given.imports:
        import torch

        if given.imports == "all":
            import torchmetrics  # noqa: F401

            torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        print(peak_mb())
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "big.parquet")
        write_table(path, given.rows, given.columns)
        torch_only, libraries = (float(child("--imports", what)) for what in ("torch", "all"))
        found = json.loads(child("--measure", str(path), "--steps", str(given.steps)))
        size = path.stat().st_size / 2**20
    plain = given.rows * given.columns * 4 / 2**20
    print(
        f"{given.rows:,} rows x {given.columns} columns, {size:.0f} MB of Parquet, {plain:.0f} MB as float32"
    )
    print(f"read and built   {found['prepared']:.1f} s, {given.rows / found['prepared']:,.0f} rows/s")
    print(f"first step after {found['first']:.1f} s")
    print(
        f"training         {1024 / found['steps']:,.0f} rows/s ({1000 * found['steps']:.1f} ms a step of 1024)"
    )
    print(f"peak memory      {found['peak']:.0f} MB")
    for what, base in (("torch", torch_only), ("all libraries", libraries)):
        ratio = (found["peak"] - base) / plain
        print(f"  over {what} ({base:.0f} MB): {ratio:.2f} times the columns as float32")


if __name__ == "__main__":
    main()
