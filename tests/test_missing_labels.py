"""Labels that are missing, from the file to the metrics (D21), and tasks whose labels come from several files.

Shapes: N tasks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mtl
from mtl.build import build
from mtl.data.types import Rows as RowNumbers
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import TASKS
from mtl.training.backward import Measured, losses, totals_of
from mtl.training.trainer import Trainer
from tests.support import recipes
from tests.support.assertions import Capture, called, refused
from tests.support.command_line import ran
from tests.support.tables import Rows, recipe_in, write_rows


def dataset_of(folder: Path) -> Dataset:
    recipe = load_recipe(folder / "r.yaml")
    return load_dataset(recipe, header_of(recipe))


def trainer_of(folder: Path) -> Trainer:
    recipe = load_recipe(folder / "r.yaml")
    dataset = load_dataset(recipe, header_of(recipe))
    return Trainer.create(recipe, build(recipe, dataset.header, dataset.learned), dataset)


def losses_of(trainer: Trainer, rows: RowNumbers) -> Tensor:
    """(N,) the losses of a step on some rows."""
    batch = trainer.dataset.rows.batch(rows)
    totals = totals_of(trainer, [batch])
    return losses(trainer, batch, totals, Measured(torch.zeros_like(totals.counted_N)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- a batch without labels of a task (D21) ---------------------------------------------------------------

KINDS: dict[str, tuple[dict[str, Any], Callable[[int], dict[str, object]]]] = {
    "multiclass": ({"target": "?"}, lambda i: {"?": "pqr"[i % 3]}),
    "binary": ({"target": "?"}, lambda i: {"?": i // 2 % 2}),
    "ordinal": ({"target": "?"}, lambda i: {"?": i * 7 % 4}),
    "regression": ({"target": "?"}, lambda i: {"?": i * 0.5 - 3}),
    "multilabel": ({"targets": ["?x", "?y"]}, lambda i: {"?x": i % 2, "?y": i // 2 % 2}),
}
"""Options of a task, and the cells of row i, in which `?` stands for the task's name."""


def test_every_kind_is_here() -> None:
    """Names with a dot are tasks of these kinds."""
    assert {name for name in TASKS.names() if "." not in name} == set(KINDS)


def options(kind: str, task: str) -> dict[str, object]:
    given = json.dumps({"kind": kind, "missing": "mask", **KINDS[kind][0]})
    made: dict[str, object] = json.loads(given.replace("?", task))
    return made


def cells(kind: str, task: str, i: int, missing: bool) -> dict[str, object]:
    return {name.replace("?", task): "" if missing else value for name, value in KINDS[kind][1](i).items()}


def gradients(trainer: Trainer, loss: Tensor) -> dict[str, Tensor | None]:
    trainer.built.model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad for name, p in trainer.built.model.named_parameters()}


@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_labels_of_a_task(kind: str, other: str, folder: Path) -> None:
    """Its loss and all gradients of it are exactly 0; the other task's gradient has the bits that it has alone."""
    write_rows(
        folder / "t.csv",
        [
            {
                "u": i,
                "v": i * i % 7,
                "part": "test" if i > 20 else "train",
                **cells(other, "a", i, False),
                **cells(kind, "b", i, i < 8),
            }
            for i in range(28)
        ],
    )
    recipe_in(folder, {"a": options(other, "a"), "b": options(kind, "b")})
    trainer = trainer_of(folder)
    assert len(trainer.built.groups) == (1 if kind == other else 2)
    losses_N = losses_of(trainer, np.arange(8))
    assert losses_N[1].item() == 0
    assert losses_N[0].item() > 0
    both = gradients(trainer, losses_N.sum())
    alone = gradients(trainer, losses_of(trainer, np.arange(8))[0])
    none = gradients(trainer, losses_of(trainer, np.arange(8))[1])
    assert len(both) >= 3
    nonzero = 0
    for name, gradient in both.items():
        assert gradient is not None
        own, nothing = alone[name], none[name]
        assert torch.equal(gradient, torch.zeros_like(gradient) if own is None else own), name
        nonzero += bool(gradient.any())
        assert nothing is None or not nothing.any(), name
    assert nonzero >= 2  # of the task that has labels
    with_labels = losses_of(trainer, np.arange(4, 12))
    assert with_labels[1].item() > 0


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_mean_over_the_labels_that_are_there(weighted: bool, folder: Path) -> None:
    """With weights: their losses over their number times the mean weight of the labels in train."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "u": rng.normal(),
            "v": rng.normal(),
            "part": "train" if i < 20 else "test",
            "a": "pqr"[i % 3] if i % 4 else "",
            "b": f"{rng.normal():.3f}" if i % 5 < 2 else "",
            "w": f"{rng.uniform(0, 3):.3f}" if i % 5 < 2 else "",  # a row without a label needs no weight
        }
        for i in range(30)
    ]
    write_rows(folder / "t.csv", rows)
    weight = {"sample_weight": "w"} if weighted else {}
    recipe_in(
        folder,
        {
            "a": {"kind": "multiclass", "target": "a", "missing": "mask"},
            "b": {"kind": "regression", "target": "b", "missing": "mask", **weight},
        },
    )
    trainer = trainer_of(folder)
    batch = np.array([0, 1, 2, 3, 5, 6, 7, 8, 11, 16])
    losses_N = losses_of(trainer, batch).tolist()
    with torch.no_grad():
        logits = trainer.built.model(trainer.dataset.rows.batch(batch).inputs)
    z_a, z_b = logits["a"].double().numpy(), logits["b"].double().numpy()[:, 0]
    in_a = [k for k, i in enumerate(batch) if rows[i]["a"]]
    log_p = z_a - np.log(np.exp(z_a).sum(axis=1, keepdims=True))
    classes = ["pqr".index(str(rows[batch[k]]["a"])) for k in in_a]
    assert losses_N[0] == pytest.approx(
        -np.mean([log_p[k, c] for k, c in zip(in_a, classes, strict=True)]), rel=1e-5
    )
    labels = np.array([float(str(row["b"])) for row in rows[:20] if row["b"]])
    in_b = [k for k, i in enumerate(batch) if rows[i]["b"]]
    y = (np.array([float(str(rows[batch[k]]["b"])) for k in in_b]) - labels.mean()) / labels.std()
    w = np.array([float(str(rows[batch[k]]["w"])) for k in in_b]) if weighted else np.ones(len(in_b))
    assert 0 < len(in_b) < len(in_a) < len(batch)
    of_train = [float(str(row["w"])) if weighted else 1.0 for row in rows[:20] if row["b"]]
    total = len(in_b) * np.mean(of_train)
    assert weighted == (total != pytest.approx(w.sum(), rel=1e-3))
    assert losses_N[1] == pytest.approx(float((w * (z_b[in_b] - y) ** 2).sum() / total), rel=1e-5)


# --- a run ------------------------------------------------------------------------------------------------


def scarce(folder: Path) -> list[dict[str, object]]:
    """64 rows for training, 30 for testing; `rare` has labels in 6 of the first and 10 of the second."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, object]] = []
    for i in range(94):
        u, v = rng.normal(size=2)
        labelled = i % 12 == 0 if i < 64 else i % 3 == 0
        rows.append(
            {
                "u": u,
                "v": v,
                "part": "train" if i < 64 else "test",
                "often": "yes" if u > 0 else "no",
                "rare": "pqr"[i // 3 % 3] if labelled else "",
                "value": f"{u - v:.3f}" if labelled else "",
                "w": f"{rng.uniform(0.5, 2):.3f}",
            }
        )
    write_rows(folder / "t.csv", rows)
    return rows


SCARCE = {
    "often": {"kind": "binary", "target": "often"},
    "rare": {"kind": "multiclass", "target": "rare", "missing": "mask"},
    "value": {"kind": "regression", "target": "value", "missing": "mask", "sample_weight": "w"},
}


def test_a_run_whose_batches_lack_labels(folder: Path, capsys: Capture) -> None:
    """Batches of four rows: most have no label of two of the tasks. No error; counts and metrics are of labels."""
    rows = scarce(folder)
    recipe_in(folder, SCARCE, train={"batch_size": 4, "epochs": 3})
    done = called(capsys, "run", "r.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["data"]["labels"] == {
        "rare": {"train": 6, "test": 10},
        "value": {"train": 6, "test": 10},
    }
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    assert len(train) == 3
    for line in train:
        assert (line["train/rare/labels"], line["train/value/labels"]) == (6, 6)
        assert "train/often/labels" not in line
        assert all(
            value is None or math.isfinite(value) for value in line.values() if not isinstance(value, str)
        )
    results = record["results"]
    assert results["test/rare/labels"] == 10

    test = [row for row in rows if row["part"] == "test"]
    write_rows(folder / "test.csv", test)
    predicted = mtl.load("run").predict("test.csv")
    there = [k for k, row in enumerate(test) if row["rare"]]
    assert len(there) == 10
    right = [predicted["rare"][k] == test[k]["rare"] for k in there]
    assert results["test/rare/accuracy"] == pytest.approx(np.mean(right))
    off = [float(predicted["value"][k]) - float(str(test[k]["value"])) for k in there]
    assert results["test/value/mae"] == pytest.approx(np.mean(np.abs(off)), rel=1e-5)
    assert results["test/often/accuracy"] == pytest.approx(
        np.mean([p == row["often"] for p, row in zip(predicted["often"], test, strict=True)])
    )


def test_the_running_loss_is_the_mean_over_labels_by_their_weights(folder: Path, capsys: Capture) -> None:
    """With a rate so small that nothing is learned, it is the loss of the initial network over all training rows."""
    rows = scarce(folder)
    recipe_in(folder, SCARCE, train={"batch_size": 4, "epochs": 1})
    done = called(capsys, "run", "r.yaml", "optimizer.lr=1e-30", "--out", "run")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    trainer = trainer_of(folder)
    train = trainer.dataset.splits["train"]
    there = [k for k in range(64) if rows[k]["value"]]
    with torch.no_grad():
        logits = trainer.built.model(trainer.dataset.rows.batch(train).inputs)
        z = logits["value"].double().numpy()[there, 0]
    labels = np.array([float(str(rows[k]["value"])) for k in there])
    w = np.array([float(str(rows[k]["w"])) for k in there])
    loss = (w * (z - (labels - labels.mean()) / labels.std()) ** 2).sum() / w.sum()
    assert lines[0]["train/value/loss"] == pytest.approx(loss, rel=1e-4)


def test_min_labelled_in_a_run(folder: Path, capsys: Capture) -> None:
    """Each batch of 8 has 2 labelled rows and 6 others: 64 rows make 11 batches, the last of them of 4 + 2."""
    scarce(folder)
    recipe_in(folder, SCARCE, train={"batches": {"min_labelled": {"rare": 2}}, "epochs": 1})
    trainer = trainer_of(folder)
    sizes = [len(part) for part in trainer.sampler.batches(0)]
    assert sizes == [8] * 10 + [6]
    for part in trainer.sampler.batches(0):
        assert np.count_nonzero(part % 12 == 0) >= 2
    done = called(capsys, "run", "r.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    (line, *_) = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line["train/rare/labels"] == 6 + 11 * 2  # every row once, and those of the slots
    assert line["step"] == 11


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            {"rare": 7},
            "train.batches.min_labelled.rare: 7 rows are asked for in each batch, train has 6 with this label; "
            "ask for 6 or fewer",
        ),
        (
            {"rare": 4, "value": 4},
            "train.batches.min_labelled: 8 rows are reserved of a batch of 8; leave room for other rows",
        ),
        ({"rrare": 2}, "train.batches.min_labelled.rrare: unknown task 'rrare' (did you mean 'rare'?)"),
    ],
)
def test_min_labelled_that_cannot_be(asked: dict[str, int], text: str, folder: Path, capsys: Capture) -> None:
    scarce(folder)
    recipe_in(folder, SCARCE, train={"batches": {"min_labelled": asked}})
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


# --- tasks from several files -----------------------------------------------------------------------------


def thirds() -> list[dict[str, object]]:
    """60 rows in three blocks, each of which has labels of another task only."""
    rng = np.random.default_rng(2)
    rows: list[dict[str, object]] = []
    for i in range(60):
        u, v = rng.normal(size=2).round(3)
        block = i // 20
        rows.append(
            {
                "u": u,
                "v": v,
                "c": ["red", "blue", "green"][int(rng.integers(3))] if block else "red",
                "part": "test" if i % 4 == 3 else "train",
                "size": [2, 10, 9][i % 3] if block == 0 else "",
                "name": ["elk", "bee"][i % 2] if block == 1 else "",
                "cost": f"{u + v:.3f}" if block == 2 else "",
            }
        )
    return rows


THIRDS = {
    "size": {"kind": "multiclass", "target": "size", "missing": "mask"},
    "name": {"kind": "multiclass", "target": "name", "missing": "mask"},
    "cost": {"kind": "regression", "target": "cost", "missing": "mask"},
}
INPUTS = {"numeric": ["u", "v"], "categorical": ["c"]}


def test_one_file_or_three_are_the_same_data(folder: Path) -> None:
    """Label counts, splits, standardization, categories, classes, targets: all the same, and so is the training."""
    rows = thirds()
    write_rows(folder / "t.csv", rows)
    recipe_in(
        folder,
        THIRDS,
        data={"source": {"kind": "table", "path": "t.csv", "inputs": INPUTS}, "split": {"column": "part"}},
    )
    one, losses = dataset_of(folder), []
    losses.append(losses_of(trainer_of(folder), np.arange(60)))
    for k, task in enumerate(THIRDS):
        keep = ["u", "v", "c", "part", task]
        write_rows(
            folder / f"{k}.csv", [{name: row[name] for name in keep} for row in rows[20 * k : 20 * k + 20]]
        )
    sources = {f"s{k}": {"kind": "table", "path": f"{k}.csv"} for k in range(3)}
    recipe_in(folder, THIRDS, data={"sources": sources, "inputs": INPUTS, "split": {"column": "part"}})
    three = dataset_of(folder)
    losses.append(losses_of(trainer_of(folder), np.arange(60)))

    assert torch.equal(one.rows.inputs, three.rows.inputs)
    assert {name: part.tolist() for name, part in one.splits.items()} == {
        name: part.tolist() for name, part in three.splits.items()
    }
    assert one.learned.outputs == three.learned.outputs
    assert one.learned.outputs["size"] == ("2", "9", "10")
    assert one.learned.outputs["name"] == ("bee", "elk")
    assert one.learned.layout is not None
    assert one.learned.layout.values == {"c": ("blue", "green", "red")}
    assert three.learned.layout == one.learned.layout
    for field in ("mean", "std", "fill"):
        np.testing.assert_array_equal(getattr(one.learned, field), getattr(three.learned, field))
    assert one.learned.constants == three.learned.constants
    for group, present in one.rows.present.items():
        assert torch.equal(present, three.rows.present[group])
        assert torch.equal(one.rows.target[group][present], three.rows.target[group][present])
    assert three.streams == {"s0": range(20), "s1": range(20, 40), "s2": range(40, 60)}
    assert torch.equal(losses[0], losses[1])


def test_one_run_over_three_files(folder: Path, capsys: Capture) -> None:
    """A source without any label of a task is no fault; `labels` and `rows` are counted over all files."""
    rows = thirds()
    for k, task in enumerate(THIRDS):
        keep = ["u", "v", "c", "part", task]
        write_rows(
            folder / f"{k}.csv", [{name: row[name] for name in keep} for row in rows[20 * k : 20 * k + 20]]
        )
    sources = {f"s{k}": {"kind": "table", "path": f"{k}.csv"} for k in range(3)}
    recipe_in(
        folder,
        THIRDS,
        data={"sources": sources, "inputs": INPUTS, "split": {"column": "part"}},
        train={"batches": {"sampling": "uniform", "min_labelled": {"cost": 2}}},
    )
    _, record = ran(capsys, folder)
    assert record["data"]["rows"] == {"train": 45, "test": 15}
    assert record["data"]["labels"] == {task: {"train": 15, "test": 5} for task in THIRDS}


def test_a_column_of_one_name_in_two_files(folder: Path) -> None:
    """Digits in one, letters in the other: each task has the classes of its own file, read in its own way."""
    write_rows(folder / "d.csv", [{"u": i, "v": 0, "label": i % 10} for i in range(40)])
    write_rows(folder / "l.csv", [{"u": i, "v": 1, "label": "xyz"[i % 3]} for i in range(30)])
    write_rows(folder / "q.csv", [{"u": i, "v": 2, "label": i / 4} for i in range(20)])
    names = {"digit": "d", "letter": "l", "quantity": "q"}
    kinds = {"digit": "multiclass", "letter": "multiclass", "quantity": "regression"}
    recipe_in(
        folder,
        {t: {"kind": kinds[t], "target": "label", "source": s, "missing": "mask"} for t, s in names.items()},
        data={
            "sources": {s: {"kind": "table", "path": f"{s}.csv"} for s in names.values()},
            "inputs": {"numeric": ["u", "v"]},
            "split": {"test": 0.3},
        },
    )
    dataset = dataset_of(folder)
    assert dataset.learned.outputs == {
        "digit": tuple(map(str, range(10))),
        "letter": ("x", "y", "z"),
        "quantity": ("value",),
    }
    counts = {group: present.sum(0).tolist() for group, present in dataset.rows.present.items()}
    assert counts == {"multiclass_10": [40], "multiclass_3": [30], "regression_1": [20]}
    assert dataset.notices == ("split 'test' has 27 rows, so its results are rough: one row is 3.7% of them",)


def two_sources(folder: Path, other: Rows, **task: object) -> None:
    write_rows(folder / "one.csv", [{"u": i, "v": i, "x": i % 2} for i in range(20)])
    (folder / "deep").mkdir()
    write_rows(folder / "deep" / "other.csv", other)
    recipe_in(
        folder,
        {"it": {"kind": "binary", "target": "x", **task}},
        data={
            "sources": {
                "one": {"kind": "table", "path": "one.csv"},
                "other": {"kind": "table", "path": "deep/other.csv"},
            },
            "inputs": {"numeric": ["u", "v"]},
            "split": {"test": 0.3},
        },
    )


REFUSED: dict[str, tuple[Rows, dict[str, object], str]] = {
    "a missing label": (
        [{"u": i, "v": i, "x": "" if i == 3 else 1} for i in range(9)],
        {},
        "r.yaml:5:30: tasks.it.target: other.csv:row 5: no label in column 'x'; set `missing: mask`",
    ),
    "a label that is no class": (
        [{"u": i, "v": i, "x": 7 if i in (4, 6) else 1} for i in range(9)],
        {"kind": "multiclass", "classes": 2},
        "tasks.it.target: other.csv:row 6: label 7, allowed 0..1",
    ),
    "a missing input": (
        [{"u": i, "v": "" if i == 0 else i, "x": 1} for i in range(9)],
        {},
        "other.csv:row 2, column 'v': the value is missing",
    ),
    "an input that is no number": (
        [{"u": i, "v": "?" if i == 2 else i, "x": 1} for i in range(9)],
        {},
        "data.sources.other: other.csv:row 4, column 'v': '?' is not a number",
    ),
    "a negative weight": (
        [{"u": i, "v": i, "x": i % 2, "w": -1 if i == 5 else 1} for i in range(9)],
        {"sample_weight": "w", "source": "other", "missing": "mask"},
        "tasks.it.sample_weight: other.csv:row 7: the weight in column 'w' is -1; it must be 0 or more",
    ),
    "a column that only another source has": (
        [{"u": i, "v": i, "y": 1} for i in range(9)],
        {"source": "other"},
        "tasks.it.target: no label column 'x'; columns: u, v, y",
    ),
    "no such input": (
        [{"u": i, "x": 1} for i in range(9)],
        {},
        "data.sources.other.inputs.numeric[1]: other.csv: no column 'v'; columns: u, x",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_is_named_by_the_file_it_is_in(name: str, folder: Path, capsys: Capture) -> None:
    rows, task, text = REFUSED[name]
    two_sources(folder, rows, **task)
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


def test_rows_without_a_label_do_not_move_a_task_through_the_norm_of_its_head(folder: Path) -> None:
    """With batch norm on the logits, the loss and its gradient are those of the labelled rows alone."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "u": rng.normal(),
            "v": rng.normal(),
            "part": "train" if i < 24 else "test",
            "a": "pqr"[i % 3],
            "b": "xyz"[i % 3] if i % 3 != 1 or i > 20 else "",
        }
        for i in range(40)
    ]
    write_rows(folder / "t.csv", rows)
    plain = {"kind": "none"}
    recipe = load_recipe(
        recipes.write(
            folder,
            data={"source": recipes.table("t.csv", "u", "v"), "split": {"column": "part"}},
            tasks={
                "a": {"kind": "multiclass", "target": "a"},
                "b": {"kind": "multiclass", "target": "b", "missing": "mask"},
            },
            model__backbone={
                "kind": "layers",
                "norm": {"kind": "batch"},
                "stages": [{**stage, "norm": plain} for stage in recipes.linear(6)],
            },
            model__head={"norm": True},
            train={"epochs": 2, "batch_size": 8, "device": "cpu"},
        )
    )
    dataset = load_dataset(recipe, header_of(recipe))
    trainer = Trainer.create(recipe, build(recipe, dataset.header, dataset.learned), dataset)
    labelled = np.array([i for i in range(16) if rows[i]["b"]])
    assert 2 < len(labelled) < 16
    assert losses_of(trainer, np.arange(16))[1].item() == pytest.approx(
        losses_of(trainer, labelled)[1].item(), rel=1e-5
    )
    assert losses_of(trainer, np.arange(16))[0].item() != pytest.approx(
        losses_of(trainer, labelled)[0].item(), rel=1e-3
    )
