"""Whatever a path of data leads to: a file is opened, anything else is refused at once, in the same words."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtl.data.files.npz import names
from mtl.data.files.opening import open_file
from mtl.data.files.table import PARQUET_SUFFIXES, TEXT_SUFFIXES, TableFile
from mtl.errors import UserError
from mtl.recipe.specs import SOURCES

READERS: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys((*TEXT_SUFFIXES, *PARQUET_SUFFIXES), TableFile),
    ".npz": names,
}
"""Each kind of data file, by its suffix, and what opens it first."""


def listening(path: Path) -> None:
    """A socket; bound by its name alone, for a whole path may be too long for one."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "socket": listening,
}


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Opening a pipe waits for a writer: an alarm ends the wait, and the test with it."""

    def rings(*_: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGALRM, rings)
    signal.setitimer(signal.ITIMER_REAL, 10)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def refusal(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_not_opened(suffix: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    NO_FILES[kind](path)
    assert refusal(READERS[suffix], path) == f"{path}: path: is not a regular file"


@pytest.mark.parametrize("suffix", READERS)
def test_what_is_not_there_and_what_is_a_folder(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"faces{suffix}").touch()
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"circle{suffix}").symlink_to(f"circle{suffix}")
    for name, what in {
        f"face{suffix}": f"no such file (did you mean 'faces{suffix}'?)",
        f"nowhere/face{suffix}": "no such file",
        f"folder{suffix}": "is a directory",
        f"circle{suffix}": "cannot be opened: Too many levels of symbolic links",
    }.items():
        assert refusal(READERS[suffix], tmp_path / name) == f"{tmp_path}/{name}: path: {what}"


@pytest.mark.parametrize("kind", SOURCES.names())
def test_every_source_that_reads_files_refuses_a_pipe(kind: str, tmp_path: Path) -> None:
    """In its own words where it looks for files in a folder."""
    suffixes = {"table": ".csv", "npz": ".npz", "face_embeddings": ".parquet", "fashion_mnist": ""}
    if kind not in suffixes:
        assert "path" not in SOURCES[kind].model_fields
        return
    path = tmp_path / f"data{suffixes[kind]}"
    os.mkfifo(path)
    settings = {"inputs": {"numeric": ("x",)}} if kind == "table" else {}
    source = SOURCES[kind].model_validate({"path": str(path), **settings})
    what = "path: is not a regular file" if suffixes[kind] else "no file train-images"
    assert what in refusal(lambda _: source.header(), path)


def test_a_name_that_a_terminal_would_obey_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(open_file, Path("\x1b[31m.csv")) == "'\\x1b[31m.csv': path: no such file"
    assert len(refusal(open_file, tmp_path / ("x" * 300))) < 100


def test_a_file_is_opened_where_it_begins(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"abc")
    (tmp_path / "link.csv").symlink_to("a.csv")
    with open_file(tmp_path / "link.csv") as file:
        assert file.read() == b"abc"
