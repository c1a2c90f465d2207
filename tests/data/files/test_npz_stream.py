"""Arrays a few rows at a time are the arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.data.files.npz import archive
from mtl.data.files.npz_stream import stream
from mtl.errors import UserError


@pytest.mark.parametrize("rows", [1, 4, 10, 100])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_parts_are_the_whole(save: Any, rows: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.standard_normal((10, 2, 3)).astype(np.float32),
        "big": np.arange(10, dtype=">i4"),
        "fortran": np.asfortranarray(rng.standard_normal((10, 4))),
        "text": np.array([f"é{i}" for i in range(10)]),
        "flat": np.zeros((10, 0)),
    }
    save(tmp_path / "a.npz", **arrays)
    parts = list(stream(archive(tmp_path / "a.npz"), list(arrays), rows))
    assert [len(part["x"]) for part in parts] == [rows] * (10 // rows) + ([10 % rows] if 10 % rows else [])
    for name, values in arrays.items():
        whole = np.concatenate([part[name] for part in parts])
        np.testing.assert_array_equal(whole, values)
        assert whole.dtype.isnative
        assert whole.dtype == values.dtype.newbyteorder("=")


def test_no_rows_are_no_parts(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((0, 3)))
    assert list(stream(archive(tmp_path / "a.npz"), ["x"], 5)) == []


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (["y"], "a.npz: no array 'y'; arrays: x, short, one"),
        (["x", "shor"], "a.npz: no array 'shor' (did you mean 'short'?); arrays: x, short, one"),
        (["x", "short"], "a.npz: array 'short' has 3 rows, 'x' has 4"),
        (["x", "one"], "a.npz: array 'one' has 0 rows, 'x' has 4"),
    ],
)
def test_arrays_that_do_not_fit(wanted: list[str], text: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), short=np.zeros(3), one=np.array(1.0))
    with pytest.raises(UserError) as caught:
        list(stream(archive(tmp_path / "a.npz"), wanted, 2))
    assert str(caught.value) == text


def test_an_array_that_is_damaged_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((1000, 100)))
    with zipfile.ZipFile(path) as written:
        at = written.infolist()[0].header_offset + 400_000
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.npz: array 'x' is damaged"):
        list(stream(archive(path), ["x"], 10))
