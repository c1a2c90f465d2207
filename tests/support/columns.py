"""Columns of a table as `mtl init` sees them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl.data.files.table import TableFile
from mtl.starter.look.columns import Look, look

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
