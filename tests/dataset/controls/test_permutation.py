"""`data.permute_labels` moves the labels of a task among rows, and changes nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.controls.permutation import donors
from mtl.dataset.header import header_of
from mtl.recipe.load import load_recipe
from tests.support.assertions import Capture, called
from tests.support.tables import recipe_in, write_rows

N = 600
TASKS = {
    "sort": {"kind": "multiclass", "target": "sort", "class_weights": "balanced", "sample_weight": "w"},
    "amount": {"kind": "regression", "target": "amount", "missing": "mask"},
    "tags": {"kind": "multilabel", "targets": ["t0", "t1"]},
}
GROUP = {"sort": "multiclass_3", "amount": "regression_1", "tags": "multilabel_2"}
SPLITS = ("train", "validation", "test")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(4)
    rows: list[dict[str, object]] = [
        {
            "u": f"{rng.normal():.4f}",
            "v": f"{rng.normal():.4f}",
            "part": ("train", "train", "validation", "test")[i // 4 % 4],
            "person": f"p{i // 4}",
            "sort": "pqr"[int(rng.integers(3))],
            "amount": f"{rng.normal():.3f}" if i % 3 else "",
            "t0": int(rng.random() < 0.5),
            "t1": int(rng.random() < 0.1),
            "w": f"{rng.uniform(0.5, 2):.3f}",
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
    """The labels of the rows of a split, and whether each is there."""
    rows = dataset.splits[split]
    there = dataset.rows.present[GROUP[task]][rows, 0].numpy()
    return dataset.rows.target[GROUP[task]][rows, 0].numpy(), there


@pytest.mark.parametrize("task", TASKS)
def test_labels_move_and_nothing_else_does(task: str, folder: Path) -> None:
    plain, control = read(), read(f"data.permute_labels.tasks=[{task}]", "data.permute_labels.seed=7")
    for split in ("train", "validation"):
        (was, there), (now, still_there) = labels(plain, task, split), labels(control, task, split)
        np.testing.assert_array_equal(there, still_there)
        np.testing.assert_array_equal(np.sort(was[there], axis=0), np.sort(now[there], axis=0))
        differ = (was[there] != now[there]).reshape(there.sum(), -1).any(axis=1).mean()
        assert differ > 0.3
        np.testing.assert_array_equal(was[~there], now[~there])
    if task == "tags":  # a row's labels stay together
        (was, _), (now, _) = labels(plain, task, "train"), labels(control, task, "train")
        assert sorted(map(tuple, was.tolist())) == sorted(map(tuple, now.tolist()))
    np.testing.assert_array_equal(labels(plain, task, "test")[0], labels(control, task, "test")[0])
    for other in TASKS.keys() - {task}:
        for split in SPLITS:
            np.testing.assert_array_equal(labels(plain, other, split)[0], labels(control, other, split)[0])
    assert control.learned.constants == plain.learned.constants
    assert control.learned.outputs == plain.learned.outputs
    for group, weight in plain.rows.weight.items():
        np.testing.assert_array_equal(weight.numpy(), control.rows.weight[group].numpy())
    np.testing.assert_array_equal(plain.rows.inputs.numpy(), control.rows.inputs.numpy())
    assert control.fingerprint == plain.fingerprint


def test_the_permutation_depends_on_its_seed_and_its_task_alone(folder: Path) -> None:
    def sort(*overrides: str) -> list[int]:
        found: list[int] = labels(read("data.permute_labels.tasks=[sort]", *overrides), "sort", "train")[
            0
        ].tolist()
        return found

    usual = sort()
    assert sort("seed=5", "data.permute_labels.tasks=[amount, sort]") == usual
    assert sort("data.permute_labels.seed=1") != usual


def test_a_thinned_task_is_permuted_among_the_labels_that_are_left(folder: Path) -> None:
    thin = "data.label_fraction.sort=0.2"
    plain, control = read(thin), read(thin, "data.permute_labels.tasks=[sort]")
    (was, there), (now, still) = labels(plain, "sort", "train"), labels(control, "sort", "train")
    np.testing.assert_array_equal(there, still)
    assert np.bincount(was[there]).tolist() == np.bincount(now[there]).tolist()
    assert control.learned.constants == plain.learned.constants


def test_labels_of_a_group_move_together(folder: Path) -> None:
    grouped = ("data.split={group: person, test: 0.2, validation: 0.2}",)
    plain = read(*grouped)
    control = read(*grouped, "data.permute_labels.tasks=[sort]")
    train = plain.splits["train"]
    assert len(train) % 4 == 0
    was = np.sort(labels(plain, "sort", "train")[0].reshape(-1, 4), axis=1)
    now = np.sort(labels(control, "sort", "train")[0].reshape(-1, 4), axis=1)
    assert sorted(map(tuple, was.tolist())) == sorted(map(tuple, now.tolist()))
    assert (was != now).any(axis=1).mean() > 0.5
    assert any("those of a group together" in line for line in control.notices)


@pytest.mark.parametrize(
    "sizes", [[1], [5], [3, 3], [4, 3], [2, 2, 2, 5], [3, 3, 1, 1, 4, 9], [7, 1, 1, 1], [2] * 30 + [1] * 20]
)
def test_any_blocks_give_a_permutation(sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    blocks = rng.permutation(np.repeat(10 * np.arange(len(sizes)), sizes))
    found = donors(len(blocks), blocks, 3, "s")
    assert sorted(found.tolist()) == list(range(len(blocks)))
    for size in {s for s in sizes if sizes.count(s) > 1}:
        lone = [s for s in sizes if sizes.count(s) == 1]
        if len(lone) == 1 and min(set(sizes) - {lone[0]}, key=lambda s: abs(s - lone[0])) == size:
            continue  # the lone block joins these
        for block in np.unique(blocks):
            if (blocks == block).sum() == size:
                assert len(set(blocks[found[blocks == block]].tolist())) == 1


def test_blocks_without_a_partner_keep_most_labels_together() -> None:
    sizes = [10, 20, 30, 40]
    blocks = np.repeat(np.arange(4), sizes)
    given = blocks[donors(100, blocks, 1, "s")]
    runs = 1 + np.count_nonzero(np.diff(given))
    parts = [len(set(given[blocks == b].tolist())) for b in range(4)]
    assert runs >= 4
    assert sum(parts) <= 7  # four blocks laid end to end are cut at three places at most


def test_a_run_says_that_it_is_a_control_and_eval_measures_true_labels(folder: Path, capsys: Capture) -> None:
    control = ("data.permute_labels={tasks: [sort], seed: 7}", "train.epochs=1")
    done = called(capsys, "run", "r.yaml", *control, "--out", "run")
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "control" in line]
    assert "the labels of task 'sort' are permuted (data.permute_labels, seed 7), so that " in said
    record = json.loads((folder / "run" / "run.json").read_text())
    plain = load_recipe(str(folder / "run" / "recipe.resolved.yaml"))
    assert plain.data.permute_labels is not None
    assert plain.data.permute_labels.tasks == ("sort",)
    again = called(capsys, "eval", "run")
    assert again.returncode == 0, again.stderr
    assert f"{record['results']['test/sort/accuracy']:.4f}" in again.stdout
    # rows of another file keep their labels: the training rows as a file of their own
    import mtl

    rows = [
        line for line in (folder / "t.csv").read_text().splitlines() if ",train," in line or "part" in line
    ]
    (folder / "own.csv").write_text("\n".join(rows) + "\n")
    predicted = mtl.load("run").predict("own.csv")["sort"]
    true = [line.split(",")[4] for line in rows[1:]]
    right = float(np.mean([p == y for p, y in zip(predicted, true, strict=True)]))
    shown = called(capsys, "eval", "run", "--data", "own.csv")
    (line,) = [text for text in shown.stdout.splitlines() if text.startswith("sort")]
    assert f"{right:.4f}" in line
