"""A state of files changes whenever one of them is written to."""

from __future__ import annotations

import os
from pathlib import Path
from time import time_ns

import pytest

from mtl.data.files import states
from mtl.data.files.states import state_of_all


def test_of_files_that_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "QUIET", 0)
    paths = ["a", "b"]
    for name in paths:
        (tmp_path / name).write_text("x")
    found = [state_of_all(tmp_path, paths)]
    assert state_of_all(tmp_path, paths) == found[0]
    was = (tmp_path / "b").stat()
    (tmp_path / "b").write_text("y")
    os.utime(tmp_path / "b", ns=(was.st_atime_ns, was.st_mtime_ns))
    found.append(state_of_all(tmp_path, paths))
    found.append(state_of_all(tmp_path, ["b", "a"]))
    (tmp_path / "b").unlink()
    found.append(state_of_all(tmp_path, paths))
    found.append(state_of_all(tmp_path, ["a", None]))
    found.append(state_of_all(tmp_path, ["a", "b\0"]))
    assert len(set(found)) == 6


def test_it_waits_until_a_change_would_have_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(states, "sleep", waits.append)
    (tmp_path / "a").write_text("x")
    state_of_all(tmp_path, ["a"])
    (wait,) = waits
    assert 1 < wait <= 2
    later = time_ns() + 3 * states.QUIET
    monkeypatch.setattr(states, "time_ns", lambda: later)
    state_of_all(tmp_path, ["a"])
    assert len(waits) == 1
