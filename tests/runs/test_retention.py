"""Old checkpoints are deleted, and never those that are still needed, whatever the disk refuses."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import EnvironmentFault
from mtl.runs.checkpoint import Damaged, commit, steps, verified
from mtl.runs.retention import clean, retain, set_aside, set_aside_folders
from tests.faults.whole import content
from tests.runs.faulty_disk import FILES, FailAt, Recorder, save


def test_a_replacement_that_was_cut_off_is_undone(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000002").rename(tmp_path / ".old-00000002-0123abcd")
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".old-00000001-0123abcd")
    clean(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["step-00000001", "step-00000002"]
    assert content(tmp_path / "step-00000002") == {**FILES, "step": b"2"}


@pytest.mark.parametrize(
    ("keep", "protect", "left"),
    [
        (2, [], [4, 5]),
        (3, [], [3, 4, 5]),
        (2, [1], [1, 4, 5]),
        (2, [5, 2], [2, 4, 5]),
        (9, [], [1, 2, 3, 4, 5]),
        (2, [77], [4, 5]),
    ],
)
def test_retention(keep: int, protect: list[int], left: list[int], tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5)
    (tmp_path / "step-00000001.bak").mkdir()
    assert retain(tmp_path, "run", keep, protect) is None
    assert steps(tmp_path) == left
    assert set(os.listdir(tmp_path)) == {"step-00000001.bak", *(f"step-{step:08d}" for step in left)}
    for step in left:
        verified(tmp_path / f"step-{step:08d}")


def test_retention_that_fails_is_one_warning_and_succeeds_later(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "rename", 0, errno.EPERM)
        assert retain(tmp_path, "run", 2, []) == "cannot delete an old checkpoint: operation not permitted"
    assert steps(tmp_path) == [1, 3, 4]  # the other one is deleted all the same
    assert retain(tmp_path, "run", 2, []) is None
    assert steps(tmp_path) == [3, 4]


def test_many_saves_leave_k_folders(tmp_path: Path) -> None:
    for step in range(60):
        commit(tmp_path, step, {"a": b"1"}, "run")
        retain(tmp_path, "run", 3, [0])
        assert len(os.listdir(tmp_path)) <= 4
    assert steps(tmp_path) == [0, 57, 58, 59]


def test_clean_removes_leftovers_only(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".tmp-00000002-9-aa", ".del-00000001-bb"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "kept")
    clean(tmp_path)
    clean(tmp_path / "nothing")
    assert set(os.listdir(tmp_path)) == {"step-00000001", "kept", ".tmp-link"}


def test_retention_syncs_the_new_names_before_it_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut that keeps the deletions but not the renames would leave a half checkpoint under a good name."""
    save(tmp_path, 1, 2, 3, 4)
    recorder, real = Recorder(monkeypatch), shutil.rmtree

    def rmtree(path: Any, *given: Any, **named: Any) -> None:
        recorder.calls.append(("delete", Path(path).name[:13]))
        real(path, *given, **named)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert retain(tmp_path, "run", 2, []) is None
    calls = [(kind, name.split(" ")[0]) for kind, name in recorder.calls]
    assert calls == [
        ("rename", "step-00000001"),
        ("rename", "step-00000002"),
        ("fsync", tmp_path.name),
        ("delete", ".del-00000001"),
        ("delete", ".del-00000002"),
    ]


def test_nothing_is_deleted_whose_new_name_is_not_on_the_disk(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "fsync", 0, errno.EIO)
        assert retain(tmp_path, "run", 2, []) == "cannot delete an old checkpoint: input/output error"
    assert steps(tmp_path) == [2, 3]
    (left,) = tmp_path.glob(".del-*")
    assert len(os.listdir(left)) == len(FILES) + 2
    assert retain(tmp_path, "run", 2, []) is None  # the next time finishes it
    assert sorted(os.listdir(tmp_path)) == ["step-00000002", "step-00000003"]


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "scandir", 0, errno.EIO)
        assert retain(tmp_path, "run", 2, []) == "cannot delete an old checkpoint: input/output error"
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "fsync", 0, errno.EIO)
        FailAt(patch, "scandir", 1, errno.EIO)  # the first one is of the removal of the temporary folder
        with pytest.raises(EnvironmentFault) as caught:
            save(tmp_path, 4)
    assert str(caught.value) == (
        f"{tmp_path}: cannot write checkpoint at step 4: input/output error; which others are there cannot be read"
    )
    assert steps(tmp_path) == [1, 2, 3]
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "listdir", 0, errno.EACCES)
        with pytest.raises(Damaged, match="cannot be listed: Permission denied"):
            verified(tmp_path / "step-00000003")


def test_a_replaced_checkpoint_that_cannot_be_put_back(tmp_path: Path) -> None:
    save(tmp_path, 1)
    old = tmp_path / ".old-00000001-0123abcd"
    (tmp_path / "step-00000001").rename(old)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "rename", 0, errno.EROFS)
        with pytest.raises(EnvironmentFault) as caught:
            clean(tmp_path)
    assert str(caught.value) == f"{old}: cannot be put back: read-only file system"
    clean(tmp_path)
    assert os.listdir(tmp_path) == ["step-00000001"]


def test_what_is_set_aside_is_on_the_disk_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that came back after a power cut would count on lines that were cut off the logs."""
    save(tmp_path, 1, 2, 3, 4)
    recorder = Recorder(monkeypatch)
    set_aside(tmp_path, 1)
    ((place, _),) = set_aside_folders(tmp_path)
    assert recorder.calls == [
        ("mkdir", place.name),
        ("fsync", tmp_path.name),
        ("rename", "step-00000004 step-00000004"),
        ("rename", "step-00000003 step-00000003"),
        ("rename", "step-00000002 step-00000002"),
        ("fsync", place.name),
        ("fsync", tmp_path.name),
    ]
    assert (steps(tmp_path), steps(place)) == ([1], [2, 3, 4])
    recorder.calls.clear()
    set_aside(tmp_path, 1)
    assert recorder.calls == []


@pytest.mark.parametrize(
    ("call", "n", "left"),
    [
        ("mkdir", 0, [1, 2, 3, 4]),
        ("rename", 0, [1, 2, 3, 4]),
        ("rename", 1, [1, 2, 3]),
        ("fsync", 0, [1, 2, 3, 4]),
        ("fsync", 1, [1, 2]),
        ("fsync", 2, [1, 2]),
    ],
)
def test_setting_aside_that_fails_leaves_older_ones(
    call: str, n: int, left: list[int], tmp_path: Path
) -> None:
    save(tmp_path, 1, 2, 3, 4)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, call, n, errno.EIO)
        with pytest.raises(EnvironmentFault) as caught:
            set_aside(tmp_path, 2)
    assert str(caught.value) == f"{tmp_path}: later checkpoints cannot be set aside: input/output error"
    assert steps(tmp_path) == left
    set_aside(tmp_path, 2)
    assert steps(tmp_path) == [1, 2]
