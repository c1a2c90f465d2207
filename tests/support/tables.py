"""Tables of a few rows, and a recipe over them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import recipes

Rows = Sequence[Mapping[str, object]]


def write_rows(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def recipe_in(
    folder: Path,
    tasks: Mapping[str, object],
    *,
    data: Mapping[str, object] | None = None,
    train: Mapping[str, object] | None = None,
    norm: str = "none",
) -> Path:
    """`r.yaml`, by default over `t.csv` with inputs `u` and `v`, the splits in its column `part`."""
    one = {"source": recipes.table("t.csv", "u", "v"), "split": {"column": "part"}}
    return recipes.write(
        folder,
        data=data or one,
        tasks=tasks,
        model__backbone={"kind": "layers", "norm": {"kind": norm}, "stages": recipes.linear(6)},
        optimizer={"kind": "adam", "lr": 0.01},
        train={"epochs": 2, "batch_size": 8, "device": "cpu", **(train or {})},
    )
