"""Labels that are not there or all alike (D20, D22-D25), and data of one row (D45): refused, or warned of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.assertions import Capture, called, refused
from tests.support.command_line import ran
from tests.support.tables import recipe_in, write_rows


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(folder: Path, **columns: Callable[[int], object]) -> None:
    """40 rows for training, then 10 for validation and 10 for testing."""
    parts = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    rows = [
        {"u": i, "v": i * i % 11, "part": part, **{name: cell(i) for name, cell in columns.items()}}
        for i, part in enumerate(parts)
    ]
    write_rows(folder / "t.csv", rows)


BINARY = {"kind": "binary", "target": "x", "missing": "mask"}
CLASSES = {"kind": "multiclass", "target": "x", "missing": "mask"}


@pytest.mark.parametrize(
    ("rows", "split", "todo"),
    [
        (range(40), "train", ""),
        (
            range(40, 50),
            "validation",
            "; split by data.split.stratify: all, or set data.split.on_unlabelled: warn",
        ),
        (range(50, 60), "test", "; split by data.split.stratify: all, or set data.split.on_unlabelled: warn"),
    ],
)
def test_a_split_without_labels_of_a_task(
    rows: range, split: str, todo: str, folder: Path, capsys: Capture
) -> None:
    """D20."""
    table(folder, x=lambda i: "" if i in rows else i % 2)
    recipe_in(folder, {"age": BINARY})
    text = f"r.yaml:5:8: tasks.age: task 'age' has no labels in split '{split}'{todo}"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


def test_a_single_class(folder: Path, capsys: Capture) -> None:
    """D23."""
    table(folder, x=lambda i: int(i >= 40))
    recipe_in(folder, {"gender": BINARY})
    text = "tasks.gender: task 'gender' has a single class in train: nothing to learn"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


def test_the_faults_of_all_tasks_at_once(folder: Path, capsys: Capture) -> None:
    table(folder, x=lambda i: "" if i < 40 else i % 2, y=lambda i: "" if i == 7 else i % 3, z=lambda i: i % 2)
    recipe_in(
        folder,
        {
            "a": BINARY,
            "b": {"kind": "multiclass", "target": "y"},
            "c": {"kind": "binary", "target": "z"},
            "d": {"kind": "ordinal", "target": "y"},
        },
    )
    text = "t.csv:row 9: no label in column 'y'; set `missing: mask` to leave such rows out of this task"
    lines = [
        "r.yaml:5:6: tasks.a: task 'a' has no labels in split 'train'",
        f"r.yaml:6:33: tasks.b.target: {text}",
        f"r.yaml:8:30: tasks.d.target: {text}",
    ]
    refused(lambda: called(capsys, "run", "r.yaml"), folder, lines)


WARNED: dict[str, tuple[dict[str, Any], Callable[[int], object], str]] = {
    "D22 a class that train lacks": (
        CLASSES,
        lambda i: "pqr"[i % 3] if i >= 40 else "pq"[i % 2],
        "task 'it': no row of train has 'r' (7 rows of other splits do)",
    ),
    "D25 a constant": (
        {"kind": "regression", "target": "x"},
        lambda i: 7.5 if i < 40 else i,
        "task 'it': every label of train is 7.5; r2 is undefined",
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_is_warned_of(name: str, folder: Path, capsys: Capture) -> None:
    task, cell, text = WARNED[name]
    table(folder, x=cell)
    recipe_in(folder, {"it": task}, train={"epochs": 1})
    done, record = ran(capsys, folder)
    assert [line for line in done.stderr.splitlines() if "task 'it'" in line] == [f"warning: {text}"]
    assert record["status"] == "finished"
    if "r2" in text:
        train = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[0])
        assert train["train/it/r2"] is None
        assert math.isfinite(train["train/it/rmse"])


def test_strict_classes(folder: Path, capsys: Capture) -> None:
    """D22, as an error."""
    task, cell, text = WARNED["D22 a class that train lacks"]
    table(folder, x=cell)
    recipe_in(folder, {"it": {**task, "strict_classes": True}})
    line = f"tasks.it.strict_classes: {text}; drop strict_classes, or split otherwise"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [line])


def test_a_rare_class(folder: Path, capsys: Capture) -> None:
    """D24: 2 of 2,102 training rows."""
    with (folder / "t.csv").open("w") as file:
        file.write("u,v,part,x\n")
        file.writelines(
            f"{i % 7},{i % 5},{'train' if i < 2102 else 'test'},{'yes' if i < 2 or i > 2105 else 'no'}\n"
            for i in range(2110)
        )
    recipe_in(folder, {"it": BINARY}, train={"epochs": 1, "batch_size": 1024})
    done, _ = ran(capsys, folder)
    text = (
        "warning: task 'it': 2 rows of train are 'yes', 2,100 are 'no'; "
        "accuracy says little here, look at average_precision or macro_f1"
    )
    assert text in done.stderr.splitlines()


def test_labels_of_a_list_that_train_has_on_one_side_only(folder: Path, capsys: Capture) -> None:
    """Three columns of 0 and 1 as one task: the second has no 1 in train, the third no 0."""
    table(folder, x=lambda i: i % 2, y=lambda i: int(i > 45), z=lambda i: int(i < 45))
    recipe_in(folder, {"it": {"kind": "multilabel", "targets": ["x", "y", "z"]}}, train={"epochs": 1})
    done, _ = ran(capsys, folder)
    assert [line for line in done.stderr.splitlines() if "task 'it'" in line] == [
        "warning: task 'it': no row of train has 'y'",
        "warning: task 'it': every row of train has 'z'",
    ]


ONE_ROW = {
    "source": {"kind": "table", "path": "t.csv", "test": "s.csv", "inputs": {"numeric": ["u"]}},
}
REGRESSION = {"it": {"kind": "regression", "target": "x"}}


@pytest.mark.parametrize(("norm", "batch_size"), [("none", 1), ("layer", 1), ("none", 128)])
def test_one_row(norm: str, batch_size: int, folder: Path, capsys: Capture) -> None:
    """D45."""
    write_rows(folder / "t.csv", [{"u": 1, "x": 2}])
    write_rows(folder / "s.csv", [{"u": 3, "x": 2}])
    recipe_in(folder, REGRESSION, data=ONE_ROW, train={"batch_size": batch_size}, norm=norm)
    _, record = ran(capsys, folder)
    assert record["data"]["rows"] == {"train": 1, "test": 1}


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (1, 128), (8, 1)])
def test_batch_norm_has_no_variance_of_one_row(
    n: int, batch_size: int, folder: Path, capsys: Capture
) -> None:
    """D45: the line says why."""
    write_rows(folder / "t.csv", [{"u": i, "x": i} for i in range(n)])
    write_rows(folder / "s.csv", [{"u": 1, "x": 2}])
    recipe_in(folder, REGRESSION, data=ONE_ROW, train={"batch_size": batch_size}, norm="batch")
    text = (
        "train.batch_size: a batch of one row cannot be normalized over the batch; "
        "take model.backbone.norm.kind: layer or none, or batches of more rows"
    )
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])
