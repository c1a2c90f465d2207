"""A recipe of a few lines on files of each kind, and what a run does with each of these files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mtl.data.files import idx
from mtl.sources import fashion_mnist
from tests.support import recipes

ONCE = {"checked": 1, "hashed": 1, "opened": 1, "parsed": 1}
GLANCE = {"glanced at": 1}

Source = dict[str, Any]
Done = dict[str, dict[str, int]]
"""Name of a file -> what is done with it -> how often; "" has what cannot be told apart by file."""


def csv_of(path: Path, columns: dict[str, list[Any]]) -> Path:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(f'"{value}"' for value in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def columns_of(n: int, shift: int = 0) -> dict[str, list[Any]]:
    return {
        "x": [i / 7 + shift for i in range(n)],
        "c": ["ab"[i % 2] for i in range(n)],
        "v": [[i + shift, 2.5] for i in range(n)],
        "label": [i % 3 for i in range(n)],
    }


def table(path: Path, **inputs: Any) -> Source:
    return {"kind": "table", "path": path.name, "inputs": inputs}


def plain_csv(folder: Path, n: int) -> tuple[Source, Done]:
    path = csv_of(folder / "t.csv", columns_of(n))
    return table(path, numeric=["x"], categorical=["c"]), {"t.csv": ONCE}


def vector_csv(folder: Path, n: int) -> tuple[Source, Done]:
    path = csv_of(folder / "t.csv", columns_of(n))
    return table(path, vector=["v"], numeric=["x"]), {"t.csv": ONCE}


def split_csv(folder: Path, n: int) -> tuple[Source, Done]:
    path = csv_of(folder / "t.csv", columns_of(n))
    for shift, name in enumerate(("validation", "test"), start=1):
        csv_of(folder / f"{name}.csv", columns_of(n, shift))
    more = {"validation": "validation.csv", "test": "test.csv"}
    return table(path, vector=["v"]) | more, dict.fromkeys(("t.csv", *more.values()), ONCE)


def image_csv(folder: Path, n: int) -> tuple[Source, Done]:
    for i in range(n):
        Image.new("L", (4, 4), i * 5).save(folder / f"{i}.png")
    path = csv_of(
        folder / "t.csv", {"image": [f"{i}.png" for i in range(n)], "label": [i % 3 for i in range(n)]}
    )
    images = {f"{i}.png": {"opened": 1} for i in range(n)}
    return table(path, image={"column": "image", "mode": "grey"}), {"t.csv": ONCE, **images}


def parquet(folder: Path, n: int) -> tuple[Source, Done]:
    pq.write_table(pa.table(columns_of(n)), folder / "t.parquet")
    return table(folder / "t.parquet", numeric=["x"], categorical=["c"]), {"t.parquet": ONCE}


def vector_parquet(folder: Path, n: int) -> tuple[Source, Done]:
    pq.write_table(pa.table(columns_of(n)), folder / "t.parquet")
    return table(folder / "t.parquet", vector=["v"]), {"t.parquet": ONCE | GLANCE}


def arrays(folder: Path, n: int) -> tuple[Source, Done]:
    np.savez(folder / "a.npz", inputs=np.ones((n, 3), np.float32), label=np.arange(n) % 3, unused=np.zeros(3))
    return {"kind": "npz", "path": "a.npz"}, {
        "a.npz": {"checked": 1, "opened": 1},
        "": {"hashed": 1, "parsed": 2},
    }


def faces(n: int) -> dict[str, Any]:
    rows = np.random.default_rng(0).standard_normal((n, 128)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return {
        "embedding": rows,
        "gender": np.array(["f", "m"] * (n // 2)),
        "young": np.array(["no", "yes"])[np.arange(n) // 2 % 2],
    }


def face_npz(folder: Path, n: int) -> tuple[Source, Done]:
    np.savez(folder / "a.npz", **faces(n))
    found = {"a.npz": {"checked": 1, "opened": 1}, "": {"hashed": 1, "parsed": 3}}
    return {"kind": "face_embeddings", "path": "a.npz"}, found


def face_parquet(folder: Path, n: int) -> tuple[Source, Done]:
    pq.write_table(
        pa.table({name: values.tolist() for name, values in faces(n).items()}), folder / "t.parquet"
    )
    found = {"t.parquet": {"checked": 1, "opened": 1, "parsed": 1}, "": {"hashed": 1}}
    return {"kind": "face_embeddings", "path": "t.parquet"}, found


def face_csv(folder: Path, n: int) -> tuple[Source, Done]:
    csv_of(folder / "t.csv", {name: values.tolist() for name, values in faces(n).items()})
    found = {"t.csv": {"checked": 1, "opened": 1, "parsed": 1}, "": {"hashed": 1}}
    return {"kind": "face_embeddings", "path": "t.csv"}, found


KINDS: dict[str, Callable[[Path, int], tuple[Source, Done]]] = {
    kind.__name__: kind
    for kind in (
        plain_csv, vector_csv, split_csv, image_csv, parquet, vector_parquet, arrays, face_npz, face_parquet,
        face_csv,
    )
}  # fmt: skip


def write(kind: str, folder: Path, n: int = 40) -> Done:
    """`r.yaml` in a folder with its data; returns what a run does with each file."""
    source, expected = KINDS[kind](folder, n)
    conv = {"name": "conv", "kind": "conv", "kernel": 3, "channels": 2}
    task = {"kind": "multiclass", "target": "gender"} if "face" in kind else None
    stages = [conv] if kind == "image_csv" else recipes.linear(4)
    around = recipes.around(source, task, {} if "test" in source else None)
    recipes.write(folder, **around, model__backbone__stages=stages)
    return expected


def idx_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    """Four small files in the form of Fashion-MNIST's, and a recipe on them."""
    rows, files = {"train": 12, "test": 5}, []
    for file in fashion_mnist.FILES:
        shape = file.shape(rows)
        content = idx.write(np.arange(np.prod(shape)).reshape(shape).astype(np.uint8) % 10)
        (folder / file.name).write_bytes(content)
        files.append(replace(file, sha256=hashlib.sha256(content).hexdigest()))
    monkeypatch.setattr(fashion_mnist, "FILES", tuple(files))
    monkeypatch.setattr(fashion_mnist, "COUNTS", rows)
    conv = {"name": "conv", "kind": "conv", "kernel": 3, "channels": 2}
    around = recipes.around({"kind": "fashion_mnist", "path": "."}, split={})
    recipes.write(folder, **around, model__backbone__stages=[conv])
    return {**{file.name: {"opened": 1} for file in files}, "": {"hashed": 4, "parsed": 4}}
