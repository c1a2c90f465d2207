"""What a run says of few rows and long steps before it begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtl.dataset.assemble import load_dataset
from mtl.dataset.header import header_of
from mtl.dataset.notices import FEW_ROWS, missed_fractions, notices_of
from tests.support.assertions import Capture, called
from tests.support.recipes import around, recipe, table, write
from tests.support.tables import write_rows

ON_A_TABLE = around(table("t.csv", "x"))


@pytest.mark.parametrize(
    ("n_rows", "said"),
    [
        ({"train": 8, "test": 30}, []),
        ({"train": 8, "validation": 30, "test": 1000}, []),
        (
            {"train": 80, "test": 12},
            ["split 'test' has 12 rows, so its results are rough: one row is 8.33% of them"],
        ),
        (
            {"train": 80, "test": 1},
            ["split 'test' has 1 row, so its results are rough: a single row decides them"],
        ),
        (
            {"train": 80, "validation": 1, "test": 30},
            [
                "split 'validation' has 1 row, so the step that it selects is largely chance: "
                "a single row decides it"
            ],
        ),
        (
            {"train": 80, "validation": 4, "test": 29},
            [
                "split 'validation' has 4 rows, so the step that it selects is largely chance: one row is 25% of them",
                "split 'test' has 29 rows, so its results are rough: one row is 3.45% of them",
            ],
        ),
    ],
)
def test_few_rows(n_rows: dict[str, int], said: list[str]) -> None:
    splits = {split: np.arange(n) for split, n in n_rows.items()}
    assert list(notices_of(recipe(**ON_A_TABLE), splits)) == said
    assert not list(notices_of(recipe(), splits))  # generated rows
    assert FEW_ROWS == 30


@pytest.mark.parametrize(
    ("accumulate", "said"),
    [
        (1, []),
        (5, []),
        (
            6,
            ["train.accumulate is 6, but an epoch has 5 batches of 8 rows, so that it is a single step"],
        ),
        (
            100_000,
            ["train.accumulate is 100000, but an epoch has 5 batches of 8 rows, so that it is a single step"],
        ),
    ],
)
def test_a_step_of_more_batches_than_an_epoch_has(accumulate: int, said: list[str]) -> None:
    splits = {"train": np.arange(37), "test": np.arange(40)}
    assert list(notices_of(recipe(train__accumulate=accumulate), splits)) == said


def test_a_run_and_a_dry_run_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "t.csv", [{"x": i, "label": i % 2} for i in range(40)])
    write(tmp_path, **ON_A_TABLE, train__accumulate=9)
    warned = (
        "warning: split 'test' has 10 rows, so its results are rough: one row is 10% of them\n"
        "warning: train.accumulate is 9, but an epoch has 4 batches of 8 rows, so that it is a single step\n"
    )
    for command in (["summary"], ["run", "--dry-run"], ["run", "--quiet", "--out", "run"]):
        done = called(capsys, *command, "r.yaml")
        assert (done.returncode, done.stderr) == (0, warned)
    for command in (["--dry-run"], ["--quiet"]):
        done = called(capsys, "run", "--resume", "run", "train.epochs=2", *command)
        assert (done.returncode, done.stderr) == (0, warned)


@pytest.mark.parametrize(
    ("n_rows", "said"),
    [
        ((700, 100, 200), []),
        ((550, 150, 300), []),  # half as much again
        (
            (549, 151, 300),
            ["split 'validation' has 15% of the rows (151 of 1,000) where data.split.validation asks"],
        ),
        (
            (851, 50, 99),
            ["split 'test' has 9.9% of the rows (99 of 1,000) where data.split.test asks for 20%"],
        ),
        ((8, 2, 2), []),  # as near as a row allows
    ],
)
def test_a_split_that_is_far_from_its_fraction(n_rows: tuple[int, int, int], said: list[str]) -> None:
    splits = {s: np.arange(n) for s, n in zip(("train", "validation", "test"), n_rows, strict=True)}
    lines = list(missed_fractions(splits, {"validation": 0.1, "test": 0.2}, sum(n_rows), None))
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))


def test_few_groups_miss_the_fractions_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"x": i, "site": min(i // 333, 2), "label": i % 2} for i in range(1000)]
    write_rows(tmp_path / "t.csv", rows)
    split = {"group": "site", "validation": 0.1, "test": 0.2}
    checked = recipe(**{**ON_A_TABLE, "data__split": split})
    far = [line for line in load_dataset(checked, header_of(checked)).notices if "asks for" in line]
    assert [line.split(" has ")[0] for line in far] == ["split 'validation'", "split 'test'"]
    assert "of 1,000) where data.split.validation asks for 10%" in far[0]
    assert "of 1,000) where data.split.test asks for 20%" in far[1]
    assert all(line.endswith(", because each group of column 'site' stays whole") for line in far)
