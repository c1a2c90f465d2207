"""Many tasks with few labels each: which splits can be had, and what a task without labels in one of them costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.dataset.assemble import load_dataset
from mtl.dataset.header import header_of
from mtl.recipe.load import load_recipe
from tests.support.assertions import Capture, called, refused
from tests.support.command_line import ran
from tests.support.recipes import table, write
from tests.support.tables import write_rows

N, N_TASKS = 900, 20
HELD = {"validation": 0.1, "test": 0.1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`t.csv`: twenty assays with 2% of their labels, a quantity with as many, and lists with every second one."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(2)
    rows = []
    for i in range(N):
        cells: dict[str, object] = {"u": i % 13, "v": i}
        for t in range(N_TASKS):
            cells[f"assay_{t:02d}"] = int(draw.random() < 0.4) if draw.random() < 0.02 else ""
        cells["dose"] = round(draw.normal(), 3) if draw.random() < 0.02 else ""
        cells["p"], cells["q"] = (int(draw.random() < 0.1), int(draw.random() < 0.5)) if i % 2 else ("", "")
        rows.append(cells)
    write_rows(tmp_path / "t.csv", rows)
    return tmp_path


TASKS: dict[str, Any] = {
    "assay_*": {"kind": "binary", "missing": "mask"},
    "dose": {"kind": "regression", "target": "dose", "missing": "mask"},
    "tags": {"kind": "multilabel", "targets": ["p", "q"], "missing": "mask"},
}


def written(folder: Path, split: Mapping[str, Any], tasks: Mapping[str, Any] = TASKS, **changes: Any) -> Path:
    data = {"source": table("t.csv", "u", "v"), "split": split}
    return write(folder, data=data, tasks=tasks, model__towers="one", **changes)


def labels_in(path: Path) -> dict[str, dict[str, int]]:
    """Task -> split -> its labels."""
    recipe = load_recipe(path)
    dataset = load_dataset(recipe, header_of(recipe))
    cells = np.genfromtxt(path.parent / "t.csv", delimiter=",", names=True)
    columns = {task: spec.target_columns()[0] for task, spec in recipe.tasks.items()}
    return {
        task: {split: int((~np.isnan(cells[column][rows])).sum()) for split, rows in dataset.splits.items()}
        for task, column in columns.items()
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strata", ["all", ["assay_03", "assay_07", "dose"]])
def test_every_task_has_its_share_of_labels(strata: Any, seed: int, folder: Path) -> None:
    """18 labels of each: one or two in validation and in test."""
    found = labels_in(written(folder, {**HELD, "stratify": strata, "on_unlabelled": "warn"}, seed=seed))
    assert len(found) == N_TASKS + 2
    for task in found if strata == "all" else strata:
        total = sum(found[task].values())
        for split in HELD:
            assert found[task][split] >= 1, task
            assert abs(found[task][split] - 0.1 * total) < max(2.5, 0.03 * total), task


def test_labels_of_a_list_are_divided_each(folder: Path) -> None:
    """Of the label `p` 45 rows are yes: each split has its tenth, and its tenth of the rows without this label."""
    recipe = load_recipe(written(folder, {**HELD, "stratify": "tags", "on_unlabelled": "warn"}))
    splits = load_dataset(recipe, header_of(recipe)).splits
    cells = np.genfromtxt(folder / "t.csv", delimiter=",", names=True)
    for answer in (0.0, 1.0):
        for column in ("p", "q"):
            total = (cells[column] == answer).sum()
            for split in HELD:
                assert abs((cells[column][splits[split]] == answer).sum() - 0.1 * total) <= 3


def test_the_same_data_without_stratify_are_refused(folder: Path, capsys: Capture) -> None:
    written(folder, HELD)
    done = called(capsys, "run", "r.yaml")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) >= 3
    assert all("has no labels in split" in line for line in lines)
    todo = "; split by data.split.stratify: all, or set data.split.on_unlabelled: warn"
    assert all(line.endswith(todo) for line in lines)


def test_with_a_warning_such_tasks_have_no_metric_and_the_run_ends(folder: Path, capsys: Capture) -> None:
    write_rows(
        folder / "t.csv",
        [
            {
                "u": i % 7,
                "v": i,
                "part": part,
                "full": i // 2 % 2,
                "bare": "" if part == "validation" else i % 2,
            }
            for i, part in enumerate(["train"] * 40 + ["validation"] * 10 + ["test"] * 10)
        ],
    )
    tasks = {name: {"kind": "binary", "target": name, "missing": "mask"} for name in ("full", "bare")}
    tasks["bare"] |= {"temperature": True, "fit_threshold": "f1"}
    split = {"column": "part", "on_unlabelled": "warn"}
    written(folder, split, tasks, train__epochs=4, train__early_stopping={"patience": 2})
    done, record = ran(capsys, folder)
    told = [line for line in done.stderr.splitlines() if not line.startswith("warning: split ")]
    assert told == [
        "warning: task 'bare' has no label in validation: auroc, average_precision, accuracy, f1 and loss are "
        "undefined there, and means over tasks leave it out, and no temperature and no threshold is fitted"
    ]
    results = record["results"]
    assert results["validation/bare/loss"] is results["validation/bare/auroc"] is None
    assert results["validation/bare/labels"] == 0
    assert results["validation/mean/auroc"] == results["validation/full/auroc"]
    assert results["test/bare/auroc"] is not None
    assert results["test/mean/auroc"] == (results["test/full/auroc"] + results["test/bare/auroc"]) / 2
    assert "decisions" not in record
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    means = [row["validation/mean/auroc"] for row in rows if row["split"] == "validation"]
    assert record["selected"]["epoch"] == 1 + means.index(max(means))


def test_train_needs_a_label_whatever_is_said(folder: Path, capsys: Capture) -> None:
    parts = ["train"] * 40 + ["test"] * 10
    write_rows(
        folder / "t.csv",
        [{"u": i, "v": i, "part": p, "x": "" if p == "train" else i % 2} for i, p in enumerate(parts)],
    )
    tasks = {"x": {"kind": "binary", "target": "x", "missing": "mask"}}
    written(folder, {"column": "part", "on_unlabelled": "warn"}, tasks)
    line = "tasks.x: task 'x' has no labels in split 'train'"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [line])


def test_nothing_in_validation_can_stop_the_training(folder: Path, capsys: Capture) -> None:
    parts = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    write_rows(
        folder / "t.csv",
        [{"u": i, "v": i, "part": p, "x": "" if p == "validation" else i % 2} for i, p in enumerate(parts)],
    )
    tasks = {"x": {"kind": "binary", "target": "x", "missing": "mask"}}
    split = {"column": "part", "on_unlabelled": "warn"}
    written(folder, split, tasks, train__early_stopping={"patience": 2})
    line = (
        "train.early_stopping: no task with a weight has a loss in validation, so nothing tells when to stop; "
        "split otherwise"
    )
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [line])
    written(folder, split, tasks, train__epochs=2)
    done, record = ran(capsys, folder)
    assert (
        "warning: no task with a weight has a loss in validation: the last step is taken"
        in done.stderr.splitlines()
    )
    assert record["selected"]["epoch"] == 2
    assert "(the last epoch)" in done.stdout
