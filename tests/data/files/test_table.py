from __future__ import annotations

import csv
import hashlib
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data.files.column_types import is_bytes, is_list, is_text, type_name
from mtl.data.files.formats import csv as csv_form
from mtl.data.files.formats import parquet
from mtl.data.files.table import TableFile
from mtl.errors import UserError


def csv_file(folder: Path, content: str | bytes, name: str = "t.csv", **options: object) -> TableFile:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TableFile(path, **options)  # type: ignore[arg-type]


def parquet_file(folder: Path, columns: pa.Table | dict[str, object], **options: object) -> TableFile:
    path = folder / "t.parquet"
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
    return TableFile(path, **options)  # type: ignore[arg-type]


def values(file: TableFile, columns: Sequence[str] | None = None) -> dict[str, list[object]]:
    """All rows, and that batches are numbered by their first."""
    names = file.column_names if columns is None else columns
    found: dict[str, list[object]] = {name: [] for name in names}
    n = 0
    for first, batch in file.batches(names):
        assert first == n
        assert tuple(batch.schema.names) == tuple(names)
        for name in names:
            found[name].extend(batch.column(name).to_pylist())
        n += batch.num_rows
    assert n == file.n_rows
    return found


# --- the form of a file ---


@pytest.mark.parametrize(
    ("name", "content", "delimiter"),
    [
        ("t.csv", "a,b\n1,2\n", None),
        ("T.CSV", "a,b\n1,2\n", None),
        ("t.txt", "a,b\n1,2\n", None),
        ("t.tsv", "a\tb\n1\t2\n", None),
        ("t.TSV", "a\tb\n1\t2\n", None),
        ("t.tsv", "a;b\n1;2\n", ";"),
        ("t.csv", "a\tb\n1\t2\n", "\t"),
        ("t.csv", "a|b\n1|2\n", "|"),
        ("t.csv", "a:b\n1:2\n", ":"),
        ("t.csv", "a b\n1 2\n", " "),
        ("t.csv", "\ufeffa,b\r\n\r\n1,2\r\n", None),
    ],
)
def test_forms(name: str, content: str, delimiter: str | None, tmp_path: Path) -> None:
    file = csv_file(tmp_path, content, name, delimiter=delimiter)
    assert values(file) == {"a": ["1"], "b": ["2"]}
    assert file.types == {"a": "text", "b": "text"}
    assert file.sha256() == hashlib.sha256(content.encode()).hexdigest()
    assert [file.row(0), file.row(9), file.name] == [f"{name}:row 2", f"{name}:row 11", name]


@pytest.mark.parametrize("name", ["t.parquet", "t.pq", "t.PARQUET"])
def test_parquet(name: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a.b": [1, 2], "a": [{"b": 5}, {"b": 6}], "c": ["x", None]}), tmp_path / name)
    file = TableFile(tmp_path / name, name="mine")
    file.check()
    assert file.types == {"a.b": "integer", "a": "other", "c": "text"}
    assert values(file, ["c", "a.b"]) == {"c": ["x", None], "a.b": [1, 2]}
    assert file.sha256() == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert file.row(3) == "mine:row 3"
    assert file.where("c\n", 3) == "mine:row 3, column 'c\\n'"


@pytest.mark.parametrize("batch", [1, 7, 16_384])
def test_batches_of_parquet(batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS", batch)
    file = parquet_file(tmp_path, {"a": list(range(30)), "t": [str(i) for i in range(30)]})
    assert values(file, ["t"]) == {"t": [str(i) for i in range(30)]}
    assert len(list(file.batches(["a"]))) == -(-30 // batch)


def test_blocks_of_a_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quoted line end or a wide character at the edge of a block changes nothing."""
    monkeypatch.setattr(csv_form, "BLOCK", 64)
    rows = [[str(i), 'ä"\n' * (i % 4)] for i in range(200)]
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["i", "t"], *rows])
    file = TableFile(tmp_path / "t.csv", na_values=[])
    assert len(list(file.batches(["i"]))) > 10
    assert values(file) == {"i": [row[0] for row in rows], "t": [row[1] for row in rows]}


def test_rows_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_form, "BLOCK", 16)
    rows = [[str(i), "x\n" * 300 * (i % 3)] for i in range(30)]
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["i", "t" * 200], *rows])
    file = TableFile(tmp_path / "t.csv", na_values=[])
    assert values(file) == {"i": [row[0] for row in rows], "t" * 200: [row[1] for row in rows]}


# --- missing values ---


@pytest.mark.parametrize(
    ("na_values", "expected"),
    [
        ([""], [None, "NA", "null", "?", " ", "nan"]),
        (["", "NA", "?"], [None, None, "null", None, " ", "nan"]),
        ([" "], ["", "NA", "null", "?", None, "nan"]),
        ([], ["", "NA", "null", "?", " ", "nan"]),
    ],
)
@pytest.mark.parametrize("form", ["csv", "quoted", "string", "large_string", "string_view", "dictionary"])
def test_na_values(form: str, na_values: list[str], expected: list[object], tmp_path: Path) -> None:
    """The same in every form of text."""
    texts = ["", "NA", "null", "?", " ", "nan"]
    if form in ("csv", "quoted"):
        mark = '"' if form == "quoted" else ""
        content = "t,n\n" + "".join(f"{mark}{text}{mark},1\n" for text in texts)
        file = csv_file(tmp_path, content, na_values=na_values)
    else:
        array = pa.array(texts)
        array = array.dictionary_encode() if form == "dictionary" else array.cast(getattr(pa, form)())
        file = parquet_file(tmp_path, {"t": array, "n": [1] * 6}, na_values=na_values)
    assert values(file) == {"t": expected, "n": ["1"] * 6 if form in ("csv", "quoted") else [1] * 6}


# --- faults ---

CHANGED = "was changed while it was read; start again once it is whole"


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "label,x\n1,2\n")
    file.require(["x", "label"])
    with pytest.raises(UserError) as caught:
        file.require(["x", "labl"])
    assert str(caught.value) == "t.csv: no column 'labl' (did you mean 'label'?); columns: label, x"
    with pytest.raises(UserError, match=r"^t\.csv: no column 'y'; columns: label, x$"):
        list(file.batches(["y"]))


def test_names_of_columns_are_shown_in_one_line(tmp_path: Path) -> None:
    names = ["a\nb", "c" * 41, *(f"n{i}" for i in range(30))]
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([names, range(32)])
    shown = TableFile(tmp_path / "t.csv").lacks("zz")
    assert shown.isprintable()
    assert shown == (
        "no column 'zz'; columns: 'a\\nb', '"
        + "c" * 35
        + "...', "
        + ", ".join(f"n{i}" for i in range(18))
        + ", ..."
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_that_grows_while_it_is_read(suffix: str, tmp_path: Path) -> None:
    """The rows of a batch go into arrays of the size that was counted."""
    file = csv_file(tmp_path, "a\n1\n2\n") if suffix == ".csv" else parquet_file(tmp_path, {"a": [1, 2]})
    assert file.n_rows == 2
    what = "2 rows when it was checked, 3 now; was it written meanwhile?"
    if suffix == ".csv":
        csv_file(tmp_path, "a\n1\n2\n3\n")
    else:
        parquet_file(tmp_path, {"a": [1, 2, 3]})
        what = CHANGED  # the footer, read once, still says two
    with pytest.raises(UserError) as caught:
        list(file.batches(["a"]))
    assert str(caught.value) == f"t{suffix}: {what}"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_whose_values_change_while_it_is_read(suffix: str, tmp_path: Path) -> None:
    """What was checked, what was hashed and what is parsed is one file, whose size may have stayed."""
    file = csv_file(tmp_path, "a\n1\n2\n") if suffix == ".csv" else parquet_file(tmp_path, {"a": [1, 2]})
    file.check()
    data = file.path.read_bytes()
    file.path.write_bytes(data.replace(b"2", b"3") if suffix == ".csv" else data)
    os.utime(file.path, (1, 1))
    for read in (file.sha256, lambda: list(file.batches(["a"]))):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value) == f"t{suffix}: {CHANGED}"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_first_row(suffix: str, tmp_path: Path) -> None:
    """As the first of all rows, in any order of columns, and of no rows at all an error."""
    columns = {"t": ["NA", "x"], "a.b": ["1", "2"]}
    for rows in (2, 0):
        part = {name: pa.array(values[:rows], pa.string()) for name, values in columns.items()}
        if suffix == ".csv":
            lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
            file = csv_file(tmp_path, "\n".join(lines[: rows + 1]), na_values=["NA"])
        else:
            file = parquet_file(tmp_path, pa.table(part), na_values=["NA"])
        if rows:
            assert file.first_row(["a.b", "t"]).to_pydict() == {"a.b": ["1"], "t": [None]}
            with pytest.raises(UserError, match="no column 'a'"):
                file.first_row(["a"])
        else:
            with pytest.raises(UserError, match=rf"^t{suffix}: no rows$"):
                file.first_row(["t"])


def test_a_file_that_is_spoilt_while_it_is_read(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "a,b\n1,2\n")
    file.check()
    csv_file(tmp_path, "a,b\n1,2,3\n")
    with pytest.raises(
        UserError,
        match=r"^t\.csv: cannot be read as CSV \(CSV parse error: Row #2: Expected 2 columns, got 3",
    ):
        list(file.batches(["a"]))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(), "permission denied"),
        (OSError("Input/output error"), "cannot be opened: Input/output error"),
    ],
)
def test_a_file_that_cannot_be_opened(
    error: OSError, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv_file(tmp_path, "a\n1\n").path

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(UserError) as caught:
        TableFile(path)
    assert str(caught.value) == f"{path}: path: {message}"


def test_a_path_that_the_system_does_not_take() -> None:
    with pytest.raises(UserError, match=r"cannot be opened: .*null byte"):
        TableFile(Path("a\0.csv"))


def test_no_such_file_in_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/t\.csv: path: no such file$"):
        TableFile(tmp_path / "nowhere" / "t.csv")


def test_the_name_of_a_column_that_is_no_text(tmp_path: Path) -> None:
    file = parquet_file(tmp_path, {"column_a": [1]})
    file.path.write_bytes(file.path.read_bytes().replace(b"column_a", b"column_\xff"))
    with pytest.raises(
        UserError, match=r"^t\.parquet: (the name of a column is not UTF-8 text|is not a Parquet file)"
    ):
        TableFile(file.path).check()


# --- types ---

TYPES: list[tuple[pa.DataType, str]] = [
    (pa.string(), "text"), (pa.large_string(), "text"), (pa.string_view(), "text"), (pa.binary(), "text"),
    (pa.binary(3), "text"), (pa.null(), "text"), (pa.time32("s"), "text"), (pa.time64("ns"), "text"),
    (pa.uint8(), "integer"), (pa.int64(), "integer"), (pa.bool_(), "boolean"), (pa.float16(), "number"),
    (pa.float64(), "number"), (pa.decimal128(5, 2), "number"), (pa.decimal256(50, 2), "number"),
    (pa.list_(pa.int8()), "list"), (pa.large_list(pa.int8()), "list"), (pa.list_(pa.int8(), 3), "list"),
    (pa.date32(), "time"), (pa.date64(), "time"), (pa.timestamp("ns", "Europe/Berlin"), "time"),
    (pa.struct({"a": pa.int8()}), "other"), (pa.map_(pa.string(), pa.int8()), "other"), (pa.duration("s"), "other"),
    (pa.dictionary(pa.int8(), pa.string()), "text"), (pa.dictionary(pa.int8(), pa.int64()), "integer"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), TYPES, ids=str)
def test_type_name(kind: pa.DataType, name: str) -> None:
    assert type_name(kind) == name


def test_kinds_exclude_each_other() -> None:
    for kind, _ in TYPES:
        assert is_text(kind) + is_bytes(kind) + is_list(kind) <= 1


# --- properties ---

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    mark=st.booleans(),
)
def test_a_csv_reads_back_as_it_was_written(
    rows: list[list[str]],
    delimiter: str,
    ends: str,
    quoting: int,
    mark: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if quoting == csv.QUOTE_MINIMAL:  # which leaves a CR alone without quotes, so that it ends a line
        rows = [[text.replace("\r", "\r\n") for text in row] for row in rows]
    path = tmp_path_factory.getbasetemp() / "back.csv"
    with path.open("w", encoding="utf-8-sig" if mark else "utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator=ends, quoting=quoting)  # type: ignore[arg-type]
        writer.writerows([["a", "b", "c"], *rows])
    file = TableFile(path, delimiter=delimiter, na_values=[])
    assert values(file, ["c", "a"]) == {"c": [row[2] for row in rows], "a": [row[0] for row in rows]}


SOUND = 'id,x,"name, long",label\r\n' + "".join(
    f'{i},{i / 7},"a ""{i}"", b\nc",{"ä" * (i % 3)}\r\n' for i in range(12)
)
JUNK = b'"",,\n\r;\t\0\xff\xc3a1 \xef\xbb\xbf'


def mutated(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at, what = draw.randrange(len(data) + 1), draw.randrange(4)
        if what == 0:
            data[at : at + 1] = bytes([draw.randrange(256)])
        elif what == 1:
            del data[at : at + draw.randint(1, 9)]
        elif what == 2:
            data[at:at] = bytes(draw.choices(JUNK, k=draw.randint(1, 3)))
        else:
            data[at:at] = data[at : at + draw.randint(1, 30)]
    return bytes(data)


def read_all(path: Path) -> bool:
    """Whether a file can be read; anything but a UserError comes through."""
    refusal = ""
    try:
        file = TableFile(path)
        file.check()
        values(file)
    except UserError as error:
        refusal = str(error)
    assert refusal.isprintable()
    return not refusal


def test_damaged_csv(tmp_path: Path) -> None:
    draw, read = random.Random(0), 0
    path = tmp_path / "t.csv"
    for _ in range(600):
        path.write_bytes(mutated(SOUND.encode(), draw))
        read += read_all(path)
    assert 50 < read < 550


def test_damaged_parquet(tmp_path: Path) -> None:
    """The same of Parquet, whose pages have checksums of neither kind."""
    draw, read = random.Random(0), 0
    rng = np.random.default_rng(0)
    sound = {
        "x": rng.normal(size=50),
        "t": [f"text {i}" for i in range(50)],
        "l": [[i, i] for i in range(50)],
    }
    content = parquet_file(tmp_path, sound).path.read_bytes()
    path = tmp_path / "u.parquet"
    for _ in range(300):
        data = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(4, len(data))] = draw.randrange(256)
        path.write_bytes(data)
        read += read_all(path)
    assert 10 < read < 290


def test_the_time_of_a_batch_grows_with_its_columns(tmp_path: Path) -> None:
    """8 times as many columns take 17 times as long; if each column copied all others, it would be 56 times."""

    def seconds(n_columns: int) -> float:
        names = [f"c{i}" for i in range(n_columns)]
        path = tmp_path / f"{n_columns}.csv"
        path.write_text(
            "\n".join([",".join(names), *[",".join("1" * n_columns)] * 3]) + "\n", encoding="utf-8"
        )
        table = TableFile(path)
        table.check()
        taken = []
        for _ in range(5):
            began = time.process_time()
            assert sum(batch.num_rows for _, batch in table.batches(names)) == 3
            taken.append(time.process_time() - began)
        return min(taken)

    assert seconds(4000) < 35 * seconds(500)


def test_a_column_that_is_asked_for_is_not_proposed_for_another(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x08,y\n1,2\n")
    file = TableFile(tmp_path / "t.csv")
    for asked, near in ((["x08", "x09"], ""), (["x09"], " (did you mean 'x08'?)")):
        with pytest.raises(UserError) as caught:
            file.require(asked)
        assert str(caught.value) == f"t.csv: no column 'x09'{near}; columns: x08, y"
    with pytest.raises(UserError) as caught:
        file.require([f"y{i}" for i in range(12)])
    assert str(caught.value).endswith(", 'y9' and 2 more; columns: x08, y")
