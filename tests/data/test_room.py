"""Arrays of all rows in memory or in files: the same values, files without names, and a disk that is asked before."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mtl.data import room
from mtl.errors import EnvironmentFault


def test_in_memory_nothing_is_copied() -> None:
    values = np.arange(3)
    assert room.kept(values) is values
    assert not room.is_in_files()
    assert room.zeros((2, 3), np.int8).sum() == 0


def test_in_files_the_values_stay_and_no_file_has_a_name(tmp_path: Path) -> None:
    with room.in_files(tmp_path):
        assert room.is_in_files()
        found = room.kept(np.arange(10_000).reshape(100, 100))
        empty = room.zeros((0, 4), np.float32)
        view = found[:, 1]
        assert room.kept(view) is view
        files = room._FILES.get()
        assert files is not None
        for _ in range(3):
            files.sweep()
            np.testing.assert_array_equal(found, np.arange(10_000).reshape(100, 100))
            found[5] += 1
            files.sweep()
            found[5] -= 1
        assert list(tmp_path.iterdir()) == []
    assert not room.is_in_files()
    assert (empty.shape, found[3, 4]) == ((0, 4), 304)


def test_a_system_that_cannot_reserve_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(room, "PIECE", 100)
    with room.in_files(tmp_path):
        found = room.zeros((250,), np.int8)
        found[:] = 7
        assert int(found.sum()) == 1750


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    room.require(60, "t.csv", "9 rows", "read fewer")
    with room.in_files(tmp_path):
        room.require(50, "t.csv", "9 rows", "read fewer")
        with pytest.raises(EnvironmentFault) as caught:
            room.require(60, "t.csv", "9 rows", "read fewer")
    what = "t.csv: 9 rows take 120 bytes on disk, 100 bytes are free"
    assert str(caught.value) == f"{tmp_path}: {what}; make room, or set MTL_CACHE to a folder on another disk"


def test_a_disk_that_has_less_than_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, at: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with room.in_files(tmp_path), pytest.raises(EnvironmentFault, match="cannot write: No space left"):
        room.zeros((3,), np.int8)


def test_more_memory_than_there_is() -> None:
    with pytest.raises(
        EnvironmentFault, match=r"9 rows take 60 bytes, 50 bytes are free; set data\.in_memory"
    ):
        room.require(60, "t.csv", "9 rows", "set data.in_memory: false", free=50)
