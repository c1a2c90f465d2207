"""The same labels in one file, or in three files by task: do the runs learn the same?

    python bench/one_or_three_files.py [--rows 9000] [--seeds 5] [--epochs 8]

Each row of a table of customers has one of three labels. Once all rows are in one file, in mixed order, two of three
label columns empty; once in three files, each with one label column. Rows are drawn proportionally. Printed: mean
and standard deviation over seeds of each task's headline metric on the test split.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import mtl

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from make_customers import NUMERIC, customers

TASKS = {"segment": "multiclass", "clicked": "binary", "spend": "regression"}
INPUTS = {"numeric": NUMERIC, "categorical": ["city", "plan", "device"]}


def write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_files(folder: Path, n_rows: int) -> None:
    """one.csv, and segment.csv, clicked.csv and spend.csv."""
    header, rows = customers(n_rows, 0.0, 0)
    inputs = [header.index(name) for name in ("customer_id", *INPUTS["numeric"], *INPUTS["categorical"])]
    owner = np.random.default_rng(1).integers(0, len(TASKS), n_rows)
    names = [header[i] for i in inputs]
    one = []
    for t, task in enumerate(TASKS):
        label = header.index(task)
        own = [[*(row[i] for i in inputs), row[label]] for row, k in zip(rows, owner, strict=True) if k == t]
        write(folder / f"{task}.csv", [*names, task], own)
        one += [[*row[:-1], *(row[-1] if other == task else "" for other in TASKS)] for row in own]
    mixed = np.random.default_rng(2).permutation(len(one))
    write(folder / "one.csv", [*names, *TASKS], [one[i] for i in mixed])


def recipe_of(folder: Path, several: bool, seed: int, epochs: int) -> dict[str, Any]:
    def source(name: str) -> dict[str, Any]:
        return {"kind": "table", "path": str(folder / f"{name}.csv"), "id": "customer_id", "inputs": INPUTS}

    where = {"sources": {task: source(task) for task in TASKS}} if several else {"source": source("one")}
    return {
        "schema_version": 1,
        "name": "three_files" if several else "one_file",
        "seed": seed,
        "data": {**where, "split": {"validation": 0.1, "test": 0.2}},
        "tasks": {task: {"kind": kind, "target": task, "missing": "mask"} for task, kind in TASKS.items()},
        "model": {
            "backbone": {
                "kind": "layers",
                "stages": [{"name": f"fc{i}", "kind": "linear", "features": 32} for i in (1, 2)],
            },
            "sharing": {"kind": "cross_stitch", "after": ["fc1", "fc2"], "lr_scale": 10},
            "head": {"dropout": 0.1},
        },
        "optimizer": {"kind": "adamw", "lr": 2e-3},
        "schedule": {"kind": "cosine"},
        "train": {"epochs": epochs, "batch_size": 128, "threads": 1},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=9000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    found: dict[str, tuple[list[float], list[float]]] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, given.rows)
        for seed in range(given.seeds):
            for several in (False, True):
                recipe = mtl.load_recipe(recipe_of(folder, several, seed, given.epochs))
                metrics = mtl.run(recipe, out=folder / f"run-{seed}-{several}").metrics
                for task, spec in recipe.tasks.items():
                    both = found.setdefault(f"{task} ({spec.headline})", ([], []))
                    both[several].append(metrics[f"test/{task}/{spec.headline}"] or float("nan"))
    print(f"{'task':20} {'one file':>16} {'three files':>16}   difference   standard error")
    for task, (one, three) in found.items():
        error = (stdev(one) ** 2 / len(one) + stdev(three) ** 2 / len(three)) ** 0.5
        shown = [f"{mean(v):.4f} ± {stdev(v):.4f}" for v in (one, three)]
        print(f"{task:20} {shown[0]:>16} {shown[1]:>16}   {mean(three) - mean(one):+.4f}      {error:.4f}")


if __name__ == "__main__":
    main()
