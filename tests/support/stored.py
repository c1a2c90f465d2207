"""Recipes over files whose rows can be in memory or in the store, and the comparison of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.batch import Targets
from mtl.dataset.header import header_of
from mtl.recipe.keys.recipe import Recipe
from tests.support import recipes

N = 60


def columns(n: int = N, seed: int = 0) -> dict[str, Any]:
    """Numbers with gaps, a category, labels of several kinds with gaps, weights and groups."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2))
    return {
        "x": pa.array(x[:, 0].astype(np.float32), mask=rng.random(n) < 0.1),
        "y": pa.array(x[:, 1], mask=rng.random(n) < 0.1),
        "city": [("Bern", "Chur", "Genf")[k] for k in rng.integers(0, 3, n)],
        "colour": pa.array([("red", "green", "blue")[k] for k in rng.integers(0, 3, n)], mask=rng.random(n) < 0.2),
        "yes": (x[:, 0] + rng.standard_normal(n) > 0).astype(np.int8),
        "other": pa.array((x[:, 1] > 0).astype(np.int8), mask=rng.random(n) < 0.3),
        "size": pa.array(x[:, 0] + x[:, 1], mask=rng.random(n) < 0.2),
        "heavy": rng.random(n),
        "tags": [("a|b", "b", "c|a", "c")[k] for k in rng.integers(0, 4, n)],
        "site": [f"s{k}" for k in rng.integers(0, 12, n)],
    }  # fmt: skip


INPUTS = {
    "numeric": ["x", "y"],
    "categorical": ["city"],
    "missing": "mean",
    "indicator": True,
    "embedding": 2,
}
TASKS: dict[str, Any] = {
    "colour": {"kind": "multiclass", "target": "colour", "missing": "mask"},
    "yes": {"kind": "binary", "target": "yes", "sample_weight": "heavy"},
    "other": {"kind": "binary", "target": "other", "missing": "mask"},
    "size": {"kind": "regression", "target": "size", "missing": "mask"},
    "tags": {"kind": "multilabel", "target": "tags"},
}
SPLIT = {"validation": 0.2, "test": 0.2}


def table(folder: Path, name: str = "t.parquet", **options: Any) -> dict[str, Any]:
    """A table in the folder, as a source."""
    if not (folder / name).exists():
        pq.write_table(pa.table(columns()), folder / name, row_group_size=17)
    return {"kind": "table", "path": str(folder / name), "inputs": INPUTS, **options}


def recipe(folder: Path, in_memory: bool = False, **changes: Any) -> Recipe:
    """The small recipe over a table of the folder, or over `data` and `tasks`."""
    data = {"source": table(folder), "split": SPLIT} if "data" not in changes else changes.pop("data")
    made = {"tasks": TASKS, **changes}
    return recipes.recipe(data={**data, "in_memory": in_memory}, **made)


def several(folder: Path) -> dict[str, Any]:
    """Two tables as sources; the second lacks some labels and has other cities."""
    more = columns(30, seed=1)
    more["city"] = ["Thun" if city == "Chur" else city for city in more["city"]]
    del more["other"], more["size"]
    pq.write_table(pa.table(more), folder / "more.parquet")
    return {"sources": {"one": table(folder), "two": table(folder, "more.parquet")}, "split": SPLIT}


def images(folder: Path, n: int = 24) -> dict[str, Any]:
    """A CSV of paths to small images of several sizes."""
    rng = np.random.default_rng(0)
    lines = ["file,label"]
    for i in range(n):
        pixels = rng.integers(0, 256, (4 + i % 2, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]}")
    (folder / "i.csv").write_text("\n".join(lines) + "\n")
    image = {"image": {"column": "file", "size": [4, 4], "mode": "grey"}}
    return {
        "source": {"kind": "table", "path": str(folder / "i.csv"), "inputs": image},
        "split": {"test": 0.25},
    }


def arrays(folder: Path, n: int = 40) -> dict[str, Any]:
    """Arrays in an .npz file, of which the inputs are float64."""
    rng = np.random.default_rng(0)
    values = {
        "inputs": rng.standard_normal((n, 2, 3, 3)),
        "label": np.arange(n) % 2,
        "who": np.arange(n) // 2,
    }
    np.savez(folder / "a.npz", **values)
    return {"source": {"kind": "npz", "path": str(folder / "a.npz")}, "split": {"test": 0.25, "group": "who"}}


LABEL = {"a": {"kind": "multiclass", "target": "label"}}
CASES: Mapping[str, Any] = {
    "parquet": (lambda folder: {"source": table(folder), "split": SPLIT}, TASKS),
    "sources": (several, {name: TASKS[name] for name in ("colour", "yes", "other", "size")}),
    "images": (images, LABEL),
    "arrays": (arrays, LABEL),
    "groups": (lambda folder: {"source": table(folder), "split": {**SPLIT, "group": "site"}}, TASKS),
}
"""Case -> the `data` of a recipe in a folder, and its tasks."""


def load(made: Recipe) -> Dataset:
    """The data set of a recipe."""
    return load_dataset(made, header_of(made))


def assert_same(one: Dataset, other: Dataset) -> None:
    """Two data sets agree in every bit, apart from notices on the store."""
    assert list(one.splits) == list(other.splits)
    for split in one.splits:
        np.testing.assert_array_equal(one.splits[split], other.splits[split])
    n = len(one.rows)
    assert n == len(other.rows)
    order = np.random.default_rng(0).permutation(n)
    for rows in np.array_split(order, 7):
        first, second = one.rows.batch(rows), other.rows.batch(rows)
        assert first.inputs.dtype == second.inputs.dtype
        np.testing.assert_array_equal(first.inputs.numpy(), second.inputs.numpy())
        assert torch.equal(first.rows, second.rows)
        assert_same_labels(first, second)
        assert_same_labels(one.rows.targets(rows), other.rows.targets(rows))
    for field in ("mean", "std", "fill"):
        np.testing.assert_array_equal(getattr(one.learned, field), getattr(other.learned, field))
    plain = replace(one.learned, mean=None, std=None, fill=None)
    assert plain == replace(other.learned, mean=None, std=None, fill=None)
    for name in ("header", "streams", "fingerprint", "ceiling", "undefined", "functions"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_array_equal(one.groups, other.groups)
    assert [line for line in other.notices if not line.startswith("rows of ")] == list(one.notices)


def assert_same_labels(one: Targets, other: Targets) -> None:
    """Two sets of labels agree in every bit."""
    for part in ("target", "present", "weight"):
        first, second = getattr(one, part), getattr(other, part)
        assert list(first) == list(second)
        for group in first:
            assert first[group].dtype == second[group].dtype
            np.testing.assert_array_equal(first[group].numpy(), second[group].numpy())
