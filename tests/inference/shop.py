"""A small table with every kind of label, as CSV and as Parquet, and runs on it that tests share."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.recipes import changed, linear, small, stitched

INPUTS = ["x", "y", "city"]
LABELS = ["sort", "yes", "amount", "grade", "tags"]
COLUMNS = {
    "sort": ["sort", "sort_p_blue", "sort_p_green", "sort_p_red"],
    "yes": ["yes", "yes_p"],
    "amount": ["amount"],
    "grade": ["grade", "grade_p_low", "grade_p_mid", "grade_p_high"],
    "tags": ["tags", "tags_p_new", "tags_p_old"],
}
"""Task -> the columns that it predicts, in order."""


def shop_rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with ids, two numbers (some missing), a city (some missing) and five labels."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        x, y = (round(float(v), 3) for v in rng.standard_normal(2))
        rows.append(
            {
                "id": f"r{i:04d}",
                "x": x,
                "y": None if i % 7 == 3 else y,
                "city": None if i % 11 == 5 else ["Bern", "Oslo", "Rome"][i % 3],
                "sort": ["blue", "green", "red"][int(x > -0.5) + int(x > 0.5)],
                "yes": "yes" if x + y > 0.2 else "no",
                "amount": round(100 + 10 * x + 3 * y, 2),
                "grade": ["low", "mid", "high"][int(y > -0.5) + int(y > 0.5)],
                "tags": ["new", "old", "new|old"][i % 3],
            }
        )
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows]) for name in rows[0]})


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(table_of(rows), path)
    return path


def recipe(path: Path, **changes: Any) -> dict[str, Any]:
    """A recipe for the table; changes as in `small`."""
    inputs = {"numeric": ["x", "y"], "categorical": ["city"], "missing": "mean", "indicator": True}
    plain = small(
        name="shop",
        data={
            "source": {"kind": "table", "path": str(path), "id": "id", "inputs": inputs},
            "split": {"validation": 0.2, "test": 0.25},
        },
        tasks={
            "sort": {"kind": "multiclass", "target": "sort"},
            "yes": {"kind": "binary", "target": "yes", "fit_threshold": "f1", "temperature": True},
            "amount": {"kind": "regression", "target": "amount"},
            "grade": {"kind": "ordinal", "target": "grade", "order": ["low", "mid", "high"]},
            "tags": {"kind": "multilabel", "target": "tags"},
        },
        model__backbone__stages=linear(6),
        model__sharing=stitched("fc1"),
        optimizer={"kind": "adam", "lr": 0.02},
        train__epochs=3,
        train__batch_size=40,
    )
    return changed(plain, **changes)


def same(one: dict[str, Any], other: dict[str, Any], exact: bool = False) -> None:
    """Both hold the same predictions: classes equal, numbers to float32's rounding (or to the bit)."""
    assert list(one) == list(other)
    for name, values in one.items():
        if isinstance(values, list) or values.dtype == object:
            assert list(values) == list(other[name]), name
        elif exact:
            assert values.tobytes() == other[name].tobytes(), name
        else:
            np.testing.assert_allclose(values, other[name], rtol=2e-6, atol=1e-6, err_msg=name)


def as_texts(values: Any) -> list[str]:
    """Predictions as a CSV holds them: lists of labels as one text."""
    return ["|".join(v) if isinstance(v, list) else str(v) for v in values]


def finite(values: Any) -> bool:
    return all(math.isfinite(v) for v in np.asarray(values, dtype=float))
