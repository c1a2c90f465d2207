"""Rows a second of `mtl predict` on one core, and its memory, from a CSV with numbers and many categories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.speed.measure import MEGABYTE, cell, child, spread
from bench.speed.measure import table as markdown

ROUNDS = 2
TITLE = "Predict"
ROWS = (100_000, 300_000)
NUMERIC, CATEGORICAL, CATEGORIES = 12, 28, 20
TRAINING_ROWS, TRAINING_STEPS, BLOCK = 5_000, 50, 50_000
TASKS = {"churned": "binary", "tier": "multiclass", "spend": "regression"}


def write_csv(path: Path, rows: int, labelled: bool) -> None:
    """A table of numbers and categories, with a label column for each task or without."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    rng, writer = np.random.default_rng(0), None
    for start in range(0, rows, BLOCK):
        n = min(BLOCK, rows - start)
        x = rng.standard_normal((n, NUMERIC)).round(4)
        codes = rng.integers(0, CATEGORIES, (n, CATEGORICAL))
        words = np.array([f"value {i}" for i in range(CATEGORIES)])
        columns: dict[str, Any] = {f"x{i:02d}": x[:, i] for i in range(NUMERIC)}
        columns |= {f"c{i:02d}": pa.array(words[codes[:, i]]) for i in range(CATEGORICAL)}
        if labelled:
            columns |= {
                "churned": pa.array(np.where(x[:, 0] > 0, "yes", "no")),
                "tier": np.digitize(x[:, 1], [-0.5, 0.5]),
                "spend": x[:, 2],
            }
        block = pa.table(columns)
        writer = writer or pa_csv.CSVWriter(str(path), block.schema)
        writer.write_table(block)
    assert writer is not None
    writer.close()


def recipe_of(path: Path) -> dict[str, Any]:
    """Three tasks of three kinds on stitched towers."""
    return {
        "schema_version": 1,
        "name": "predict",
        "data": {
            "source": {
                "kind": "table",
                "path": str(path),
                "inputs": {
                    "numeric": [f"x{i:02d}" for i in range(NUMERIC)],
                    "categorical": [f"c{i:02d}" for i in range(CATEGORICAL)],
                },
            },
            "split": {"test": 0.2},
        },
        "tasks": {name: {"kind": kind, "target": name} for name, kind in TASKS.items()},
        "model": {
            "towers": "per_task",
            "backbone": {"kind": "layers", "stages": [{"name": "fc1", "kind": "linear", "features": 64},
                                                      {"name": "fc2", "kind": "linear", "features": 64}]},
            "sharing": {"kind": "cross_stitch", "after": ["fc1", "fc2"]},
        },
        "optimizer": {"kind": "adam", "lr": 1e-3},
        "train": {"max_steps": TRAINING_STEPS, "batch_size": 128},
    }  # fmt: skip


def section(rounds: int, rows: Sequence[int] = ROWS) -> dict[str, Any]:
    """Rows of the CSV -> its bytes, seconds of the whole command on one core, and the most memory of it."""
    with TemporaryDirectory(prefix="mtl_bench_") as folder:
        trained, recipe, run = (Path(folder, name) for name in ("trained.csv", "recipe.yaml", "run"))
        write_csv(trained, TRAINING_ROWS, labelled=True)
        recipe.write_text(json.dumps(recipe_of(trained)), encoding="utf-8")
        child(["-m", "mtl", "run", recipe, "--quiet", "--no-report", "--out", run])
        tables = {n: Path(folder, f"{n}.csv") for n in rows}
        seconds: dict[int, list[float]] = {n: [] for n in rows}
        peaks: dict[int, list[float]] = {n: [] for n in rows}
        for n, table_of_n in tables.items():
            write_csv(table_of_n, n, labelled=False)
        for i in range(rounds):
            for n, table_of_n in tables.items():
                output = Path(folder, f"predicted{i}_{n}.csv")
                command: list[str | Path] = [
                    "mtl_on_one_core",
                    "predict",
                    run,
                    "--input",
                    table_of_n,
                    "--output",
                    output,
                ]
                ended = child(["-m", "bench.speed.children", *command])
                seconds[n].append(ended.seconds)
                peaks[n].append(ended.found["peak"])
                output.unlink()
        return {
            str(n): {
                "bytes": tables[n].stat().st_size,
                "seconds": spread(seconds[n]),
                "peak": spread(peaks[n]),
            }
            for n in rows
        }


def table(found: Mapping[str, Any]) -> str:
    """The table of this section; the last column leaves out what does not grow with the rows, such as the start."""
    head = ["rows", "CSV MB", "seconds", "rows a second", "memory MB", "rows a second over the row above"]
    rows, before = [], None
    for n, own in found.items():
        seconds, more = own["seconds"]["median"], "-"
        if before is not None:
            more = f"{(int(n) - before[0]) / (seconds - before[1]):,.0f}"
        memory = {how: value / MEGABYTE for how, value in own["peak"].items()}
        rate = f"{int(n) / seconds:,.0f}"
        size = f"{own['bytes'] / MEGABYTE:.1f}"
        rows.append([f"{int(n):,}", size, cell(own["seconds"]), rate, cell(memory, 0), more])
        before = int(n), seconds
    return markdown(head, rows)
