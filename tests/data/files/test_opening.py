"""Whatever a path of data leads to: a file is opened, anything else is refused at once, in the same words."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mtl.data.files.npz import archive
from mtl.data.files.opening import OpenFile, open_file, opened, opened_once
from mtl.data.files.table import PARQUET_SUFFIXES, TEXT_SUFFIXES, TableFile
from mtl.errors import UserError
from mtl.recipe.specs import SOURCES
from tests.support.file_counts import open_descriptors

READERS: dict[str, Callable[[Path], object]] = {
    **dict.fromkeys((*TEXT_SUFFIXES, *PARQUET_SUFFIXES), TableFile),
    ".npz": archive,
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
    without = "" if suffix == ".npz" else " without Parquet files"
    for name, what in {
        f"face{suffix}": f"no such file (did you mean 'faces{suffix}'?)",
        f"nowhere/face{suffix}": "no such file",
        f"folder{suffix}": f"is a directory{without}",
        f"circle{suffix}": "cannot be opened: Too many levels of symbolic links",
    }.items():
        assert refusal(READERS[suffix], tmp_path / name) == f"{tmp_path}/{name}: path: {what}"


@pytest.mark.parametrize("kind", SOURCES.names())
def test_every_source_that_reads_files_refuses_a_pipe(kind: str, tmp_path: Path) -> None:
    """In its own words where it looks for files in a folder."""
    suffixes = {"table": ".csv", "npz": ".npz", "face_embeddings": ".parquet"}
    suffixes |= {"fashion_mnist": "", "overlaid_garments": ""}
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


# --- one opening for all ---


def test_passes_over_a_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "a.csv").write_bytes(content)
    file = OpenFile(tmp_path / "a.csv")
    first, second = file.stream(), file.stream()
    assert [first.read(5), second.read(3), first.read(5)] == [content[:5], content[:3], content[5:10]]
    assert [second.seek(-4, os.SEEK_END), second.read()] == [len(content) - 4, content[-4:]]
    assert [second.seek(9), second.seek(-2, os.SEEK_CUR), second.tell()] == [9, 7, 7]
    with pytest.raises(OSError, match="before the beginning"):
        second.seek(-len(content) - 1, os.SEEK_END)
    assert first.name == str(tmp_path / "a.csv")
    digests: list[str] = []

    def read() -> None:
        digests.extend(hashlib.sha256(file.stream().read()).hexdigest() for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(digests), set(digests)) == (80, {hashlib.sha256(content).hexdigest()})
    assert file.sha256 == digests[0]
    assert open_descriptors(file.path) == 1


def test_a_file_that_nobody_holds_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"abc")
    stream = opened(path).stream()
    assert open_descriptors(path) == 1
    assert stream.read() == b"abc"
    del stream
    assert open_descriptors(path) == 0


def test_what_was_found_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"abc")
    file, found = OpenFile(tmp_path / "a.csv"), iter(range(9))
    assert [file.once(what, lambda: next(found)) for what in ("a", "b", "a", "b")] == [0, 1, 0, 1]


def test_one_opening_for_as_long_as_a_command_lasts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"abc")
    assert opened(path) is not opened(path)
    with opened_once():
        first = opened(path)
        assert opened(path) is first
        with opened_once():
            assert opened(path) is first
        assert open_descriptors(path) == 0, "the end of what lies inside closes it: the rows are there"
        second = opened(path)
        assert second is not first
        assert second.stream().read() == b"abc"
        found: list[OpenFile] = []
        thread = threading.Thread(target=lambda: found.append(opened(path)))
        thread.start()
        thread.join()
        assert found[0] is not second, "another thread is another command"
        found.clear()
        kept = second.once("kept", Path)
        alive = weakref.ref(second.once("large", lambda: np.zeros(9)))
        assert second.once("kept", Path) is kept
    assert alive() is None, "what was found goes too, whoever still names rows by the file"
    assert open_descriptors(path) == 0
    with pytest.raises(ValueError, match="closed file"):
        second.stream().read()


@pytest.mark.parametrize("how", ["written", "replaced", "removed"])
def test_a_file_that_changed_is_opened_anew(how: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"abc")
    with opened_once():
        first = opened(path)
        assert first.sha256 == hashlib.sha256(b"abc").hexdigest()
        if how == "written":
            path.write_bytes(b"abcd")
        elif how == "replaced":
            (tmp_path / "b.csv").write_bytes(b"abd")
            (tmp_path / "b.csv").rename(path)
        else:
            path.unlink()
            assert refusal(opened, path) == f"{path}: path: no such file"
            return
        again = opened(path)
        assert again is not first
        assert again.stream().read() == path.read_bytes()
        assert again.sha256 != first.sha256


def test_an_error_closes_what_is_open(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a")
    with pytest.raises(UserError, match="no such file"), opened_once():
        _ = opened(path), opened(tmp_path / "b.csv")
    assert open_descriptors(path) == 0
