from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data.files.formats import csv_structure as csv_check
from mtl.data.files.formats.csv_structure import (
    FIELD_LIMIT,
    OTHER_ENCODING,
    check_csv,
    first_row,
    read_header,
    refuse_twice,
)
from mtl.data.files.opening import OpenFile
from mtl.data.files.table import TableFile
from mtl.errors import UserError


def written(folder: Path, content: bytes) -> OpenFile:
    path = folder / "t.csv"
    path.write_bytes(content)
    return OpenFile(path)


def fault(folder: Path, content: bytes, delimiter: str = ",") -> str:
    with pytest.raises(UserError) as caught:
        check_csv(written(folder, content), "t.csv", delimiter)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "delimiter", "names"),
    [
        (b"a,b\n", ",", ("a", "b")),
        (b"a,b", ",", ("a", "b")),
        (b"a,b\r\n1,2\r\n", ",", ("a", "b")),
        (b"\xef\xbb\xbfa,b\n", ",", ("a", "b")),
        (b'\xef\xbb\xbf"a",b\n', ",", ("a", "b")),
        (b'\n\r\n"a,\n""b""",c\n', ",", ('a,\n"b"', "c")),
        (b"a\tb,c\n", "\t", ("a", "b,c")),
        (b"a;b,c\n", ";", ("a", "b,c")),
        (b"a;b,c\n", ",", ("a;b", "c")),
        (b'"a,b"\n', ",", ("a,b",)),
        ("größe,Ⅷ\n".encode(), ",", ("größe", "Ⅷ")),
        (b"only\n", ",", ("only",)),
    ],
)
def test_header(content: bytes, delimiter: str, names: tuple[str, ...], tmp_path: Path) -> None:
    assert read_header(written(tmp_path, content), "t.csv", delimiter) == names


def test_the_first_row_alone_is_read(tmp_path: Path) -> None:
    assert first_row(written(tmp_path, b'\na,b\n\n"1,\n",2\n\xff'), "t.csv", ",") == ["1,\n", "2"]
    assert first_row(written(tmp_path, b"a,b\n\n"), "t.csv", ",") is None
    for content, message in {
        b"a,b\n1\n": "t.csv:row 2: 1 field, header has 2; a value that holds the delimiter must stand in quotes",
        b"a,a\n1,2\n": "t.csv: column 'a' appears twice; rename one of them",
    }.items():
        with pytest.raises(UserError) as caught:
            first_row(written(tmp_path, content), "t.csv", ",")
        assert str(caught.value) == message


def test_the_header_alone_is_read(tmp_path: Path) -> None:
    """A file of 100 GB is not read to name its columns; what is wrong below them is found later."""
    path = written(tmp_path, b"a,b\n1,2\n\xff")
    assert read_header(path, "t.csv", ",") == ("a", "b")
    with pytest.raises(UserError, match=r"^t\.csv:row 3: not UTF-8 text \(byte 0xff\)"):
        check_csv(path, "t.csv", ",")


@pytest.mark.parametrize(
    ("content", "n_rows"),
    [
        (b"a,b\n1,2\n", 1),
        (b"a,b\n1,2", 1),
        (b"a,b\r\n1,2\r\n3,4\r\n", 2),
        (b"a,b\r\r\n1,2\r\r\n", 1),
        (b"\n\na,b\n\n1,2\n\n\n3,4\n\n", 2),
        (b'a,b\n"1\n\n1",2\n"3""",4\n', 2),
        (b'a,b\nx"y,2\n "x",z"\n', 2),
        (b'a\n""\n1\n\n', 2),
        (b"a\n  \n1\n", 2),
        ("a,b\n\u2028,\x85\n\x1c,\x0b\n".encode(), 2),
    ],
)
def test_rows_are_counted(content: bytes, n_rows: int, tmp_path: Path) -> None:
    assert check_csv(written(tmp_path, content), "t.csv", ",").n_rows == n_rows


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b",a,b\n0,1,2\n1,3,4\n", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        (b"\xef\xbb\xbf,a\r\n7,x\r\n5,y\r\n", [{"a": "x"}, {"a": "y"}]),
        (b'\n,"a\nb",c\n\n0,1,2\n', [{"a\nb": "1", "c": "2"}]),
    ],
)
def test_the_index_that_pandas_writes_is_no_column(
    content: bytes, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    """`frame.to_csv(path)` gives a first column without a name: the numbers of the rows."""
    path, names = written(tmp_path, content), tuple(rows[0])
    assert read_header(path, "t.csv", ",") == names
    assert check_csv(path, "t.csv", ",").n_rows == len(rows)
    table = TableFile(tmp_path / "t.csv")
    assert [row for _, batch in table.batches(names) for row in batch.to_pylist()] == rows
    assert table.first_row(names).to_pylist() == rows[:1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b",a\n0.5,1\n", "t.csv: column 1 has no name; give every column of the first row a name"),
        (b",a\n", "t.csv: column 1 has no name; give every column of the first row a name"),
        (b",a,\n0,1,2\n", "t.csv: column 1 has no name; give every column of the first row a name"),
        (b",a\n0,1\n1\n", "t.csv:row 3: 1 field, header has 2; a value that holds the delimiter must stand in quotes"),
        (b",a\n0\n", "t.csv:row 2: 1 field, header has 2; a value that holds the delimiter must stand in quotes"),
        (b"", "t.csv: no rows: the file is empty"),
        (b"\n\r\n", "t.csv: no rows: the file is empty"),
        (b"a,b\n\n", "t.csv: no rows"),
        (b"a,b,a\n1,2,3\n", "t.csv: column 'a' appears twice; rename one of them"),
        (b"a,,b\n1,2,3\n", "t.csv: column 2 has no name; give every column of the first row a name"),
        (
            b"a|b\n1|2\n",
            "t.csv: one column 'a|b' found; the file seems to use '|'; write delimiter: '|' in data.source",
        ),
        (
            b"a,b\n1,2\n3\n",
            "t.csv:row 3: 1 field, header has 2; a value that holds the delimiter must stand in quotes",
        ),
        (b'a,b\n1,2\n3,"4', "t.csv:row 3: quote is never closed"),
        (b'a,b\n1,2\n3,"4" \n', "t.csv:row 3: text follows a closing quote; write a quote inside a quoted "
         "value twice"),
        (b"a,b\n1,2\n3,\0\n", "t.csv:row 3: holds a NUL byte; is it a text file?"),
        (b"a,b\n1,2\n3,\xe9\n", "t.csv:row 3: not UTF-8 text (byte 0xe9); " + OTHER_ENCODING),
        (b'a,b\n1,2\n3,"\n\n\n\xe9"\n', "t.csv:row 3: not UTF-8 text (byte 0xe9); " + OTHER_ENCODING),
        (b"a,b\n1,2\n3,4\r5,6\n", "t.csv:row 3: a line ends in CR alone; save the file with LF or CRLF at the end "
         "of lines"),
        (b"a,b\n1,2\n3,\xed\xa0\x80\n", "t.csv:row 3: not UTF-8 text (byte 0xed); " + OTHER_ENCODING),
        (b"\xfe\xff\0a\0,\0b",
         "t.csv:row 1: not UTF-8 text (byte 0xfe); it is UTF-16: write encoding: utf-16 in data.source"),
        (b"PAR1\x15\x04\0", "t.csv:row 1: holds a NUL byte; it is a Parquet file: name it .parquet"),
    ],
)  # fmt: skip
def test_faults(content: bytes, message: str, tmp_path: Path) -> None:
    assert fault(tmp_path, content) == message


def test_a_first_line_like_another_format_below_the_header_is_text(tmp_path: Path) -> None:
    assert fault(tmp_path, b"a\nb\nPAR1\xff\n").endswith("" + OTHER_ENCODING)


def test_the_longest_field(tmp_path: Path) -> None:
    longest = "ä" * FIELD_LIMIT
    assert check_csv(written(tmp_path, f"a,b\n1,{longest}\n".encode()), "t.csv", ",").n_rows == 1
    message = "a field is longer than 131072 characters; maybe a quote is never closed"
    assert fault(tmp_path, f"a,b\n1,2\n1,{longest}ä\n".encode()) == f"t.csv:row 3: {message}"
    assert fault(tmp_path, f"a,{longest}ä\n".encode()) == f"t.csv:row 1: {message}"


def test_a_file_without_line_ends_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_check, "LINE_LIMIT", 10)
    assert check_csv(written(tmp_path, b"a,b\n345678,01\n"), "t.csv", ",").n_rows == 1
    assert fault(tmp_path, b"a,b\n345678,012\n") == "t.csv:row 2: the line is longer than 10 bytes"


@pytest.mark.parametrize("content", [b"a\n1\n", b'a\n"1'])
def test_the_limit_of_the_csv_module_is_put_back(content: bytes, tmp_path: Path) -> None:
    before = csv.field_size_limit(77_777)
    try:
        if content.endswith(b"\n"):
            check_csv(written(tmp_path, content), "t.csv", ",")
        else:
            fault(tmp_path, content)
        assert csv.field_size_limit() == 77_777
    finally:
        csv.field_size_limit(before)


def test_digest_of_a_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    assert written(tmp_path, content).sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("names", [["a", "b", "a", "b"], ["c", "b", "B", "b"]])
def test_refuse_twice(names: Sequence[str]) -> None:
    first = next(name for name in names if names.count(name) > 1)
    with pytest.raises(UserError, match=rf"^f\.csv: column '{first}' appears twice; rename one of them$"):
        refuse_twice(names, "f.csv")
    refuse_twice(["a", "A", "b"], "f.csv")


def test_a_name_that_appears_twice_among_very_many() -> None:
    names = [f"c{i}" for i in range(100_000)] + ["c99999"]
    began = time.process_time()
    with pytest.raises(UserError, match="column 'c99999' appears twice"):
        refuse_twice(names, "f.csv")
    assert time.process_time() - began < 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.lists(st.text(st.sampled_from('a,"\n\r; ')), max_size=3), min_size=1, max_size=5),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_rows_counted_as_the_csv_module_does(
    rows: list[list[str]], ends: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ragged rows of awkward text: sound if and only if all rows are as wide as the first."""
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator=ends, quoting=csv.QUOTE_ALL).writerows([["h", "i"], *rows])
    path = written(tmp_path_factory.getbasetemp(), stream.getvalue().encode())
    full = [row for row in rows if row]
    ragged = next((i for i, row in enumerate(full) if len(row) != 2), None)
    if full and ragged is None:
        assert check_csv(path, "t.csv", ",").n_rows == len(full)
        return
    with pytest.raises(UserError) as caught:
        check_csv(path, "t.csv", ",")
    if ragged is None:
        assert str(caught.value) == "t.csv: no rows"
    else:
        fields = "1 field" if len(full[ragged]) == 1 else f"{len(full[ragged])} fields"
        assert str(caught.value).startswith(f"t.csv:row {ragged + 2}: {fields}, header has 2")
