"""Files of a real S3 server: fetched once per version, whole or not at all, and read as files on disk."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.data.files.opening import opened_once
from mtl.data.files.remote import fetch, listing
from mtl.data.files.remote.fetch import local
from mtl.data.files.table import TableFile
from mtl.errors import ENVIRONMENT, USER, UserError
from tests.support.object_store import BUCKET, Store, bad_line, s3, store

__all__ = ["s3", "store"]
Capture = pytest.CaptureFixture[str]
CSV = b"x,y\n1,2\n3,4\n"


def kept(cache: Path) -> list[str]:
    """The files of the cache, apart from locks."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.name != ".lock")


def refusal(address: str, code: int) -> str:
    with pytest.raises(UserError) as caught:
        local(address)
    assert caught.value.code == code
    return str(caught.value)


def test_a_file_is_fetched_once_per_version(s3: Store, tmp_path: Path, capsys: Capture) -> None:
    address = s3.put("once/t.csv", CSV)
    path = local(address)
    assert path.read_bytes() == CSV
    assert path.is_relative_to(tmp_path / "cache")
    assert capsys.readouterr().err == f"fetching t.csv (12 bytes) from {BUCKET}\n"
    assert local(address) == path
    assert capsys.readouterr().err == ""
    s3.put("once/t.csv", CSV.replace(b"4", b"5"))
    assert local(address).read_bytes() == CSV.replace(b"4", b"5")
    assert path.read_bytes() == CSV
    assert "fetching" in capsys.readouterr().err


def test_a_command_looks_an_address_up_once(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    address, asked = s3.put("lookups/t.csv", CSV), []
    monkeypatch.setattr(fetch, "listing_of", lambda *given: asked.append(given) or listing.listing_of(*given))
    with opened_once():
        assert local(address) == local(address)
    assert len(asked) == 1
    local(address)
    assert len(asked) == 2


def data_set(folder: Path) -> Path:
    for i, name in enumerate(("year=2024/a.parquet", "year=2024/b.parquet", "year=2025/a.parquet")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": [float(i), 0.5]}), folder / name)
    (folder / "_SUCCESS").touch()
    return folder


@pytest.mark.parametrize("below", ["", "/", "/*/*.parquet", "/**/a.parquet", "/year=2024", "/year=2024/*"])
def test_a_data_set_is_the_same_as_on_disk(below: str, s3: Store, tmp_path: Path) -> None:
    rows = data_set(tmp_path / "rows")
    address = s3.put("sets/rows", rows)
    s3.put("sets/rows/year=2026/", b"")  # a folder that somebody made
    here, there = TableFile(Path(f"{rows}{below}")), TableFile(local(address + below))
    assert there.column_names == here.column_names == ("x", "year")
    assert [there.row(i) for i in range(there.n_rows)] == [here.row(i) for i in range(here.n_rows)]
    assert there.sha256() == here.sha256()
    found = [pa.Table.from_batches([b for _, b in file.batches(["x", "year"])]) for file in (here, there)]
    assert found[0].equals(found[1])


def test_of_a_data_set_only_new_files_are_fetched(s3: Store, tmp_path: Path, capsys: Capture) -> None:
    address = s3.put("growing", data_set(tmp_path / "rows"))
    local(address)
    assert capsys.readouterr().err == f"fetching 3 files (1.5 kB) from {BUCKET}\n".replace(
        "1.5 kB", _sizes(tmp_path)
    )
    pq.write_table(pa.table({"x": [7.5]}), tmp_path / "new.parquet")
    s3.put("growing/year=2026/a.parquet", tmp_path / "new.parquet")
    assert TableFile(local(address)).n_rows == 7
    assert capsys.readouterr().err.startswith("fetching 1 file (")


def _sizes(folder: Path) -> str:
    from mtl.console import file_size

    return file_size(sum(path.stat().st_size for path in (folder / "rows").rglob("*.parquet")))


def test_what_is_not_there(s3: Store, tmp_path: Path) -> None:
    s3.put("there/t.csv", CSV)
    for address in (
        f"s3://{BUCKET}/there/no.csv",
        "s3://no-such-bucket-of-mtl/t.csv",
        f"s3://{BUCKET}/no/*.parquet",
    ):
        assert refusal(address, USER) == f"{address}: path: no such file, folder or bucket"
    address = f"s3://{BUCKET}/there"
    assert refusal(address, USER) == f"{address}: path: is a directory without Parquet files"
    assert refusal(f"{address}/*.pq", USER) == f"{address}/*.pq: path: no Parquet file fits this pattern"
    s3.put("there/a.parquet", CSV)
    assert "'t.csv' is not named as a Parquet file; move it" in refusal(address, USER)
    assert kept(tmp_path / "cache") == []


@pytest.mark.parametrize("name", ["a//b.parquet", "a/../b.parquet", "./b.parquet"])
def test_names_that_no_disk_can_hold(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Files:
        def info(self, root: str) -> dict[str, Any]:
            return {"type": "directory", "name": root}

        def find(self, root: str, **_: Any) -> dict[str, Any]:
            entry = {"name": f"{root}/{name}", "size": 1, "ETag": "e"}
            return {entry["name"]: entry}

    monkeypatch.setattr(listing.Pattern, "fits", lambda *_: True)
    with pytest.raises(UserError, match="has a name that no disk can hold"):
        listing.listing_of(Files(), "s3://b/rows")


def test_a_store_that_tells_no_version() -> None:
    class Files:
        def info(self, root: str) -> dict[str, Any]:
            return {"type": "file", "name": root, "size": 3}

    with pytest.raises(
        UserError, match=r"s3://b/t\.csv: path: the store tells no size or version of 't\.csv'"
    ):
        listing.listing_of(Files(), "s3://b/t.csv")


# --- credentials ---


@pytest.mark.parametrize("wrong", ["secret", "key", "none"])
def test_credentials_that_are_not_right(wrong: str, s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    address = s3.put("denied/t.csv", CSV)
    if wrong == "none":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    else:
        name = "AWS_SECRET_ACCESS_KEY" if wrong == "secret" else "AWS_ACCESS_KEY_ID"
        monkeypatch.setenv(name, "WRONGWRONGWRONG")
    assert refusal(address, ENVIRONMENT) == (
        f"{address}: access is denied; check the credentials of the environment, and the rights that they give"
    )


def test_no_network(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    address = s3.put("far/t.csv", CSV)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    said = refusal(address, ENVIRONMENT)
    assert (
        said
        == f"{address}: cannot be read (EndpointConnectionError); check the network, and the address of the store"
    )
    monkeypatch.setenv("MTL_OFFLINE", "1")
    assert refusal(address, ENVIRONMENT).startswith(f"{address}: MTL_OFFLINE is set; ")


@pytest.mark.parametrize(
    ("protocol", "package", "wanted"),
    [
        ("s3", "s3fs", "'mtl-recipes[remote]'"),
        ("gs", "gcsfs", "gcsfs"),
        ("hf", "huggingface_hub", "huggingface_hub"),
    ],
)
def test_a_package_that_is_missing(
    protocol: str, package: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> None:
        raise ImportError

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    address = f"{protocol}://b/t.csv"
    assert refusal(address, ENVIRONMENT) == (
        f"{address}: {package} is not installed, which reads {protocol}://; pip install {wanted}"
    )


def test_an_address_that_no_recipe_has_checked() -> None:
    assert refusal("s3://k:secret@b/t.csv", USER) == (
        "path: the address holds credentials; leave them to the environment, and write the bucket alone"
    )


# --- lines that break, and processes that fetch the same ---


@pytest.mark.parametrize("breaks", [1, 3, -1])
def test_a_line_that_breaks(breaks: int, s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = np.random.default_rng(0).bytes(400_000)
    address = s3.put("broken/t.csv", content)
    with bad_line(s3.port, breaks, after=100_000) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
        if breaks > 0:
            assert local(address).read_bytes() == content
            assert line.broken == breaks
        else:
            assert refusal(address, ENVIRONMENT).startswith(f"{address}: cannot be read (")
            assert line.broken > 2
            assert kept(tmp_path / "cache") == []


def test_a_file_that_changes_while_it_is_fetched(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = s3.put("changing/t.csv", b"x" * 3000)
    monkeypatch.setattr(fetch, "CHUNK", 1000)
    plain = listing.file_system(address)

    class Changing:
        def __getattr__(self, name: str) -> Any:
            return getattr(plain, name)

        def open(self, *given: Any, **options: Any) -> Any:
            file = plain.open(*given, **options)
            read = file.read

            def changed(size: int) -> Any:
                chunk = read(size)
                s3.put("changing/t.csv", b"y" * 3000)
                return chunk

            file.read = changed
            return file

    monkeypatch.setattr(fetch, "file_system", lambda _: Changing())
    assert (
        refusal(address, ENVIRONMENT)
        == f"{address}: was changed while it was read; start again once it is whole"
    )
    assert kept(tmp_path / "cache") == []


def test_a_store_that_gives_less_than_it_said(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = s3.put("short/t.csv", CSV)
    found = listing.listing_of(listing.file_system(address), address)
    longer = listing.RemoteFile("t.csv", found.files[0].address, 100, "v")
    monkeypatch.setattr(fetch, "listing_of", lambda *_: listing.Listing(address, None, (), (longer,)))
    assert refusal(address, ENVIRONMENT) == f"{address}: 12 bytes came, of 100; start again"
    assert kept(tmp_path / "cache") == []


def test_many_that_fetch_the_same_fetch_it_once(
    s3: Store, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, opened = s3.put("shared/t.csv", CSV), []
    files = listing.file_system(address)
    found = listing.listing_of(files, address)
    folder = fetch.cache_folder() / "remote"

    class Counting:
        def open(self, *given: Any, **options: Any) -> Any:
            opened.append(given)
            return files.open(*given, **options)

    threads = [
        Thread(target=fetch._fetch_all, args=(Counting(), list(found.files), folder, address, lambda n: None))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert fetch._place(folder, found.files[0]).read_bytes() == CSV


def test_one_file_that_fails_ends_the_others(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = s3.put("failing", data_set(tmp_path / "rows"))
    files = listing.file_system(address)

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(files, name)

        def open(self, path: str, *given: Any, **options: Any) -> Any:
            if path.endswith("b.parquet"):
                raise FileNotFoundError
            return files.open(path, *given, **options)

    monkeypatch.setattr(fetch, "file_system", lambda _: Failing())
    assert refusal(address, USER) == f"{address}: path: no such file, folder or bucket"
    assert "b.parquet" not in kept(tmp_path / "cache")
    assert not [name for name in kept(tmp_path / "cache") if name.endswith(".part")]


# --- the cache ---


def test_a_cache_without_room(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = s3.put("room/t.csv", CSV)
    usage = type("Usage", (), {"free": 11})
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage)
    assert refusal(address, ENVIRONMENT) == (
        f"{tmp_path}/cache/remote: 12 bytes are to be fetched, 11 bytes are free; "
        "set MTL_CACHE to another folder, or delete this one"
    )


@pytest.mark.parametrize("place", ["remote", "remote/files", "remote/sets"])
def test_a_cache_that_cannot_be_written(place: str, s3: Store, tmp_path: Path) -> None:
    address = s3.put("closed", data_set(tmp_path / "rows"))
    blocked = tmp_path / "cache" / place
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    assert "cannot write: " in refusal(address, ENVIRONMENT)
    assert refusal(address, ENVIRONMENT).endswith("; set MTL_CACHE to another folder")


def test_a_set_that_another_process_has_linked_first(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = s3.put("linked", data_set(tmp_path / "rows"))
    path = local(address)
    is_dir = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda self: self.parent.name != "sets" and is_dir(self))
    assert local(address) == path
    assert len(os.listdir(tmp_path / "cache/remote/sets")) == 1
