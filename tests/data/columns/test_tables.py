from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data import memory
from mtl.data.columns import column
from mtl.data.columns.tables import TableForm, read_table, vector_width
from mtl.data.files.formats import parquet
from mtl.data.files.table import TableFile
from mtl.data.types import Columns, Empty, How, Layout, Wanted
from mtl.errors import EnvironmentFault, UserError

Table = Mapping[str, Sequence[object]]
HOW: tuple[How, ...] = ("classes", "numbers", "lists", "codes", "times")


def as_csv(path: Path, columns: Table, marks: str = "") -> TableFile:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(["" if v is None else v for v in row] for row in zip(*columns.values(), strict=True))
    return TableFile(path, na_values=["", marks])


def as_parquet(path: Path, columns: Table, marks: str = "") -> TableFile:
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
    return TableFile(path, na_values=["", marks])


WRITERS: dict[str, Callable[[Path, Table], TableFile]] = {"t.csv": as_csv, "t.parquet": as_parquet}


def read(
    files: TableFile | Mapping[str, TableFile],
    *,
    inputs: Layout | None = None,
    settings: str = "",
    separator: str = "|",
    labels: Mapping[str, How] | None = None,
    extra: Mapping[str, How] | None = None,
    empty: Mapping[str, Empty] | None = None,
) -> Columns:
    by_split = {"train": files} if isinstance(files, TableFile) else files
    form = TableForm(by_split, inputs or Layout(("x",)), None, Path(), separator, settings)
    return read_table(form, Wanted(labels or {}, extra or {}, empty or {}))


def alone(
    path: Path, values: Sequence[object], how: How, empty: Mapping[str, Empty] | None = None
) -> Columns:
    """One label column `v`, as it is taken."""
    columns = {"x": [0] * len(values), "v": values}
    return read(WRITERS[path.name](path, columns), labels={"v": how}, empty=empty)


# --- labels ---

LABELS: list[tuple[How, list[object], list[object], tuple[str, ...] | None, list[bool]]] = [
    # how, what stands in the file, values, what they are called, which are there
    ("classes", [3, 1, 2], [3, 1, 2], None, [True, True, True]),
    ("classes", [-1, 300, 0], [-1, 300, 0], None, [True, True, True]),
    ("classes", [1, None, 0], [1, 0, 0], None, [True, False, True]),
    ("classes", [10**17 - 1, 0], [10**17 - 1, 0], None, [True, True]),
    ("classes", ["b", "a", "b"], [1, 0, 1], ("a", "b"), [True, True, True]),
    ("classes", ["b", None, "NA"], [1, -1, 0], ("NA", "b"), [True, False, True]),
    ("classes", ["10", "9", "x"], [0, 1, 2], ("10", "9", "x"), [True, True, True]),
    ("classes", ["07", "7", "8"], [0, 1, 2], ("07", "7", "8"), [True, True, True]),
    ("classes", ["1e3", "2"], [1000, 2], None, [True, True]),
    ("classes", ["1e3", "x"], [0, 1], ("1e3", "x"), [True, True]),
    ("classes", ["1" * 19, "2"], [1, 0], ("2", "1" * 19), [True, True]),
    ("codes", ["10", "9", None], [1, 0, -1], ("9", "10"), [True, True, False]),
    ("codes", [10, 9, 10], [1, 0, 1], ("9", "10"), [True, True, True]),
    ("numbers", [0.5, None, 3], [0.5, np.nan, 3.0], None, [True, False, True]),
    ("times", ["2024-03-01", None], [1_709_251_200.0, np.nan], None, [True, False]),
]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("how", "raw", "values", "names", "there"), LABELS)
def test_a_label_column(
    how: How,
    raw: list[object],
    values: list[object],
    names: tuple[str, ...] | None,
    there: list[bool],
    name: str,
    tmp_path: Path,
) -> None:
    """The same of a CSV, where all is text, and of a Parquet file with types."""
    columns = alone(tmp_path / name, raw, how)
    np.testing.assert_array_equal(columns.labels["v"], values)
    present = columns.present.get("v", np.ones(len(raw), bool))
    assert present.tolist() == there
    assert ("v" in columns.present) == (not all(there))
    assert columns.header is not None
    assert columns.header.labels == {"x": None, "v": names}
    assert columns.header.text == (frozenset({"v"}) if names is not None else frozenset())
    assert columns.header.columns == ("x", "v")


def test_all_ways_of_taking_a_column_are_tested() -> None:
    assert {how for how, *_ in LABELS} | {"lists"} == set(HOW)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 127], np.int8), ([0, 128], np.int16), ([-32768, 0], np.int16), ([0, 32768], np.int32),
        ([0, 2**31], np.int64), (["a", "b"], np.int8), ([str(i) + "x" for i in range(129)], np.int16),
    ],
)  # fmt: skip
def test_classes_take_the_smallest_type(values: list[object], kind: type, tmp_path: Path) -> None:
    assert alone(tmp_path / "t.csv", values, "classes").labels["v"].dtype == kind


@pytest.mark.parametrize("name", WRITERS)
def test_lists(name: str, tmp_path: Path) -> None:
    rows: list[list[str] | None] = [["b", "a"], [], None, ["c"], ["a", "a"]]
    listed: list[object] = list(rows)
    if name == "t.csv":  # in which a cell with the separator alone lists nothing
        listed = [None if row is None else " | ".join(row) or "|" for row in rows]
    columns = alone(tmp_path / name, listed, "lists", empty={"v": "missing"})
    np.testing.assert_array_equal(
        columns.labels["v"], [[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]]
    )
    assert columns.labels["v"].dtype == np.int8
    assert columns.present["v"].tolist() == [row is not None for row in rows]
    assert columns.header is not None
    assert columns.header.labels["v"] == ("a", "b", "c")


def test_a_column_of_zeros_and_ones_lists_nothing(tmp_path: Path) -> None:
    assert alone(tmp_path / "t.parquet", [0, 1, 1], "lists").labels["v"].tolist() == [0, 1, 1]


def test_lists_of_two_files_have_the_labels_of_both(tmp_path: Path) -> None:
    """Also where one file holds them as text and the other as lists, or as numbers."""
    first = as_csv(tmp_path / "a.csv", {"x": [0, 0], "v": ["2|10", "2"]})
    second = as_parquet(tmp_path / "b.parquet", {"x": [0, 0], "v": [["3"], None]})
    third = as_parquet(tmp_path / "c.parquet", {"x": [0], "v": [10]})
    columns = read({"train": first, "validation": second, "test": third}, labels={"v": "lists"})
    assert columns.header is not None
    assert columns.header.labels["v"] == ("2", "3", "10")
    np.testing.assert_array_equal(
        columns.labels["v"], [[1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    )
    assert columns.present["v"].tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("how", ["numbers", "classes", "codes"])
def test_values_that_outgrow_their_type(how: How, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later batches hold what the first ones did not."""
    monkeypatch.setattr(parquet, "ROWS", 2)
    values = (
        [1.0, 2.0, 0.1, None, 2.0**40, 16_777_217.0] if how == "numbers" else [*range(300), None, 2**40, 0]
    )
    columns = alone(tmp_path / "t.parquet", values, how)
    there = columns.present["v"]
    assert there.tolist() == [value is not None for value in values]
    if how == "codes":
        names = columns.header.labels["v"] if columns.header is not None else None
        assert names is not None
        found = [int(names[code]) for code in columns.labels["v"][there].tolist()]
    else:
        found = columns.labels["v"][there].tolist()
    assert found == [value for value in values if value is not None]


def test_too_many_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column, "MAX_LABELS", 3)
    with pytest.raises(UserError, match=r"^column 'v' lists 4 distinct labels, at most 3$"):
        alone(tmp_path / "t.csv", ["a|b", "c|d"], "lists")


def test_too_many_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column, "MAX_VALUES", 3)
    assert alone(tmp_path / "t.csv", list("abca"), "classes").labels["v"].tolist() == [0, 1, 2, 0]
    assert len(set(alone(tmp_path / "t.csv", list("abcd"), "codes").labels["v"].tolist())) == 4
    with pytest.raises(UserError, match=r"^column 'v' has more than 3 distinct values; is it an id"):
        alone(tmp_path / "t.csv", list("abcd"), "classes")


def test_a_column_in_two_roles_is_taken_in_both_ways(tmp_path: Path) -> None:
    """Classes 5 and 7 are the numbers of a label, and groups by name for the split."""
    file = as_csv(tmp_path / "t.csv", {"x": [0] * 3, "v": [7, None, 5]})
    columns = read(file, labels={"v": "classes"}, extra={"v": "codes"})
    assert columns.labels["v"].tolist() == [7, 0, 5]
    assert columns.extra["v"].tolist() == [1, -1, 0]
    assert columns.extra_names["v"] == ("5", "7")
    assert columns.header is not None
    assert columns.header.text == frozenset()


def test_ids_are_carried(tmp_path: Path) -> None:
    file = as_csv(tmp_path / "t.csv", {"x": [0] * 4, "v": [0, 1, 0, 1], "id": ["r9", "r10", "r9", "ä"]})
    columns = read(file, labels={"v": "classes"}, extra={"id": "codes"})
    names = columns.extra_names["id"]
    assert names == ("r10", "r9", "ä")
    assert [names[code] for code in columns.extra["id"].tolist()] == ["r9", "r10", "r9", "ä"]
    assert "id" not in columns.labels


# --- inputs ---


@pytest.mark.parametrize("name", WRITERS)
def test_the_input_row(name: str, tmp_path: Path) -> None:
    """Numbers, then vectors, then the codes of categories, 0 for a missing one."""
    vector: list[object] = ["[1, 2]", "[3, 4]", "[5, 6]"] if name == "t.csv" else [[1, 2], [3, 4], [5, 6]]
    file = WRITERS[name](
        tmp_path / name,
        {"c": ["b", None, "a"], "y": [0.25, None, -1], "v": vector, "x": [1, 2, 3], "d": [10, 9, 9]},
    )
    layout = Layout(("x", "y"), {"v": 2}, ("c", "d"), missing="mean")
    columns = read(file, inputs=layout)
    nan = np.nan
    np.testing.assert_array_equal(
        columns.inputs, [[1, 0.25, 1, 2, 2, 2], [2, nan, 3, 4, 0, 1], [3, -1, 5, 6, 1, 1]]
    )
    assert columns.inputs.dtype == np.float32
    assert columns.header is not None
    assert columns.header.layout is not None
    assert columns.header.layout.values == {"c": ("a", "b"), "d": ("9", "10")}
    assert columns.header.input_shape == (6,)


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([1, 2**24, 5], None),
        ([1, 2**24 + 1, 2**24 + 3], 1),
        ([0, 1, -(2**40) - 1], 2),
        (["16777217", "1", None], 0),
        ([None, 16777217.0, None], 1),
        ([1e30, 1e17 + 16, 3.3], None),
        ([2**24 + 0.5, 1, 2], None),
    ],
)
def test_whole_numbers_that_float32_cannot_hold(
    values: list[object], row: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One notice for each column, with the first row; not of quantities, which are rounded anyway."""
    monkeypatch.setattr(parquet, "ROWS", 2)
    file = as_parquet(tmp_path / "t.parquet", {"x": values, "y": [1, 2, 3]})
    notices = read(file, inputs=Layout(("x", "y"))).notices
    said = "float32 cannot hold this whole number exactly; is it an id rather than a quantity?"
    assert notices == (() if row is None else (f"t.parquet:row {row}, column 'x': {said}",))


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    file = as_csv(tmp_path / "t.csv", {"x": [1], "label": [1]})
    for wanted in ({"labels": {"labl": "classes"}}, {"extra": {"labl": "codes"}}):
        with pytest.raises(UserError) as caught:
            read(file, **wanted)  # type: ignore[arg-type]
        assert str(caught.value) == "t.csv: no column 'labl' (did you mean 'label'?); columns: x, label"


def test_inputs_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = as_csv(tmp_path / "t.csv", {"x": [0] * 5, "v": ["a", "b", "c", "d", "a"]})
    monkeypatch.setattr(memory, "available_memory", lambda: 169)
    with pytest.raises(
        EnvironmentFault, match=r"^t\.csv: 5 rows of 1 input take 170 bytes, 169 bytes are free"
    ):
        read(file)
    monkeypatch.setattr(memory, "available_memory", lambda: 269)
    said = r"^t\.csv: 5 rows of 1 input and 2 other columns take 270 bytes, 269 bytes are free"
    with pytest.raises(EnvironmentFault, match=said):
        read(file, labels={"v": "classes"}, extra={"x": "numbers"})
    less = iter((170, 19))
    monkeypatch.setattr(memory, "available_memory", lambda: next(less))
    with pytest.raises(
        EnvironmentFault, match=r"^the 4 labels of column 'v' take 20 bytes, 19 bytes are free"
    ):
        read(file, inputs=Layout(()), labels={"v": "lists"})


# --- several files ---


def test_files_of_splits(tmp_path: Path) -> None:
    """Rows of all files, one coding, splits, and places that name the file."""
    first = as_csv(tmp_path / "a.csv", {"x": [1, 2], "c": ["r", "g"], "v": ["p", "q"]})
    second = as_parquet(tmp_path / "b.parquet", {"extra": [0], "v": ["o"], "c": ["b"], "x": [3]})
    third = as_csv(tmp_path / "c.csv", {"v": ["q", None], "x": [4, 5], "c": ["r", None]})
    files = {"train": first, "validation": second, "test": third}
    columns = read(files, inputs=Layout(("x",), categorical=("c",)), labels={"v": "classes"})
    np.testing.assert_array_equal(columns.inputs, [[1, 3], [2, 2], [3, 1], [4, 3], [5, 0]])
    assert columns.labels["v"].tolist() == [1, 2, 0, 2, -1]
    assert {split: rows.tolist() for split, rows in columns.splits.items()} == {
        "train": [0, 1], "validation": [2], "test": [3, 4],
    }  # fmt: skip
    assert [columns.place(row) for row in range(5)] == [
        "a.csv:row 2", "a.csv:row 3", "b.parquet:row 0", "c.csv:row 2", "c.csv:row 3",
    ]  # fmt: skip


def test_a_single_file_gives_no_splits(tmp_path: Path) -> None:
    assert read(as_csv(tmp_path / "t.csv", {"x": [1]})).splits == {}


@pytest.mark.parametrize("name", WRITERS)
def test_a_further_file_that_lacks_a_column_or_rows(name: str, tmp_path: Path) -> None:
    first = as_csv(tmp_path / "a.csv", {"x": [1], "v": [0]})
    other = WRITERS[name](tmp_path / name, {"x": [1]})
    with pytest.raises(UserError, match=rf"^{name}: no column 'v', which a\.csv has$"):
        read({"train": first, "test": other})
    path = tmp_path / "b.csv"
    path.write_text("x,v\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"^b\.csv: no rows$"):
        read({"train": first, "test": TableFile(path)})


def test_the_fingerprint(tmp_path: Path) -> None:
    """Of bytes, of settings, and of what is read and how; not of where the file lies."""
    content = {"x": [1, 2], "v": [0, 1]}
    file = as_csv(tmp_path / "a.csv", content)
    base: dict[str, Any] = {"labels": {"v": "classes"}}
    same = as_csv(tmp_path / "b.csv", content)
    assert read(file, **base).fingerprint == read(same, **base).fingerprint
    other = as_csv(tmp_path / "c.csv", {"x": [1, 2], "v": [0, 2]})
    others = [
        read(other, **base),
        read(file, **base, settings="other"),
        read(file, labels={"v": "numbers"}),
        read(file, **base, extra={"x": "numbers"}),
        read({"train": file, "test": other}, **base),
        read({"train": file, "validation": other}, **base),
    ]
    digests = [read(file, **base).fingerprint, *(columns.fingerprint for columns in others)]
    assert len(set(digests)) == len(digests) == 7
    assert all(len(digest) == 64 for digest in digests)


# --- CSV and Parquet, small batches and large ---

CELL = st.one_of(
    st.none(),
    st.integers(-(2**40), 2**40),
    st.floats(-1e30, 1e30, allow_nan=False).map(lambda v: float(f"{v:.6g}")),
)
WORD = st.none() | st.text(st.sampled_from("ab|, \n\"'ä7"), min_size=1, max_size=4)


def assert_same(a: Columns, b: Columns) -> None:
    np.testing.assert_array_equal(a.inputs, b.inputs)
    for one, other in ((a.labels, b.labels), (a.present, b.present), (a.extra, b.extra)):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype
    assert a.header == b.header
    assert a.extra_names == b.extra_names


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(CELL, WORD, WORD, st.booleans()), min_size=1, max_size=9),
    batch=st.integers(1, 4),
)
def test_the_same_table_as_csv_and_as_parquet(
    rows: list[tuple[float | None, str | None, str | None, bool]],
    batch: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    numbers, words, tags, flags = (list(column) for column in zip(*rows, strict=True))
    floats = [None if v is None else float(v) for v in numbers]
    columns: Table = {"x": floats, "w": words, "t": tags, "f": [str(flag).lower() for flag in flags]}
    asked: dict[str, Any] = {
        "inputs": Layout(("x",), categorical=("w",), missing="mean"),
        "labels": {"w": "classes", "t": "lists", "f": "classes"},
        "extra": {"x": "numbers", "t": "codes"},
        "empty": {"t": "missing"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROWS", batch)
        from_parquet = read(as_parquet(folder / "t.parquet", columns | {"f": flags}), **asked)
    assert_same(read(as_csv(folder / "t.csv", columns), **asked), from_parquet)


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n = 500
    columns: Table = {
        "x": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)).tolist(),
        "c": [f"city {c}" for c in rng.integers(0, 30, n)],
        "w": np.where(rng.random(n) < 0.5, 1.0, 1.5).tolist(),
    }
    asked: dict[str, Any] = {
        "inputs": Layout(("x",), categorical=("c",), missing="mean"),
        "labels": {"w": "classes", "c": "lists"},
    }
    file = as_parquet(tmp_path / "t.parquet", columns)
    whole = read(file, **asked)
    for batch in (1, 7, 499):
        monkeypatch.setattr(parquet, "ROWS", batch)
        assert_same(read(file, **asked), whole)


def test_reading_holds_no_copies_of_the_table(tmp_path: Path) -> None:
    """Beside the float32 matrix: a byte for each of 40 labels, and the batch that is read."""
    n, k = 40_000, 40
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, k)).astype(np.float32)
    labels = {f"y{i}": rng.integers(0, 5, n).astype(np.int8) for i in range(k)}
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({**{f"x{i}": x[:, i] for i in range(k)}, **labels}), path, row_group_size=4096)
    layout = Layout(tuple(f"x{i}" for i in range(k)))
    wanted: dict[str, How] = dict.fromkeys(labels, "classes")
    tracemalloc.start()
    try:
        columns = read(TableFile(path), inputs=layout, labels=wanted)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(columns.inputs, x)
    matrix, coded, batch = n * k * 4, n * k, 16_384 * 8
    assert peak < 1.1 * (matrix + coded) + 4 * batch


# --- headers ---


def test_width_of_vectors(tmp_path: Path) -> None:
    assert vector_width(as_csv(tmp_path / "t.csv", {"v": ["[1, 2, 3]", "oops"]}), "v") == 3
    assert vector_width(as_parquet(tmp_path / "t.parquet", {"v": [[1.0], [2.0]]}), "v") == 1
    with pytest.raises(UserError, match=r"^t\.csv:row 2, column 'v': 'oops' is not a list of numbers"):
        vector_width(as_csv(tmp_path / "t.csv", {"v": ["oops"]}), "v")


@pytest.mark.parametrize("name", WRITERS)
def test_vectors_of_an_empty_table(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "t.csv":
        path.write_text("v\n", encoding="utf-8")
    else:
        pq.write_table(pa.table({"v": pa.array([], pa.list_(pa.float32()))}), path)
    with pytest.raises(UserError, match=rf"^{name}: no rows$"):
        vector_width(TableFile(path), "v")


def test_a_csv_of_200_000_rows_is_read_in_seconds(tmp_path: Path) -> None:
    """4 million cells; measured: 1.4 s of one core."""
    from time import process_time

    n, k = 200_000, 20
    line = ",".join(f"{i}.5" for i in range(k - 1))
    body = "".join(f"{line},{i % 7}\n" for i in range(n))
    (tmp_path / "t.csv").write_text(",".join(f"x{i}" for i in range(k)) + "\n" + body, encoding="utf-8")
    began = process_time()
    columns = read(
        TableFile(tmp_path / "t.csv"),
        inputs=Layout(tuple(f"x{i}" for i in range(k - 1))),
        labels={f"x{k - 1}": "classes"},
    )
    assert process_time() - began < 10
    assert columns.inputs.shape == (n, k - 1)
    assert columns.inputs.sum(0).tolist() == [n * (i + 0.5) for i in range(k - 1)]
    assert all(b == (a + 1) % 7 for a, b in pairwise(columns.labels[f"x{k - 1}"][:50].tolist()))


# --- times ---

DAY = "2024-03-01"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([*["7"] * 40, DAY], f"t.csv:row 42, column 'when': '{DAY}' is not a number; "),
        ([*[""] * 40, *["7"] * 40, DAY], f"t.csv:row 82, column 'when': '{DAY}' is not a number; "),
        ([*[DAY] * 40, "7"], "t.csv:row 42, column 'when': '7' is no date such as 2024-03-01 or "),
    ],
    ids=["numbers and then a date", "nothing, numbers and then a date", "dates and then a number"],
)
def test_times_are_numbers_or_dates_throughout(
    values: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # D27
    monkeypatch.setattr("mtl.data.files.formats.csv.BLOCK", 64)
    file = as_csv(tmp_path / "t.csv", {"x": range(len(values)), "when": values})
    with pytest.raises(UserError) as caught:
        read(file, extra={"when": "times"})
    assert str(caught.value).startswith(text)


def test_a_date_without_hyphens_is_one_among_dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.data.files.formats.csv.BLOCK", 64)
    values = [*[DAY] * 40, *["20240302"] * 40]
    found = read(as_csv(tmp_path / "t.csv", {"x": range(80), "when": values}), extra={"when": "times"})
    np.testing.assert_array_equal(found.extra["when"], [1_709_251_200.0] * 40 + [1_709_337_600.0] * 40)


@pytest.mark.parametrize(
    ("train", "test", "text"),
    [
        (
            [1, 2],
            [date(2024, 3, 1)] * 2,
            "test.parquet:row 0, column 'when': holds date32 values, not numbers",
        ),
        (
            [date(2024, 3, 1)] * 2,
            [1, 2],
            "test.parquet:row 0, column 'when': holds integer values, where the rows before hold dates",
        ),
    ],
)
def test_another_file_holds_times_as_the_first_does(
    train: list[object], test: list[object], text: str, tmp_path: Path
) -> None:
    files = {
        name: as_parquet(tmp_path / f"{name}.parquet", {"x": [1, 2], "when": values})
        for name, values in {"train": train, "test": test}.items()
    }
    with pytest.raises(UserError) as caught:
        read(files, extra={"when": "times"})
    assert str(caught.value) == text
