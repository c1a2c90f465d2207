"""An .npz file with one array per column is a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.data.files.formats import named_arrays
from mtl.data.files.table import TableFile
from mtl.errors import UserError


def saved(folder: Path, **columns: Any) -> TableFile:
    np.savez(folder / "t.npz", **columns)
    return TableFile(folder / "t.npz")


def test_every_type_of_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_arrays, "ROWS", 2)
    file = saved(
        tmp_path, i=np.array([1, 2, 3], np.int16),
        f=np.array([0.5, np.nan, 2], np.float32),
        b=np.array([True, False, True]), t=np.array(["a", "", "ü"]), s=np.array([b"x", b"y", b""]),
        v=np.arange(6.0).reshape(3, 2),
        d=np.array(["2024-03-01", "NaT", "1969-12-31"], "M8[D]"), long=np.array([1.5, 2, 3], np.longdouble),
    )  # fmt: skip
    file.check()
    assert file.types == {
        "i": "integer", "f": "number", "b": "boolean", "t": "text", "s": "text", "v": "list", "d": "time",
        "long": "number",
    }  # fmt: skip
    assert file.n_rows == 3
    assert file.row(0) == "t.npz:row 0"
    batches = list(file.batches(["t", "f", "v", "d", "s"]))
    assert [first for first, _ in batches] == [0, 2]
    rows = [row for _, batch in batches for row in batch.to_pylist()]
    assert [row["t"] for row in rows] == ["a", None, "ü"]
    assert [row["f"] for row in rows] == [0.5, None, 2.0]
    assert [row["v"] for row in rows] == [[0, 1], [2, 3], [4, 5]]
    assert [str(row["d"])[:10] for row in rows] == ["2024-03-01", "None", "1969-12-31"]
    assert file.first_row(["i"]).to_pydict() == {"i": [1]}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": np.zeros(3), "b": np.zeros(2)}, "t.npz: array 'b' has 2 rows, 'a' has 3"),
        ({"a": np.zeros((3, 2, 2))}, "t.npz: array 'a' has shape (3, 2, 2); a column is (n,) or (n, F)"),
        ({"a": np.zeros(())}, "t.npz: array 'a' has shape (); a column is (n,) or (n, F)"),
        ({"a": np.zeros(0)}, "t.npz: no rows"),
    ],
)
def test_arrays_that_are_no_table(columns: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        saved(tmp_path, **columns).check()
    assert str(caught.value).startswith(said)


def test_an_array_of_complex_numbers_is_no_column(tmp_path: Path) -> None:
    file = saved(tmp_path, a=np.zeros(2, complex), x=np.zeros(2))
    assert file.types["a"] == "other"
    with pytest.raises(UserError, match=r"^t\.npz: array 'a' holds complex128 values$"):
        list(file.batches(["a"]))
