"""Small files are replaced as a whole, new folders outlive a power cut, and little room is told."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtl.errors import EnvironmentFault
from mtl.runs.disk import lacks_space, make_folder, plain_size, write_new, write_whole
from tests.runs.faulty_disk import FailAt, Recorder, tree


def test_write_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert tree(tmp_path) == {"run.json": b"two"}


@pytest.mark.parametrize(("call", "n_calls"), [("open", 2), ("write", 1), ("fsync", 2), ("replace", 1)])
def test_write_whole_is_all_or_nothing(call: str, n_calls: int, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for n in range(n_calls):
        write_whole(path, b"old")
        with pytest.MonkeyPatch.context() as patch:
            fault = FailAt(patch, call, n, errno.ENOSPC)
            with pytest.raises(EnvironmentFault, match=r"run\.json: cannot write: no space left on device"):
                write_whole(path, b"new, and longer")
        assert fault.fired
        # the last calls sync the folder, when the new bytes are there
        assert tree(tmp_path) == {"run.json": b"new, and longer" if n == 1 else b"old"}


def test_write_whole_syncs_before_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, real = Recorder(monkeypatch), os.replace

    def replace(source: Any, target: Any) -> None:
        recorder.calls.append(("replace", Path(target).name))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_whole(tmp_path / "x", b"1")
    kinds = [kind for kind, _ in recorder.calls]
    assert kinds == ["create", "write", "fsync", "replace", "fsync"]
    assert recorder.calls[-1] == ("fsync", tmp_path.name)


def test_a_new_folder_is_synced_in_its_parent_all_the_way_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    make_folder(tmp_path / "a" / "b" / "checkpoints")
    assert (tmp_path / "a" / "b" / "checkpoints").is_dir()
    synced = [name for kind, name in recorder.calls if kind == "fsync"]
    assert sorted(synced) == sorted([tmp_path.name, "a", "b"])
    recorder.calls.clear()
    make_folder(tmp_path / "a" / "b")
    assert not [name for kind, name in recorder.calls if kind == "fsync"]


def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=3 * 2**20)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert lacks_space(tmp_path, 3 * 2**19) is None
    assert lacks_space(tmp_path / "checkpoints", 2 * 2**20) == (
        f"{tmp_path}/checkpoints: 3.1 MB are free, and a checkpoint takes 2.1 MB; make room"
    )
    assert asked == [tmp_path, tmp_path]

    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    assert lacks_space(tmp_path, 1) is None


def test_a_new_file_is_never_one_that_is_there(tmp_path: Path) -> None:
    write_new(tmp_path / "a", [b"ab", memoryview(b""), memoryview(b"c")])
    assert (tmp_path / "a").read_bytes() == b"abc"
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"other")
    assert (tmp_path / "a").read_bytes() == b"abc"
    assert plain_size(tmp_path / "a") == 3


def test_only_plain_files_have_a_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for place in (tmp_path / "pipe", tmp_path / "link", tmp_path):
        with pytest.raises(OSError, match="is not a regular file"):
            plain_size(place)
    with pytest.raises(FileNotFoundError):
        plain_size(tmp_path / "nothing")
