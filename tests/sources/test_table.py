from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from mtl.data.types import Layout, Wanted
from mtl.errors import UserError
from mtl.sources.table import Inputs, Table

TEXT = "id,x1,x2,x10,c,v,t,label\n" + "".join(
    f'r{i},{i},{i / 4},{-i},{"rgb"[i % 3]},"[{i}, 1]",2024-03-0{i + 1},{i % 2}\n' for i in range(6)
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(TEXT, encoding="utf-8")
    return path


def table(path: Path, inputs: dict[str, Any], **more: Any) -> Table:
    return Table.model_validate({"kind": "table", "path": str(path), "inputs": inputs, **more})


def typed(folder: Path) -> Path:
    """The columns whose types a Parquet file tells."""
    columns = {
        "x": pa.array([1, 2]),
        "f": pa.array([True, False]),
        "l": pa.array([[1], [2]]),
        "when": pa.array([0, 1], pa.timestamp("s")),
        "day": pa.array([0, 1], pa.int32()).cast(pa.date32()),
        "s": pa.array([{"a": 1}] * 2),
        "w": pa.array(["a", "b"]),
    }
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return folder / "t.parquet"


# --- which columns are read ---


@pytest.mark.parametrize(
    ("inputs", "layout"),
    [
        ({"numeric": ("x1",)}, Layout(("x1",))),
        ({"numeric": ("x*",)}, Layout(("x1", "x2", "x10"))),
        ({"numeric": ("x10", "x*")}, Layout(("x10", "x1", "x2"))),
        ({"numeric": ("x?",), "categorical": ("[ci]*",)}, Layout(("x1", "x2"), categorical=("id", "c"))),
        ({"numeric": ("x1", "x1")}, Layout(("x1",))),
        ({"vector": ("v",), "numeric": ("x2",)}, Layout(("x2",), {"v": 2})),
        (
            {"categorical": ("c",), "missing": "median", "indicator": True, "embedding": 4},
            Layout((), categorical=("c",), missing="median", indicator=True, embedding=4),
        ),
    ],
)
def test_layout(inputs: dict[str, Any], layout: Layout, path: Path) -> None:
    source = table(path, inputs)
    assert source.layout(source.table()) == layout
    header = source.header()
    assert header.layout == layout
    assert header.input_shape == (layout.width,)
    assert header.columns == tuple(TEXT.split("\n")[0].split(","))
    assert header.labels == dict.fromkeys(header.columns)


def test_a_name_with_signs_of_a_pattern_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x[1],x[2],x1,label\n1,2,3,0\n", encoding="utf-8")
    source = table(path, {"numeric": ("x[1]",)})
    assert source.layout(source.table()).numeric == ("x[1]",)
    source = table(path, {"numeric": ("x[[]*",)})
    assert source.layout(source.table()).numeric == ("x[1]", "x[2]")


@pytest.mark.parametrize(
    ("inputs", "message", "keys"),
    [
        ({"numeric": ("x1", "x11")}, "t.csv: inputs.numeric[1]: no column 'x11' (did you mean 'x1'?); columns: id,",
         ("inputs", "numeric", 1)),
        ({"categorical": ("z*",)}, "t.csv: inputs.categorical[0]: no column 'z*'; columns: id, x1,",
         ("inputs", "categorical", 0)),
        ({"vector": ("w",)}, "t.csv: inputs.vector[0]: no column 'w'", ("inputs", "vector", 0)),
        ({"numeric": ("x*",), "categorical": ("c", "x2")}, "inputs.categorical: column 'x2' is numeric already",
         ("inputs", "categorical")),
        ({"categorical": ("v",), "vector": ("v",)}, "inputs.vector: column 'v' is categorical already",
         ("inputs", "vector")),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit(
    inputs: dict[str, Any], message: str, keys: tuple[str | int, ...], path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        table(path, inputs).header()
    assert str(caught.value).startswith(message)
    assert caught.value.path == keys


@pytest.mark.parametrize(
    ("column", "held"),
    [("l", "lists"), ("when", "dates or times"), ("day", "dates or times"), ("s", "compound values")],
)
def test_types_that_are_no_numbers(column: str, held: str, tmp_path: Path) -> None:
    """Known from the header, so that `validate` tells."""
    source = table(typed(tmp_path), {"numeric": (column,)})
    with pytest.raises(UserError, match=rf"^inputs\.numeric: column '{column}' holds {held}, not numbers"):
        source.header()


def test_types_that_are_numbers(tmp_path: Path) -> None:
    source = table(typed(tmp_path), {"numeric": ("x", "f")})
    np.testing.assert_array_equal(source.columns(0).inputs, [[1, 1], [2, 0]])


def test_the_header_of_a_csv_reads_no_rows(path: Path) -> None:
    """A file that is wrong below its first row has a header still; of `validate` it reads no more."""
    path.write_text(TEXT + "short\n", encoding="utf-8")
    source = table(path, {"numeric": ("x1",)})
    assert source.header().input_shape == (1,)
    with pytest.raises(UserError, match=r"^t\.csv:row 8: 1 field, header has 8; "):
        source.columns(0)


# --- what is read ---


def test_read(path: Path) -> None:
    source = table(path, {"numeric": ("x2",), "categorical": ("c",)}, id="id")
    assert source.row_ids() == "id"
    columns = source.read(0, Wanted({"label": "classes"}, {"id": "codes", "t": "times"}))
    expected = [[i / 4, (3, 2, 1)[i % 3]] for i in range(6)]
    np.testing.assert_array_equal(columns.inputs, np.array(expected, np.float32))
    assert columns.labels["label"].tolist() == [0, 1] * 3
    assert columns.extra_names["id"] == tuple(f"r{i}" for i in range(6))
    days = np.array([f"2024-03-0{i + 1}" for i in range(6)], "datetime64[s]").astype(np.int64)
    np.testing.assert_array_equal(columns.extra["t"], days)
    assert columns.splits == {}
    assert columns.place(2) == "t.csv:row 4"


def test_files_of_splits(path: Path, tmp_path: Path) -> None:
    """A delimiter is that of a CSV alone; a .tsv has tabs unless it is given."""
    (tmp_path / "v.tsv").write_text("x1\tlabel\n7\t1\n", encoding="utf-8")
    pq.write_table(pa.table({"label": [0], "x1": [9]}), tmp_path / "e.parquet")
    (tmp_path / "t.csv").write_text("label,x1\n0,5\n1,6\n", encoding="utf-8")
    source = table(
        path, {"numeric": ("x1",)}, validation=str(tmp_path / "v.tsv"), test=str(tmp_path / "e.parquet")
    )
    assert list(source.files()) == ["train", "validation", "test"]
    assert source.header().row_counts == {"validation": 0, "test": 0}
    columns = source.read(0, Wanted({"label": "classes"}))
    assert columns.inputs.ravel().tolist() == [5, 6, 7, 9]
    assert columns.labels["label"].tolist() == [0, 1, 1, 0]
    assert {split: rows.tolist() for split, rows in columns.splits.items()} == {
        "train": [0, 1], "validation": [2], "test": [3],
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"na_values": ("", "?")}, {"separator": ","}, {"delimiter": ","}, {"id": "id"},
        {"inputs": {"numeric": ("x2",)}}, {"inputs": {"numeric": ("x1",), "missing": "mean"}},
    ],
)  # fmt: skip
def test_settings_are_in_the_fingerprint(change: dict[str, Any], path: Path) -> None:
    base: dict[str, Any] = {"inputs": {"numeric": ("x1",)}}
    wanted = Wanted({"label": "classes"})
    before = table(path, **base).read(0, wanted).fingerprint
    assert table(path, **base).read(1, wanted).fingerprint == before
    assert table(path, **{**base, **change}).read(0, wanted).fingerprint != before


def test_the_place_of_the_file_is_not_in_the_fingerprint(path: Path, tmp_path: Path) -> None:
    before = table(path, {"numeric": ("x1",)}).columns(0).fingerprint
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "u.csv")
    assert table(moved, {"numeric": ("x1",)}).columns(0).fingerprint == before


def test_another_table_is_read_by_the_columns_of_the_run(path: Path, tmp_path: Path) -> None:
    """A pattern means what it meant in training, also where the other file has more such columns."""
    source = table(path, {"numeric": ("x*",)}, validation=str(path), test=str(path), na_values=("", "?"))
    layout = source.layout(source.table())
    other = tmp_path / "other.csv"
    other.write_text("x2,x3,x10,x1\n1,2,3,?\n", encoding="utf-8")
    moved = source.elsewhere(str(other), layout)
    assert isinstance(moved, Table)
    assert list(moved.files()) == ["train"]
    assert moved.layout(moved.table()) == layout
    np.testing.assert_array_equal(moved.columns(0).inputs, [[np.nan, 1, 3]])


# --- the keys ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": {}}, "no input columns: give numeric, categorical, vector, dates or image"),
        ({"inputs": {"numeric": ("x1",), "image": {"column": "c"}}}, "an image column stands alone"),
        ({"delimiter": ",,"}, "should match pattern"),
        ({"delimiter": "\n"}, "should match pattern"),
        ({"delimiter": '"'}, "should match pattern"),
        ({"separator": ""}, "at least 1 character"),
        ({"inputs": {"numeric": ("",)}}, "at least 1 character"),
        ({"inputs": {"numeric": ("x1",), "missing": "zero"}}, "Input should be 'error', 'mean' or 'median'"),
        ({"inputs": {"categorical": ("c",), "embedding": 0}}, "greater than or equal to 1"),
        ({"na_value": ("?",)}, "unknown key 'na_value'"),
    ],
)
def test_keys_that_are_refused(change: dict[str, Any], message: str, path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        table(path, **{"inputs": {"numeric": ("x1",)}, **change})


def test_defaults_are_strict() -> None:
    """Nothing is filled, dropped or guessed unless the recipe says so."""
    inputs = Inputs(numeric=("x",))
    assert (inputs.missing, inputs.indicator, inputs.embedding) == ("error", False, None)
    assert table(Path("t.csv"), {"numeric": ("x",)}).na_values == ("",)
