"""`data.label_fraction` keeps a part of a task's labels in train and validation, and no other label changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.controls.fraction import kept
from mtl.dataset.header import header_of
from mtl.recipe.load import load_recipe
from tests.support.assertions import Capture, called
from tests.support.tables import recipe_in, write_rows

N = 900
FRACTIONS = (0.003, 0.01, 0.1, 0.5, 1.0)
TASKS = {
    "sort": {"kind": "multiclass", "target": "sort"},
    "yes": {"kind": "binary", "target": "yes"},
    "amount": {"kind": "regression", "target": "amount"},
    "tags": {"kind": "multilabel", "targets": ["t0", "t1", "t2"], "missing": "mask"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(3)
    rows: list[dict[str, object]] = [
        {
            "u": f"{rng.normal():.4f}",
            "v": f"{rng.normal():.4f}",
            "part": ("train", "train", "validation", "test")[i % 4],
            "sort": "pqr"[min(2, int(rng.exponential(1.0)))],
            "yes": int(rng.random() < 0.2),
            "amount": f"{rng.normal():.3f}",
            **{f"t{j}": int(rng.random() < p) for j, p in enumerate((0.5, 0.2, 0.02))},
        }
        for i in range(N)
    ]
    write_rows(tmp_path / "t.csv", rows)
    recipe_in(tmp_path, TASKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*overrides: str) -> Dataset:
    recipe = load_recipe("r.yaml", overrides)
    return load_dataset(recipe, header_of(recipe))


def labels(dataset: Dataset, task: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The targets of the rows of a split, and whether each is there."""
    for group, columns in dataset.rows.target.items():
        recipe_tasks = [t for t in TASKS if group.startswith(f"{TASKS[t]['kind']}_")]
        if task in recipe_tasks:
            t = recipe_tasks.index(task)
            rows = dataset.splits[split]
            return columns[rows, t].numpy(), dataset.rows.present[group][rows, t].numpy()
    raise KeyError(task)


@pytest.mark.parametrize("task", TASKS)
def test_parts_are_nested_and_test_is_whole(task: str, folder: Path) -> None:
    whole = read()
    before = {split: np.zeros(len(rows), bool) for split, rows in whole.splits.items()}
    for fraction in FRACTIONS:
        dataset = read(f"data.label_fraction.{task}={fraction}")
        assert {s: r.tolist() for s, r in dataset.splits.items()} == {
            s: r.tolist() for s, r in whole.splits.items()
        }
        for split in ("train", "validation"):
            target, there = labels(dataset, task, split)
            np.testing.assert_array_equal(target, labels(whole, task, split)[0])
            assert (there >= before[split]).all()
            assert there.sum() == pytest.approx(fraction * len(there), abs=4)
            before[split] = there
        assert labels(dataset, task, "test")[1].all()
        for other in TASKS.keys() - {task}:
            for split in whole.splits:
                assert labels(dataset, other, split)[1].all()
    assert before["train"].all()


@pytest.mark.parametrize("task", ["sort", "yes"])
def test_each_class_keeps_its_share(task: str, folder: Path) -> None:
    target, _ = labels(read(), task, "train")
    counts = np.bincount(target)
    assert counts.min() >= 20
    for fraction in FRACTIONS:
        _, there = labels(read(f"data.label_fraction.{task}={fraction}"), task, "train")
        left = np.bincount(target[there], minlength=len(counts))
        assert left.tolist() == [max(1, int(fraction * n + 0.5)) for n in counts]


def test_each_label_of_several_keeps_a_row(folder: Path) -> None:
    target, _ = labels(read(), "tags", "train")
    for fraction in FRACTIONS:
        _, there = labels(read(f"data.label_fraction.tags={fraction}"), "tags", "train")
        left, whole = target[there].sum(axis=0), target.sum(axis=0)
        assert (left >= 1).all()
        assert np.abs(left - fraction * whole).max() <= 3 + 0.25 * fraction * whole.max()


def test_unknown_labels_are_no_labels() -> None:
    target = np.full((40, 2), -1)
    target[:3, 1], target[3:10, 0] = 1, 0
    stays = kept(target, True, 0.1, 0, "s")
    assert stays[:3].sum() == 1  # the one with label 1
    assert stays[3:].sum() == 4  # a tenth of the others


def test_the_choice_depends_on_its_seed_and_its_task_alone(folder: Path) -> None:
    def left(*overrides: str) -> list[bool]:
        there: list[bool] = labels(read("data.label_fraction.sort=0.2", *overrides), "sort", "train")[
            1
        ].tolist()
        return there

    usual = left()
    assert left("data.label_fraction.yes=0.5", "seed={init: 5, order: 6}") == usual
    assert left("seed=4") != usual
    assert left("seed=4", "data.label_seed=0") == usual
    assert left("data.label_seed=9") != usual


def test_what_is_learned_comes_from_the_labels_that_are_left(folder: Path) -> None:
    dataset = read("data.label_fraction.amount=0.1", "tasks.sort.class_weights=balanced")
    target, there = labels(dataset, "amount", "train")
    assert dataset.learned.constants["amount"]["mean"][0] == pytest.approx(
        float(target[there].mean()), rel=1e-5
    )
    assert any(
        line
        == "task 'amount': data.label_fraction keeps 45 of 450 labels of train and 23 of 225 labels of validation"
        for line in dataset.notices
    )


def test_labels_that_stay_whatever_the_fraction_are_said(folder: Path) -> None:
    dataset = read("data.label_fraction={amount: 0.0001, sort: 0.0001}")
    sort, amount = (line for line in dataset.notices if "data.label_fraction keeps" in line)
    assert (
        "keeps 1 of 450 labels of train (one stays) and 1 of 225 labels of validation (one stays)" in amount
    )
    assert " labels of train (one of each class stays) and " in sort


def test_a_label_that_lacks_in_the_data_is_still_an_error(folder: Path, capsys: Capture) -> None:
    text = (folder / "t.csv").read_text().splitlines()
    cells = text[5].split(",")
    cells[3] = ""
    text[5] = ",".join(cells)
    (folder / "t.csv").write_text("\n".join(text) + "\n")
    done = called(capsys, "run", "r.yaml", "data.label_fraction.sort=0.1")
    assert done.returncode == 2
    assert "no label in column 'sort'" in done.stderr


def test_a_run_records_how_many_labels_are_left(folder: Path, capsys: Capture) -> None:
    done = called(capsys, "run", "r.yaml", "data.label_fraction.sort=0.1", "train.epochs=1", "--out", "run")
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads((folder / "run" / "run.json").read_text())
    assert record["data"]["labels"]["sort"]["test"] == 225
    assert 40 <= record["data"]["labels"]["sort"]["train"] <= 50
    assert record["results"]["test/sort/accuracy"] is not None
    shown = called(capsys, "eval", "run", "--data", "t.csv")
    assert shown.returncode == 0, shown.stderr
