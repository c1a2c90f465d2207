"""Exact copies of rows are counted, and rows that few values repeat by chance are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.data.files.table import TableFile
from mtl.starter.look.copies import copies
from tests.support.columns import cycle, floats, write_csv

X = floats(50)
Z = X[::-1]
TABLES: dict[str, tuple[dict[str, list[Any]], int]] = {
    "none": ({"x": X, "z": Z}, 0),
    "three": ({"x": [*X, *X[:3]], "z": [*Z, *Z[:3]]}, 3),
    "one, and twice": ({"x": [*X, X[7], X[7]], "z": [*Z, Z[7], Z[7]]}, 2),
    "each row twice": ({"x": X * 2, "z": Z * 2}, 50),
    "each row twenty times": ({"x": X * 20, "z": Z * 20, "y": cycle(0, 1, n=1000)}, 950),
    "equal but for one column": ({"x": X * 2, "z": Z * 2, "id": list(range(100))}, 0),
    "empty cells are equal": ({"x": [*X, X[7]], "z": [*Z, Z[7]], "e": [""] * 51}, 1),
    "few combinations": ({"x": cycle("a", "b", "c", n=60), "y": cycle(0, 1, n=60)}, 0),
    "numbers of few digits": ({"x": [*X, X[7]], "y": [*cycle(0, 1, n=50), 1]}, 0),
}


@pytest.mark.parametrize("case", TABLES)
def test_rows_that_are_copies(case: str, tmp_path: Path) -> None:
    columns, n = TABLES[case]
    assert copies(TableFile(write_csv(tmp_path / "t.csv", columns))) == n


def test_copies_in_parquet(tmp_path: Path) -> None:
    lists = [[x, 1.0] for x in X]
    table = {"x": [*X, X[0]], "v": [*lists, lists[0]], "d": pa.array([*"ab" * 25, "a"]).dictionary_encode()}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert copies(TableFile(tmp_path / "t.parquet")) == 1
