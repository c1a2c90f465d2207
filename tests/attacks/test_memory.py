"""Inputs that are small on the disk and large in memory are refused before memory is taken for them.

Each command runs in a process of its own with a limit of addresses, which is less than the input would take.
"""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mtl.errors import ENVIRONMENT, USER
from tests.support.recipes import linear, write

GB = 1 << 30
LIMITS = (1.5, 1.2)
"""GB of addresses; a process takes 0.9 before it reads anything."""


def long_header(folder: Path) -> dict[str, Any]:
    """An array whose header would take 1 GB, packed."""
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x.npy", "w", force_zip64=True) as member:
            member.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", GB))
            for _ in range(16):
                member.write(b" " * (64 << 20))
        with file.open("y.npy", "w") as member:
            np.lib.format.write_array(member, np.zeros(4, np.int64))
    return of_arrays()


def equal_numbers(folder: Path) -> dict[str, Any]:
    """Two gigabytes of zeros."""
    n = 1 << 19
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x.npy", "w", force_zip64=True) as member:
            text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, 1024), }}".ljust(117) + "\n"
            member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
            for _ in range(32):
                member.write(bytes(64 << 20))
        with file.open("y.npy", "w") as member:
            np.lib.format.write_array(member, np.zeros(n, np.int8))
    return of_arrays()


def of_arrays() -> dict[str, Any]:
    return {"data__source": {"kind": "npz", "path": "a.npz", "inputs": "x"}, **of_label("y")}


def of_label(name: str) -> dict[str, Any]:
    tasks = {"a": {"kind": "multiclass", "target": name}}
    return {"tasks": tasks, "data__split": {"test": 0.2}, "model__sharing": {"kind": "none"}}


def equal_rows(folder: Path) -> dict[str, Any]:
    """Sixty million rows that take a megabyte as run lengths."""
    schema = pa.schema({"x": pa.float32(), "y": pa.bool_()})
    part = pa.table({"x": np.zeros(2_000_000, np.float32), "y": np.zeros(2_000_000, bool)}, schema)
    with pq.ParquetWriter(folder / "a.parquet", schema, compression="zstd") as file:
        for _ in range(30):
            file.write_table(part)
    source = {"kind": "table", "path": "a.parquet", "inputs": {"numeric": ["x"]}}
    return {"data__source": source, **of_label("y")}


def many_rows(folder: Path) -> dict[str, Any]:
    """Twenty million short lines."""
    (folder / "a.csv").write_bytes(b"x,y\n" + b"0,1\n" * 20_000_000)
    source = {"kind": "table", "path": "a.csv", "inputs": {"numeric": ["x"]}}
    return {"data__source": source, **of_label("y")}


def large_images(folder: Path) -> dict[str, Any]:
    """Four images of 49 million pixels with transparency."""
    Image.new("LA", (7000, 7000)).save(folder / "a.png")
    for name in "bcd":
        (folder / f"{name}.png").symlink_to(folder / "a.png")
    (folder / "a.csv").write_text(
        "image,y\n" + "".join(f"{name}.png,{i % 2}\n" for i, name in enumerate("abcd"))
    )
    inputs = {"image": {"column": "image", "size": [8, 8], "mode": "grey"}}
    return {"data__source": {"kind": "table", "path": "a.csv", "inputs": inputs}, **of_label("y")}


def large_network(folder: Path) -> dict[str, Any]:
    return {"model__backbone__stages": linear(9_000, 9_000), "model__sharing": {"kind": "none"}}


def large_batch(folder: Path) -> dict[str, Any]:
    return {
        "model__backbone__stages": linear(1000, 1000),
        "model__sharing": {"kind": "none"},
        "data__source__rows": 100_000,
        "train__batch_size": 60_000,
    }


def many_gradients(folder: Path) -> dict[str, Any]:
    tasks = {f"t{i}": {"kind": "multiclass", "target": f"task{i % 2}"} for i in range(200)}
    return {
        "tasks": tasks,
        "model__towers": {"all": list(tasks)},
        "model__backbone__stages": linear(800, 800),
        "model__sharing": {"kind": "none"},
        "weighting": {"kind": "upgrad"},
    }


BOMBS: dict[Callable[[Path], dict[str, Any]], tuple[int, str]] = {
    long_header: (USER, "array 'x' has no sound header (of 1073741824 bytes, at most 10000 are read)"),
    equal_numbers: (ENVIRONMENT, "its arrays take 2.1 GB, "),
    equal_rows: (ENVIRONMENT, "60,000,000 rows of 1 input and 1 other column take 2.3 GB, "),
    many_rows: (ENVIRONMENT, "20,000,000 rows of 1 input and 1 other column take 760.0 MB, "),
    large_images: (ENVIRONMENT, "the 49,000,000 pixels of a.png take 833.0 MB, "),
    large_network: (ENVIRONMENT, "the weights, their gradients and the state of "),
    large_batch: (ENVIRONMENT, "and the activations of 60,000 rows take "),
    many_gradients: (ENVIRONMENT, "the gradients of 200 tasks by what they share take "),
}
"""What is large -> the exit code, and what is said."""


@pytest.mark.parametrize("limit", [LIMITS[0], pytest.param(LIMITS[1], marks=pytest.mark.slow)])
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_what_is_too_large_is_refused_before_it_is_read(
    bomb: Callable[[Path], dict[str, Any]], limit: float, tmp_path: Path
) -> None:
    code, said = BOMBS[bomb]
    recipe = write(tmp_path, **bomb(tmp_path))
    most = int(limit * GB)
    done = subprocess.run(
        [sys.executable, "-m", "mtl", "run", str(recipe), "--out", str(tmp_path / "out"), "--no-report"],
        capture_output=True,
        text=True,
        timeout=120,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_all_readers_are_tried() -> None:
    assert len(BOMBS) == 8
