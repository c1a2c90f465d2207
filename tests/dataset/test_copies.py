"""Rows of test that repeat rows of train are counted, and told if they are many."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.dataset.assemble import load_dataset
from mtl.dataset.copies import hashes, n_copied
from mtl.dataset.header import header_of
from tests.support.recipes import around, recipe, table
from tests.support.tables import write_rows

KINDS: list[Any] = [np.float32, np.float64, np.uint8, np.int64]


def brute(inputs: Any, train: Any, test: Any) -> int:
    flat = inputs.reshape(len(inputs), -1)
    return sum(any(np.array_equal(flat[t], flat[r], equal_nan=True) for r in train) for t in test)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (1, 5, 5)])
def test_copies_are_counted(kind: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 4 if len(shape) == 1 else 200, (90, *shape)).astype(kind)
    inputs[80:] = inputs[:10]
    train, test = np.arange(60), np.arange(60, 90)
    expected = brute(inputs, train, test)
    assert expected >= 10
    assert n_copied(inputs, train, test) == expected


def test_missing_values_and_signs_of_zero_are_equal() -> None:
    other_nan = np.array([0x7FC00001], np.uint32).view(np.float32)[0]
    inputs = np.array([[0.0, np.nan], [-0.0, other_nan], [0.0, 0.0], [np.nan, 0.0]], np.float32)
    assert n_copied(inputs, np.arange(1), np.arange(1, 4)) == 1


def test_round_numbers_share_no_hash() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(100.0)] * 3), -1).reshape(-1, 3).astype(np.float32)
    assert len(np.unique(hashes(grid, np.arange(len(grid))))) == 1_000_000


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    whole = hashes(inputs, np.arange(50))
    monkeypatch.setattr("mtl.dataset.copies.BLOCK", 21)
    np.testing.assert_array_equal(hashes(inputs, np.arange(50)), whole)


def test_two_million_rows_take_seconds() -> None:
    """Measured: 0.7 s of one core."""
    inputs = np.random.default_rng(0).standard_normal((2_000_000, 8), np.float32)
    began = time.process_time()
    assert n_copied(inputs, np.arange(1_600_000), np.arange(1_600_000, 2_000_000)) == 0
    assert time.process_time() - began < 15


@pytest.mark.parametrize(("n_copies", "said"), [(1, False), (2, True)])
def test_more_than_one_in_a_hundred_is_told(
    n_copies: int, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"x": i, "word": f"w{i % 7}", "label": i % 2, "part": "train"} for i in range(300)]
    held = [{**row, "x": i if i < n_copies else i + 0.5, "part": "test"} for i, row in enumerate(rows[:100])]
    write_rows(tmp_path / "t.csv", [*rows, *held])
    source = {**table("t.csv", "x"), "inputs": {"numeric": ["x"], "categorical": ["word"]}}
    checked = recipe(**around(source, split={"column": "part"}))
    found = [notice for notice in load_dataset(checked, header_of(checked)).notices if "inputs of" in notice]
    expected = (
        "2 of 100 test rows (2.0%) have exactly the inputs of a training row, so that test says less about new rows; "
        "leave out repeated rows, or keep them on one side by data.split.group"
    )
    assert found == ([expected] if said else [])
