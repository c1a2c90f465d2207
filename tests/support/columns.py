"""Tables for `mtl init`, columns as it sees them, and a step of the recipe that it writes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl.data.files.table import TableFile
from mtl.experiment.run import prepare
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.starter.look.columns import Look, look
from tests.support.listening import epochs_of

N = 300


def write_csv(
    path: Path, columns: Mapping[str, Sequence[Any]], delimiter: str = ",", encoding: str = "utf-8"
) -> Path:
    """A CSV of these columns."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def seen(folder: Path, values: Sequence[Any], name: str = "v") -> Look:
    """The column as `look` finds it in a CSV, beside a column of whole numbers."""
    path = write_csv(folder / "t.csv", {name: values, "other": range(len(values))})
    return look(TableFile(path))[name]


def cycle(*values: Any, n: int = N) -> list[Any]:
    """The values again and again, n in all."""
    return [values[i % len(values)] for i in range(n)]


def floats(n: int = N) -> list[float]:
    """Numbers without an order."""
    return np.random.default_rng(0).standard_normal(n).round(4).tolist()


def one_step(recipe: Recipe) -> None:
    """Train one step and see that the loss is a number."""
    plain = recipe.plain()
    plain["train"] = {"max_steps": 1, "batch_size": 64, "threads": 1, "device": "cpu"}
    trainer, _ = prepare(load_recipe(plain))
    (epoch,) = epochs_of(trainer)
    assert trainer.progress.step == 1
    losses = [v for row in epoch.rows for k, v in row.items() if k.endswith("/loss") and v is not None]
    assert losses
    assert np.isfinite(losses).all()
