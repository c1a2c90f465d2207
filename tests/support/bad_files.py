"""What the scripts of tests/bad/made/ spoil: small and good files, and a run, in the working directory."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import mtl
from tests.support.recipes import around, recipe


def idx(*shape: int) -> bytes:
    """An IDX file of zeros of this shape."""
    n = 1
    for size in shape:
        n *= size
    return bytes((0, 0, 8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape) + bytes(n)


def packed(data: bytes, level: int = 9) -> bytes:
    """As gzip, and the same bytes whenever it is made."""
    return gzip.compress(data, level, mtime=0)


def fashion_of_two_images() -> Path:
    """The four files of Fashion-MNIST in `fashion`, of two images each; the training images' path."""
    Path("fashion").mkdir()
    for split in ("train", "t10k"):
        Path("fashion", f"{split}-images-idx3-ubyte.gz").write_bytes(packed(idx(2, 28, 28)))
        Path("fashion", f"{split}-labels-idx1-ubyte.gz").write_bytes(packed(idx(2)))
    return Path("fashion/train-images-idx3-ubyte.gz")


def npy(array: npt.NDArray[Any]) -> bytes:
    """An array as a file of NumPy."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def run_on_arrays() -> None:
    """Write data.npz (8 rows of 3 inputs, and two classes) and train on it; the run is `run`. Prints nothing."""
    np.savez("data.npz", inputs=np.ones((8, 3)), label=np.arange(8) % 2)
    with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        mtl.run(recipe(**around({"kind": "npz", "path": "data.npz"}), train__batch_size=4), out="run")
