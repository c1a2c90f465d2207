"""The encoding and the delimiter of a CSV are found in its bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl.starter.look.opening import opening_of

TEXT = "stadt,größe\nZürich,1.5\nBâle,2.5\n"
FILES: dict[str, tuple[bytes, str, str | None, str]] = {
    "ASCII": (b"a,b\n1,2\n", "utf-8", None, ""),
    "UTF-8": (TEXT.encode(), "utf-8", None, ""),
    "UTF-8 with a mark": (TEXT.encode("utf-8-sig"), "utf-8", None, ""),
    "UTF-16": (TEXT.encode("utf-16"), "utf-16", None, ""),
    "UTF-16 of big ends": (b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-16", None, ""),
    "UTF-16 without a mark": (
        TEXT.encode("utf-16-le"), "utf-16", None, "each second byte is 0, so that the file is read as UTF-16",
    ),
    "Western": (
        TEXT.encode("cp1252"), "cp1252", None,
        "the file is not UTF-8 and is read as cp1252; if 'größe' looks wrong, write another encoding",
    ),
    "Western with a semicolon and a euro": (
        TEXT.replace(",", ";").replace("1.5", "€").encode("cp1252"), "cp1252", ";",
        "the file is not UTF-8 and is read as cp1252; if 'größe' looks wrong, write another encoding",
    ),
    "bytes that cp1252 lacks": (
        b"a,b\nx\x81,1\n", "latin-1", None,
        r"the file is not UTF-8 and is read as latin-1; if 'x\x81' looks wrong, write another encoding",
    ),
    "a fault far behind": (
        b"a,b\n" + b"x,1\n" * 500_000 + b"Z\xfcrich,2\n", "cp1252", None,
        "the file is not UTF-8 and is read as cp1252; if 'Zürich' looks wrong, write another encoding",
    ),
    "UTF-16 with tabs": (TEXT.replace(",", "\t").encode("utf-16"), "utf-16", "\t", ""),
    "bars": (b"a|b\n1|2\n", "utf-8", "|", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_how_a_file_is_opened(case: str, tmp_path: Path) -> None:
    content, encoding, delimiter, note = FILES[case]
    (tmp_path / "t.csv").write_bytes(content)
    opening = opening_of(tmp_path / "t.csv")
    assert (opening.encoding, opening.delimiter, opening.note) == (encoding, delimiter, note)
    table = opening.table()
    table.check()
    if "größe" in note or not note:
        assert table.column_names in (("stadt", "größe"), ("a", "b"))


def test_other_files_are_left_to_their_readers(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    assert opening_of(tmp_path / "t.parquet").encoding == "utf-8"
    assert opening_of(tmp_path / "none.csv").delimiter is None
