from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.data.files.formats import in_memory
from mtl.data.files.table import MemoryTable, TableFile
from mtl.errors import UserError

COLUMNS: dict[str, object] = {
    "a": [1, None, 3],
    "t": ["x", "", "NA"],
    "d": pa.array(["p", "", "p"]).dictionary_encode(),
    "v": [[1.0], [2.0], None],
    "s": [{"k": 1}] * 3,
}


def rows(file: TableFile, columns: list[str]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {name: [] for name in columns}
    for first, batch in file.batches(columns):
        assert first == len(found[columns[0]])
        for name in columns:
            found[name].extend(batch.column(name).to_pylist())
    return found


def test_it_is_read_as_a_parquet_file_is(tmp_path: Path) -> None:
    table = pa.table(COLUMNS)
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    memory, file = MemoryTable(table, ["", "NA"]), TableFile(path, na_values=["", "NA"])
    memory.check()
    assert memory.column_names == file.column_names == tuple(COLUMNS)
    assert memory.types == file.types
    assert memory.n_rows == file.n_rows == 3
    for columns in (["a"], ["t", "a", "d"], list(COLUMNS)):
        assert rows(memory, columns) == rows(file, columns)
    assert rows(memory, ["t", "d"]) == {"t": ["x", None, None], "d": ["p", None, "p"]}


@pytest.mark.parametrize("chunks", [[3], [1, 2], [0, 3, 0], [1, 0, 1, 1]])
@pytest.mark.parametrize("batch", [1, 2, 100])
def test_chunks_do_not_matter(chunks: list[int], batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "ROWS", batch)
    parts, at = [], 0
    for n in chunks:
        parts.append(pa.table({"a": pa.array([0, 1, 2][at : at + n], pa.int64())}))
        at += n
    assert rows(MemoryTable(pa.concat_tables(parts)), ["a"]) == {"a": [0, 1, 2]}


def test_a_table_without_rows() -> None:
    assert rows(MemoryTable(pa.table({"a": pa.array([], pa.int64())})), ["a"]) == {"a": []}


def test_faults() -> None:
    table = MemoryTable(pa.table(COLUMNS))
    assert table.row(7) == "table:row 7"
    with pytest.raises(
        UserError, match=r"^table: no column 'T' \(did you mean 't'\?\); columns: a, t, d, v, s$"
    ):
        list(table.batches(["a", "T"]))
    with pytest.raises(UserError, match=r"^table: column 'a' appears twice; rename one of them$"):
        MemoryTable(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]))
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    with pytest.raises(UserError, match=r"^table:row 1, column 't': not UTF-8 text$"):
        list(MemoryTable(pa.table({"t": text})).batches(["t"]))
