"""A thread reads the rows of the next steps: in order, with its errors in order, and the same values."""

from __future__ import annotations

import os
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtl.data.types import Rows
from mtl.dataset.batch import Batch, ResidentRows
from mtl.dataset.stored import arrays
from mtl.dataset.stored import rows as stored_rows
from mtl.dataset.stored.rows import NUMBERS, StoredRows
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
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], str]]:
    """The rows that were read at once, and the thread that read them; row 20 cannot be read."""
    found: list[tuple[list[int], str]] = []
    read_some = StoredRows._in_memory

    def reading(self: StoredRows, numbers: Rows, *args: Any, **options: Any) -> ResidentRows:
        found.append((numbers.tolist(), threading.current_thread().name))
        if 20 in numbers:
            raise EnvironmentFault("rows", "cannot be read: the disk is gone")
        return read_some(self, numbers, *args, **options)

    monkeypatch.setattr(StoredRows, "_in_memory", reading)
    return found


def window_of(rows: StoredRows, n_rows: int) -> int:
    """The bytes of a window of so many rows."""
    return n_rows * (rows.input_file.row_bytes + rows.label_file.row_bytes + NUMBERS)


def assert_same_batch(found: Batch, expected: Batch) -> None:
    """The same inputs and labels."""
    torch.testing.assert_close(found.inputs, expected.inputs, rtol=0, atol=0, equal_nan=True)
    stored.assert_same_labels(found, expected)


def first_window_is_read(rows: StoredRows) -> None:
    futures.wait(rows._window)


def test_a_thread_reads_the_rows_of_several_steps_at_once(
    rows: StoredRows, read: list[tuple[list[int], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_rows, "WINDOW", window_of(rows, 8))
    parts = [np.array([9, 3, 9]), np.array([1, 2, 0]), np.array([7, 3]), np.array([8, 6]), np.array([5])]
    taken = []
    for part in rows.ahead(iter(parts), 1):
        first_window_is_read(rows)
        assert_same_batch(rows.batch(part), rows._in_memory(np.arange(10)).batch(part))
        taken.append(part)
    assert all(one is other for one, other in zip(taken, parts, strict=True))
    by_thread = [numbers for numbers, thread in read if thread.startswith("mtl-rows")]
    assert by_thread == [[0, 1, 2, 3, 7, 9], [5, 6, 8]]
    assert all(numbers == list(range(10)) for numbers, thread in read if not thread.startswith("mtl-rows"))


def test_until_the_first_window_is_there_a_step_reads_its_own_rows(
    rows: StoredRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    read_window = StoredRows._read

    def waiting(self: StoredRows, *args: Any) -> Any:
        assert go_on.wait(60)
        return read_window(self, *args)

    monkeypatch.setattr(StoredRows, "_read", waiting)
    steps = rows.ahead(iter(PARTS[:4]), 1)
    for part in PARTS[:2]:
        assert next(steps) is part
        assert_same_batch(rows.batch(part), rows._in_memory(part).batch(np.arange(4)))
    go_on.set()
    first_window_is_read(rows)
    assert next(steps) is PARTS[2]
    monkeypatch.delattr(StoredRows, "_in_memory")  # nothing else reads now
    assert rows.batch(PARTS[2]).rows.tolist() == PARTS[2].tolist()
    assert [part[0] for part in steps] == [12]


def test_the_parts_of_a_step_are_in_one_window(
    rows: StoredRows, read: list[tuple[list[int], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_rows, "WINDOW", window_of(rows, 12))
    assert [len(own) for own in rows._by_windows(iter(PARTS[:7]), 2)] == [2, 2, 3]
    assert [len(own) for own in rows._by_windows(iter(PARTS[:7]), 1)] == [3, 3, 1]
    monkeypatch.setattr(stored_rows, "WINDOW", 1)
    assert [len(own) for own in rows._by_windows(iter(PARTS[:5]), 2)] == [2, 2, 1]
    steps = rows.ahead(iter(PARTS[:4]), 2)
    for _ in range(2):
        parts = [next(steps), next(steps)]
        first_window_is_read(rows)
        read.clear()
        labels = [rows.targets(part) for part in parts]
        for part, own in zip(parts, labels, strict=True):
            stored.assert_same_labels(own, rows.batch(part))
        assert [numbers for numbers, thread in read if not thread.startswith("mtl-rows")] == []


def test_what_a_step_cuts_from_its_part_is_in_the_window_too(
    rows: StoredRows, read: list[tuple[list[int], str]]
) -> None:
    for part in rows.ahead(iter(PARTS[:5]), 1):
        first_window_is_read(rows)
        read.clear()
        for piece in (part[:2], part[2:], part[::-1].copy(), part[[1, 1]]):
            assert torch.equal(rows.batch(piece).rows, torch.from_numpy(piece))
        assert read == []
        rows.batch(np.array([part[0], 39]))  # one row of another window: all are read
        assert [numbers for numbers, _ in read] == [[part[0], 39]]


def test_an_error_comes_at_its_batch_and_the_thread_ends(
    rows: StoredRows, read: list[tuple[list[int], str]]
) -> None:
    taken = []
    ahead = rows.ahead(iter(PARTS), 1)

    def train() -> None:
        for part in ahead:
            first_window_is_read(rows)
            taken.append(int(rows.batch(part).rows[0]))

    with pytest.raises(EnvironmentFault, match="the disk is gone"):
        train()
    assert taken == [0, 4, 8, 12, 16]
    ahead.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mtl-rows")]


def test_a_loop_that_ends_early_does_not_wait_for_its_window(
    rows: StoredRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "SPAN", 1)  # one row at a time
    began, stopped = threading.Event(), threading.Event()
    fill = arrays.RowFile._fill

    def slow(self: arrays.RowFile, *args: Any) -> None:
        if threading.current_thread().name.startswith("mtl-rows"):
            began.set()
            assert stopped.wait(60)
        fill(self, *args)

    monkeypatch.setattr(arrays.RowFile, "_fill", slow)
    ahead = rows.ahead(iter(PARTS), 1)
    next(ahead)
    reading = rows._window[0]
    assert began.wait(60)
    threading.Timer(0.2, stopped.set).start()
    ahead.close()  # type: ignore[attr-defined]
    assert isinstance(reading.exception(), futures.CancelledError)


def test_an_epoch_that_goes_on_begins_where_it_was(rows: StoredRows) -> None:
    for start in range(len(PARTS)):
        found = [int(rows.batch(part).rows[0]) for part in rows.ahead(iter(PARTS[start:]), 1)]
        assert found == [int(part[0]) for part in PARTS[start:]]


@pytest.mark.parametrize("gap", [0, 1, 1 << 14])
@pytest.mark.parametrize("span", [1, 20, 1 << 20])
def test_rows_that_lie_near_each_other_are_read_in_one_piece(
    rows: StoredRows, gap: int, span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "GAP", gap)
    monkeypatch.setattr(arrays, "SPAN", span)
    every = rows.inputs.numpy()
    for numbers in ([], [3], [3, 4, 5], [0, 1, 3, 4, 7, 58, 59]):
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
