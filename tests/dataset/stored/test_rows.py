"""A thread reads batches ahead: in order, with its errors in order, and the same values."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mtl.data.types import Rows
from mtl.dataset.batch import Batch
from mtl.dataset.stored import arrays
from mtl.dataset.stored.rows import AHEAD, StoredRows
from mtl.errors import EnvironmentFault
from tests.support import stored

PARTS = [np.arange(i, i + 4) for i in range(0, 40, 4)]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredRows:
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    found = stored.load(stored.recipe(tmp_path)).rows
    assert isinstance(found, StoredRows)
    return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The first row of each batch that was read, and the thread that read it."""
    found: list[tuple[int, str]] = []
    read_one = StoredRows._read

    def reading(self: StoredRows, rows: Rows) -> Batch:
        found.append((int(rows[0]), threading.current_thread().name))
        if rows[0] == 20:
            raise OSError("the disk is gone")
        return read_one(self, rows)

    monkeypatch.setattr(StoredRows, "_read", reading)
    return found


def test_batches_come_from_the_thread_in_order(rows: StoredRows, read: list[tuple[int, str]]) -> None:
    taken = []
    for part in rows.ahead(iter(PARTS[:5]), 1):
        batch = rows.batch(part)
        assert torch.equal(batch.rows, torch.from_numpy(part))
        taken.append(int(part[0]))
    assert taken == [first for first, _ in read] == [0, 4, 8, 12, 16]
    assert all(thread.startswith("mtl-rows") for _, thread in read)


def test_labels_are_taken_from_the_batch_that_was_read(rows: StoredRows, read: list[tuple[int, str]]) -> None:
    steps = rows.ahead(iter(PARTS[:4]), 2)
    for _ in range(2):
        parts = [next(steps), next(steps)]
        labels = [rows.targets(part) for part in parts]
        for part, own in zip(parts, labels, strict=True):
            stored.assert_same_labels(own, rows.batch(part))
    assert [first for first, _ in read] == [0, 4, 8, 12]


def test_parts_that_a_step_cuts_are_read_at_once(rows: StoredRows, read: list[tuple[int, str]]) -> None:
    for part in rows.ahead(iter(PARTS[:5]), 1):
        for piece in np.array_split(part, 2):
            assert torch.equal(rows.batch(piece).rows, torch.from_numpy(piece))
        assert len(rows._reading) <= AHEAD + 1


def test_an_error_comes_at_its_batch_and_the_thread_ends(
    rows: StoredRows, read: list[tuple[int, str]]
) -> None:
    taken = []
    ahead = rows.ahead(iter(PARTS), 1)
    with pytest.raises(OSError, match="the disk is gone"):
        taken.extend(int(rows.batch(part).rows[0]) for part in ahead)
    assert taken == [0, 4, 8, 12, 16]
    ahead.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mtl-rows")]


def test_an_epoch_that_goes_on_begins_where_it_was(rows: StoredRows) -> None:
    for start in range(len(PARTS)):
        found = [int(rows.batch(part).rows[0]) for part in rows.ahead(iter(PARTS[start:]), 1)]
        assert found == [int(part[0]) for part in PARTS[start:]]


def test_rows_are_read_by_runs_of_numbers(rows: StoredRows) -> None:
    every = rows.inputs.numpy()
    for numbers in ([], [3], [3, 4, 5], [5, 4, 3], [0, 1, 59, 58, 2, 3, 4, 4]):
        np.testing.assert_array_equal(rows.input_file.read(np.array(numbers, np.int64)), every[numbers])


def test_a_file_that_was_cut_meanwhile(tmp_path: Path, rows: StoredRows) -> None:
    path = rows.input_file.path
    os.truncate(path, path.stat().st_size - 4)
    rows.batch(PARTS[0])
    with pytest.raises(
        EnvironmentFault, match="ends before row 59, which it had when the run began; the last"
    ):
        rows.batch(np.array([58, 59]))


def test_another_device_keeps_the_rows_where_they_are(rows: StoredRows) -> None:
    moved = rows.to(torch.device("meta"))
    assert moved.device == torch.device("meta") == moved.batch(PARTS[0]).inputs.device
    assert moved.inputs.device == torch.device("cpu") == rows.device
    labels = moved.targets(PARTS[0])
    assert {part.device.type for part in labels.target.values()} == {"meta"}


def test_nothing_can_write_into_the_rows(tmp_path: Path, rows: StoredRows) -> None:
    path = next(path for path in (tmp_path / "cache/rows/arrays").iterdir() if path.stat().st_size)
    entry = arrays.Entry(path.name, "|u1", (path.stat().st_size,), (0, 0, 0, 0))
    with pytest.raises(ValueError, match="read-only"):
        arrays.mapped(entry, path.parent)[0] = 1
