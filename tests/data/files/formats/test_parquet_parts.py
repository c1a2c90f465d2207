"""Parquet files of a data set are one table: the rows that pyarrow reads, in order, with places that name the file."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from mtl.data.files.table import TableFile
from mtl.errors import UserError


def write(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def whole(file: TableFile, columns: list[str]) -> dict[str, list[Any]]:
    starts, batches = zip(*file.batches(columns), strict=True)
    assert list(starts) == [sum(batch.num_rows for batch in batches[:i]) for i in range(len(batches))]
    return pa.Table.from_batches(batches).to_pydict()


def as_text(values: list[Any]) -> list[str | None]:
    return [None if value is None else str(value) for value in values]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    for i, (year, region) in enumerate(
        ((2024, "eu"), (2024, "New%20York"), (2025, "__HIVE_DEFAULT_PARTITION__"))
    ):
        folder = tmp_path / f"rows/year={year}/region={region}"
        write(folder / "part-1.parquet", {"x": [i, i + 0.5], "s": ["a", None]})
        write(folder / "part-0.parquet", {"s": ["b"], "x": [float(-i)]})
    return tmp_path / "rows"


def test_the_rows_are_those_of_pyarrow(rows: Path) -> None:
    """Its values of partitions are numbers where they can be; ours are text, as in a CSV."""
    file = TableFile(rows)
    expected = ds.dataset(rows, partitioning="hive").to_table().to_pydict()
    assert file.column_names == ("s", "x", "year", "region")
    assert file.types == {"s": "text", "x": "number", "year": "text", "region": "text"}
    for columns in (["s", "x", "year", "region"], ["year"], ["x"], ["region", "s"]):
        found = whole(file, columns)
        for name in columns:
            own = as_text(expected[name]) if name in ("year", "region") else expected[name]
            assert found[name] == own, name
    assert file.n_rows == 9


def test_a_row_is_named_by_its_file(rows: Path) -> None:
    file = TableFile(rows)
    at = [file.row(i) for i in (0, 1, 2, 3, 8)]
    york, eu, none = (f"rows/{name}" for name in (
        "year=2024/region=New%20York", "year=2024/region=eu", "year=2025/region=__HIVE_DEFAULT_PARTITION__"
    ))  # fmt: skip
    assert at == [
        f"{york}/part-0.parquet:row 0", f"{york}/part-1.parquet:row 0", f"{york}/part-1.parquet:row 1",
        f"{eu}/part-0.parquet:row 0", f"{none}/part-1.parquet:row 1",
    ]  # fmt: skip
    assert file.where("x", 4) == f"{eu}/part-1.parquet:row 0, column 'x'"


def test_the_first_row_passes_over_files_without_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"x": pa.array([], pa.float64())})
    write(tmp_path / "b.parquet", {"x": [2.5]})
    file = TableFile(tmp_path)
    assert file.first_row(["x"]).to_pydict() == {"x": [2.5]}
    assert file.row(0) == f"{tmp_path.name}/b.parquet:row 0"
    assert list(file.digests()) == [f"{tmp_path.name}/b.parquet"]


def test_a_data_set_without_rows(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"rows/{name}.parquet", {"x": pa.array([], pa.float64())})
    file = TableFile(tmp_path / "rows")
    with pytest.raises(UserError, match=r"^rows: no rows$"):
        file.check()
    with pytest.raises(UserError, match=r"^rows: no rows$"):
        file.first_row(["x"])


@pytest.mark.parametrize(
    ("kinds", "whole_kind"),
    [
        ((pa.int32(), pa.int64()), pa.int64()),
        ((pa.int64(), pa.float64()), pa.float64()),
        ((pa.float64(), pa.float32(), pa.int8()), pa.float64()),
        ((pa.null(), pa.int16(), pa.null()), pa.int16()),
        ((pa.dictionary(pa.int32(), pa.int64()), pa.float64()), pa.float64()),
        ((pa.timestamp("ms"), pa.timestamp("us")), pa.timestamp("us")),
        ((pa.int64(), pa.decimal128(9, 2)), pa.float64()),
        ((pa.decimal128(9, 2), pa.decimal128(5, 1)), pa.decimal128(9, 2)),
    ],
)
def test_types_that_differ_harmlessly(
    kinds: tuple[pa.DataType, ...], whole_kind: pa.DataType, tmp_path: Path
) -> None:
    expected = []
    for i, kind in enumerate(kinds):
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        value = None if pa.types.is_null(kind) else Decimal(i) if pa.types.is_decimal(kind) else i
        values = pa.array([value, None]).cast(plain)
        write(tmp_path / f"{i}.parquet", {"x": values.dictionary_encode() if plain != kind else values})
        expected += values.cast(whole_kind).to_pylist()
    file = TableFile(tmp_path)
    batches = [batch for _, batch in file.batches(["x"])]
    assert {batch.schema.field("x").type for batch in batches} == {whole_kind}
    assert pa.Table.from_batches(batches)["x"].to_pylist() == expected


@pytest.mark.parametrize(
    "kind", [pa.dictionary(pa.int32(), pa.string()), pa.large_string(), pa.string(), pa.binary()]
)
def test_texts_in_several_forms(kind: pa.DataType, tmp_path: Path) -> None:
    texts = pa.array(["c", "", "d"])
    write(tmp_path / "a.parquet", {"s": pa.array(["a", None, "b"])})
    write(
        tmp_path / "b.parquet",
        {"s": texts.dictionary_encode() if pa.types.is_dictionary(kind) else texts.cast(kind)},
    )
    file = TableFile(tmp_path)
    assert file.types == {"s": "text"}
    assert whole(file, ["s"])["s"] == ["a", None, "b", "c", None, "d"]


DISAGREEING: list[tuple[str, dict[str, Any], str]] = [
    ("b.parquet", {"x": [1.0]}, "rows/b.parquet: no column 'y', which rows/a.parquet has"),
    ("b.parquet", {"x": [1.0], "y": [2], "z": [3]}, "rows/a.parquet: no column 'z', which rows/b.parquet has"),
    ("b.parquet", {"x": ["1.0"], "y": [2]},
     "rows/b.parquet: column 'x' is of type string, in rows/a.parquet of type double"),
    ("b.parquet", {"x": [1.0], "y": [True]},
     "rows/b.parquet: column 'y' is of type bool, in rows/a.parquet of type int64"),
    ("k=1/b.parquet", {"x": [1.0], "y": [2]}, "rows/a.parquet: no column 'k', which rows/k=1/b.parquet has"),
    ("y=1/b.parquet", {"x": [1.0]},
     "rows/y=1/b.parquet: column 'y' is in the files here, and in the name of a folder there: rows/a.parquet"),
    ("x=1/b.parquet", {"x": [1.0], "y": [2]},
     "rows/x=1/b.parquet: column 'x' is in the file and in the name of its folder; rename one of the two"),
    ("k=1/k=2/b.parquet", {"x": [1.0], "y": [2]}, "rows/k=1/k=2/b.parquet: two of its folders give a column 'k'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "columns", "text"), DISAGREEING)
def test_files_that_disagree(name: str, columns: dict[str, Any], text: str, tmp_path: Path) -> None:
    write(tmp_path / "rows/a.parquet", {"x": [0.5], "y": [1]})
    write(tmp_path / "rows" / name, columns)
    with pytest.raises(UserError) as caught:
        TableFile(tmp_path / "rows").check()
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("values", [[1, 2**60 + 1], pa.array([1, 2**60 + 1]).dictionary_encode()])
def test_a_whole_number_that_the_fractions_of_other_files_cannot_hold(values: Any, tmp_path: Path) -> None:
    write(tmp_path / "rows/a.parquet", {"id": [0.5]})
    write(tmp_path / "rows/b.parquet", {"id": values})
    with pytest.raises(UserError) as caught:
        whole(TableFile(tmp_path / "rows"), ["id"])
    assert str(caught.value) == (
        "rows/b.parquet:row 1, column 'id': cannot be held as double, which the column is in other files"
    )


def test_bytes_that_are_no_text_beside_text(tmp_path: Path) -> None:
    write(tmp_path / "rows/a.parquet", {"s": ["a"]})
    write(tmp_path / "rows/b.parquet", {"s": [b"a", b"\xff"]})
    with pytest.raises(UserError, match=r"^rows/b\.parquet:row 1, column 's': cannot be held as string"):
        whole(TableFile(tmp_path / "rows"), ["s"])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "rows/a.parquet", {"x": [0.5]})
    (tmp_path / "rows/b.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(UserError, match=r"^rows/b\.parquet: is not a Parquet file \("):
        TableFile(tmp_path / "rows").check()


def test_a_long_text_of_a_dictionary_is_not_copied_to_its_rows(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(
        pa.array([0, 1] * 150, pa.int32()), pa.array(["a", "x" * (4 << 20)])
    )
    for name in "ab":
        (tmp_path / "rows").mkdir(exist_ok=True)
        pq.write_table(pa.table({"s": texts}), tmp_path / f"rows/{name}.parquet", compression="zstd",
                       dictionary_pagesize_limit=1 << 30)  # fmt: skip
    del texts
    before = pa.total_allocated_bytes()
    with pytest.raises(
        UserError, match=r"^rows/a\.parquet:row 1, column 's': holds 4194304 characters, at most"
    ):
        next(TableFile(tmp_path / "rows").batches(["s"]))
    assert pa.total_allocated_bytes() - before < 64 << 20
