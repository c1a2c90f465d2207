"""Tables in other encodings than UTF-8 read as their UTF-8 copies do."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from mtl.data.files.formats import encoding as encodings
from mtl.data.files.formats.encoding import Encoding
from mtl.data.files.table import TableFile
from mtl.errors import UserError

TEXT = 'id,name\r\n1,"a\nb"\r\n2,plain\r\n'


def cells(file: TableFile) -> list[dict[str, str]]:
    file.check()
    return [row for _, batch in file.batches(file.column_names) for row in batch.to_pylist()]


@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_every_encoding(encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "BUFFER", 5)  # characters are cut between two reads
    special = {
        "latin-1": "Zürich", "utf-8": "Zürich €", "utf-16": "Zürich € 🙂", "cp1252": "Zürich €", "cp1251": "Цюрих",
        "shift-jis": "東京", "cp932": "東京", "gb18030": "北京",
    }.get(encoding, "x")  # fmt: skip
    text = TEXT.replace("plain", special)
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    file = TableFile(path, encoding=encoding)
    assert file.column_names == ("id", "name")
    assert cells(file) == [{"id": "1", "name": "a\nb"}, {"id": "2", "name": special}]
    assert file.first_row(["name"]).to_pydict() == {"name": ["a\nb"]}


def test_a_byte_that_the_encoding_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"id,name\n" + b"1,a\n" * 9 + b"2,\x81\n")
    with pytest.raises(
        UserError, match=r"^t\.csv:line 11: not cp1252 text \(byte 0x81\); name its encoding in data"
    ):
        TableFile(path, encoding="cp1252").check()


@pytest.mark.parametrize("start", [b"\xff\xfe", b""])
def test_utf_16_without_a_mark_is_little_endian(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(start + "n,ä\n1,🙂\n".encode("utf-16-le"))
    table = TableFile(tmp_path / "t.csv", encoding="utf-16")
    assert [batch.to_pylist() for _, batch in table.batches(("n", "ä"))] == [[{"n": "1", "ä": "🙂"}]]
    (tmp_path / "t.csv").write_bytes(start + "n,a\n1,2\n".encode("utf-16-le") + b"x")
    with pytest.raises(UserError, match=r"^t\.csv:line 3: not utf-16 text \(byte 0x78\)"):
        TableFile(tmp_path / "t.csv", encoding="utf-16").check()


@pytest.mark.parametrize(
    ("content", "todo"),
    [
        ("n,ä\n1,2\n".encode("cp1252"), "such as encoding: cp1252, or save it as UTF-8"),
        ("n,ä\n1,2\n".encode("utf-16"), "it is UTF-16: write encoding: utf-16 in data.source"),
    ],
)  # fmt: skip
def test_the_remedy_of_a_file_that_is_not_utf8(content: bytes, todo: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError) as caught:
        TableFile(tmp_path / "t.csv").check()
    assert str(caught.value).endswith(todo)
