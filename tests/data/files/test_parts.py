"""The files of a data set: which ones count, how long they stay open, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.data.files import parts
from mtl.data.files.opening import opened_once
from mtl.data.files.parts import Parts, found_at, is_data_set, takes
from mtl.errors import UserError
from tests.support.file_counts import open_descriptors


def folder_of(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": [float(i)]}), folder / name)
    return folder


def names(path: Path) -> list[str]:
    return [part.name for part in Parts(path).files]


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    rows = folder_of(
        tmp_path / "rows", "b.parquet", "a/z.pq", "part-10.parquet", "part-2.parquet", "a.parquet"
    )
    (rows / "_SUCCESS").touch()
    (rows / ".b.parquet.crc").touch()
    folder_of(rows / "_temporary", "0.parquet")
    assert names(rows) == ["a.parquet", "a/z.pq", "b.parquet", "part-10.parquet", "part-2.parquet"]
    assert names(rows / "*.parquet") == ["a.parquet", "b.parquet", "part-10.parquet", "part-2.parquet"]
    assert names(rows / "**" / "?.p*q*") == ["a.parquet", "a/z.pq", "b.parquet"]
    assert Parts(rows).name == "rows"
    assert Parts(rows / "*.parquet").name == "rows/*.parquet"


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("a.parquet", ()),
        ("year=2024/a.parquet", (("year", "2024"),)),
        ("year=2024/x/month=01/a.parquet", (("year", "2024"), ("month", "01"))),
        ("city=New%20York%2FBronx/a.parquet", (("city", "New York/Bronx"),)),
        ("city=__HIVE_DEFAULT_PARTITION__/a.parquet", (("city", None),)),
        ("city=/a=b=c/a.parquet", (("city", ""), ("a", "b=c"))),
        ("=x/a.parquet", ()),
    ],
)
def test_what_folders_say(name: str, keys: tuple[tuple[str, str | None], ...], tmp_path: Path) -> None:
    assert Parts(folder_of(tmp_path / "rows", name)).files[0].keys == keys


def test_a_folder_within_a_data_set_keeps_its_columns(tmp_path: Path) -> None:
    folder_of(tmp_path / "rows", "year=2024/month=1/a.parquet")
    for path in ("year=2024/month=1", "year=2024/month=1/*.parquet", "year=2024"):
        assert Parts(tmp_path / "rows" / path).files[0].keys == (("year", "2024"), ("month", "1"))
    assert found_at(tmp_path / "rows/year=2024/month=1/a.parquet").path.name == "a.parquet"


def test_the_name_of_a_file_is_no_pattern(tmp_path: Path) -> None:
    folder_of(tmp_path, "a[1].parquet", "a1.parquet")
    assert not is_data_set(tmp_path / "a[1].parquet")
    assert is_data_set(tmp_path / "a[12].parquet")
    assert is_data_set(tmp_path)
    assert not is_data_set(tmp_path / "no.parquet")
    assert not is_data_set(tmp_path / ("x" * 300 + "*"))


def test_what_a_data_set_would_take(tmp_path: Path) -> None:
    rows = folder_of(tmp_path / "rows", "a.parquet")
    assert takes(rows, rows / "b.parquet")
    assert takes(rows / "*.parquet", rows / "sub" / ".." / "b.parquet")
    assert not takes(rows / "*.parquet", rows / "b.csv")
    assert not takes(rows, tmp_path / "b.parquet")
    assert not takes(rows / "a.parquet", rows / "a.parquet")


@pytest.mark.parametrize("held", [10, 2])
def test_few_files_stay_open_and_many_do_not(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "HELD", held)
    rows = folder_of(tmp_path, *(f"{i}.parquet" for i in range(5)))
    with opened_once():
        found = found_at(rows)
        assert isinstance(found, Parts)
        assert len(found.digests) == 5
        assert found_at(rows) is found
        assert sum(open_descriptors(rows / f"{i}.parquet") for i in range(5)) == (5 if held == 10 else 0)
    assert sum(open_descriptors(rows / f"{i}.parquet") for i in range(5)) == 0


@pytest.mark.parametrize("held", [10, 2])
def test_a_file_that_is_written_to_meanwhile(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "HELD", held)
    rows = folder_of(tmp_path, *(f"{i}.parquet" for i in range(5)))
    found = Parts(rows)
    before = found.sha256
    assert found.is_at_its_path()
    pq.write_table(pa.table({"x": [1.0, 2.0]}), rows / "3.parquet")
    assert not found.is_at_its_path()
    if held == 2:
        with (
            pytest.raises(UserError, match=r"^3\.parquet: was changed while it was read"),
            found.opened(found.files[3]),
        ):
            pass
    assert Parts(rows).sha256 != before


def test_the_digest_covers_names_folders_and_bytes(tmp_path: Path) -> None:
    seen = set()
    for i, name in enumerate(("a.parquet", "b.parquet", "year=1/a.parquet", "year=2/a.parquet")):
        seen.add(Parts(folder_of(tmp_path / str(i), name)).sha256)
    folder_of(tmp_path / "4", "a.parquet", "b.parquet")
    seen.add(Parts(tmp_path / "4").sha256)
    assert len(seen) == 5
    assert Parts(folder_of(tmp_path / "elsewhere", "a.parquet")).sha256 == Parts(tmp_path / "0").sha256


def test_a_new_file_is_noticed(tmp_path: Path) -> None:
    found = Parts(folder_of(tmp_path / "rows", "a.parquet"))
    folder_of(tmp_path / "rows", "b.parquet")
    assert not found.is_at_its_path()


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        Parts(path)
    return str(caught.value)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "_SUCCESS").touch()
    assert refusal(empty) == f"{empty}: path: is a directory without Parquet files"
    (empty / "notes.txt").touch()
    assert refusal(empty) == f"{empty}: path: is a directory without Parquet files"
    assert refusal(empty / "*.parquet") == f"{empty}/*.parquet: path: no Parquet file fits this pattern"
    rows = folder_of(tmp_path / "rows", "a.parquet", "b.parquet")
    (rows / "notes.txt").touch()
    todo = "move it elsewhere, or give a pattern such as folder/*.parquet"
    assert refusal(rows) == f"{rows}: path: 'notes.txt' is not named as a Parquet file; {todo}"
    missing = tmp_path / "no" / "*.parquet"
    assert refusal(missing) == f"{tmp_path}/no: path: cannot be looked into: no such file or directory"
    monkeypatch.setattr(parts, "MOST_SEEN", 2)
    assert refusal(rows) == f"{rows}: path: more than 2 files and folders lie below it"


def test_links(tmp_path: Path) -> None:
    """A link to a file counts as the file; a link to a folder could lead anywhere, and in a circle."""
    folder_of(tmp_path, "elsewhere/x.parquet")
    rows = folder_of(tmp_path / "rows", "a.parquet")
    (rows / "b.parquet").symlink_to("../elsewhere/x.parquet")
    assert names(rows) == ["a.parquet", "b.parquet"]
    (rows / "circle").symlink_to(".")
    found = Parts(rows)
    with pytest.raises(UserError, match="circle: path: is a directory"):
        found.digests  # noqa: B018


def test_hostile_names(tmp_path: Path) -> None:
    """They are one printable line in messages, and are told apart all the same."""
    rows = folder_of(tmp_path / "rows", "a\nb\x1b[2J.parquet")
    with open(os.fsencode(rows) + b"/\xff.parquet", "wb") as file:
        file.write(b"PAR1")
    found = Parts(rows)
    assert all(part.shown.isprintable() for part in found.files)
    assert found.files[0].shown == "rows/a\\nb\\x1b[2J.parquet"
    assert len(found.digests) == 2
