"""A Parquet file is read a few rows at a time where its rows are large, and a lack of memory is no damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.data.files.formats import parquet
from mtl.data.files.table import TableFile
from mtl.errors import EnvironmentFault, UserError


def test_lists_of_fixed_size_are_read_a_few_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = np.arange(60 * 1000, dtype=np.float64)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(numbers), 1000)
    pq.write_table(pa.table({"v": lists, "y": list(range(60))}), tmp_path / "a.parquet")
    monkeypatch.setattr(parquet, "BYTES", 8 * 1000 * 7)
    sizes = [batch.num_rows for _, batch in TableFile(tmp_path / "a.parquet").batches(["v", "y"])]
    assert max(sizes) in (6, 7)  # the other column takes its part
    assert sum(sizes) == 60
    assert [batch.num_rows for _, batch in TableFile(tmp_path / "a.parquet").batches(["y"])] == [60]


@pytest.mark.parametrize(
    "error", [pa.ArrowMemoryError("malloc of size 99 failed"), OSError("realloc of size 2147483648 failed")]
)
def test_a_lack_of_memory_is_not_damage(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"y": [1, 2]}), tmp_path / "a.parquet")

    def fails(*_: Any, **__: Any) -> Any:
        raise error
        yield

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fails)
    with pytest.raises(
        EnvironmentFault, match=r"^a\.parquet: its rows do not fit into memory, 16,384 at a time"
    ):
        list(TableFile(tmp_path / "a.parquet").batches(["y"]))


def test_a_long_text_is_found_before_it_is_copied_to_each_row(tmp_path: Path) -> None:
    """Every second of 300 rows has a text of 4 MB, which together take 0.6 GB; as a category it is there once."""
    texts = pa.DictionaryArray.from_arrays(
        pa.array([0, 1] * 150, pa.int32()), pa.array(["a", "x" * (4 << 20)])
    )
    table = pa.table({"s": texts, "y": list(range(300))})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", dictionary_pagesize_limit=1 << 30)
    del table, texts
    before = pa.total_allocated_bytes()
    with pytest.raises(UserError) as caught:
        next(TableFile(tmp_path / "a.parquet").batches(["s", "y"]))
    assert str(caught.value) == "a.parquet:row 1, column 's': holds 4194304 characters, at most 131072"
    assert pa.total_allocated_bytes() - before < 64 << 20
