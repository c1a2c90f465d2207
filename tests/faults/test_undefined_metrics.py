"""F17: a validation metric without a value steers nothing, whether the labels or the predictions leave it undefined."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mtl
from tests.experiment.test_resume import assert_same, no_plots
from tests.support.assertions import Capture, called, refused
from tests.support.command_line import ran
from tests.support.recipes import linear, small, table, write
from tests.support.tables import write_rows
from tests.test_equalities import StopAt, stopped_after

__all__ = ["no_plots"]
EPOCHS, PER_EPOCH = 8, 4
SAYS_NO = 11
"""The seed with which the network begins by saying `no` to all rows."""


def write_table(path: Path, n_yes: int) -> None:
    """One input: where it is low, most training rows are `yes`; the low validation rows are `no`.

    Validation also has `n_yes` rows that are high, and `yes`. A precision of these rows has no value while nothing is
    predicted `yes`, and is 0 as soon as a low row is.
    """
    draw = random.Random(1)
    rows = [(draw.gauss(-1, 0.3), "train", ["no", "yes"][i % 5 > 0]) for i in range(40)]
    rows += [(draw.gauss(3, 0.3), "train", "no") for _ in range(40)]
    rows += [(draw.gauss(-1, 0.3), "validation", "no") for _ in range(10)]
    rows += [(draw.gauss(3, 0.3), "validation", "yes") for _ in range(n_yes)]
    rows += [(draw.gauss(i % 2 * 4 - 1, 0.3), "test", ["yes", "no"][i % 2]) for i in range(10)]
    path.write_text("u,part,sold\n" + "".join(f"{u},{part},{sold}\n" for u, part, sold in rows))


def made(folder: Path, kind: str, metric: str, n_yes: int = 0, **train: Any) -> dict[str, Any]:
    write_table(folder / "t.csv", n_yes)
    task = {"kind": kind, "target": "sold", "metrics": [metric]}
    return small(
        seed=SAYS_NO if n_yes else 3,
        data={"source": table(folder / "t.csv", "u"), "split": {"column": "part"}},
        tasks={"sold": task},
        model__backbone__stages=linear(8),
        optimizer={"kind": "adam", "lr": 0.003},
        train={"epochs": EPOCHS, "batch_size": 20, "threads": 1, "device": "cpu", **train},
    )


def measured(run: Path, metric: str, of: str = "sold") -> list[float | None]:
    """Of each epoch."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row[f"validation/{of}/{metric}"] for row in rows if row["split"] == "validation"]


# --- the predictions leave it undefined ---


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("train", [{}, {"early_stopping": {"patience": 1}}])
def test_undefined_at_first(train: dict[str, Any], tmp_path: Path) -> None:
    """The first epoch with a value is the best, although it is the lowest there is; no earlier one ends the run."""
    recipe = made(tmp_path, "binary", "precision", n_yes=2, **train)
    record = mtl.run(recipe, out=tmp_path / "straight").record.plain()
    values = measured(tmp_path / "straight", "precision")
    first = values.index(0.0)
    assert first >= 2
    assert values == [None] * first + [0.0] * (2 if train else EPOCHS - first)
    assert record["selected"] == {"epoch": first + 1, "step": (first + 1) * PER_EPOCH}
    assert record["stopped_early"] == bool(train)
    stops = [StopAt(PER_EPOCH - 1), StopAt(2), StopAt(PER_EPOCH)]  # before, within and after undefined epochs
    stopped_after(recipe, tmp_path / "stopped", *stops)
    assert_same(tmp_path / "straight", tmp_path / "stopped")


# --- the labels leave it undefined ---

ONE_CLASS = [
    ("binary", "auroc"),
    ("binary", "average_precision"),
    ("multiclass", "cohen_kappa"),
    ("binary", "f1"),
]


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(("kind", "metric"), ONE_CLASS)
def test_undefined_throughout(kind: str, metric: str, tmp_path: Path) -> None:
    """Validation has one class: the mean loss chooses the step; a resumed run chooses the same one."""
    recipe = made(tmp_path, kind, metric)
    record = mtl.run(recipe, out=tmp_path / "straight").record.plain()
    assert measured(tmp_path / "straight", metric) == [None] * EPOCHS
    assert measured(tmp_path / "straight", metric, "mean") == [None] * EPOCHS
    losses = [loss for loss in measured(tmp_path / "straight", "loss") if loss is not None]
    assert measured(tmp_path / "straight", "loss", "mean") == losses
    best = 1 + losses.index(min(losses))
    assert best < EPOCHS
    assert record["selected"] == {"epoch": best, "step": best * PER_EPOCH}
    notices = [
        f"task 'sold' has a single class in validation: {metric} is undefined there, and means over tasks leave it out",
        f"no task has the metric {metric} in validation: the mean loss chooses the step",
    ]
    stopped_after(recipe, tmp_path / "stopped", StopAt(PER_EPOCH + 1), notices=notices)
    assert_same(tmp_path / "straight", tmp_path / "stopped")


CELLS: dict[str, Callable[[int], object]] = {
    "both": lambda i: i // 2 % 2,
    "other": lambda i: i // 3 % 2,
    "one_in_validation": lambda i: int(i // 2 % 2 and not 40 <= i < 50),
    "one_in_test": lambda i: int(i // 2 % 2 or i >= 50),
    "number": lambda i: 5.0 if 40 <= i < 50 else i,
}
MANY = {name: {"kind": "binary", "target": name, "metrics": ["auroc", "f1"]} for name in list(CELLS)[:4]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    parts = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    write_rows(
        tmp_path / "t.csv",
        [
            {"u": i % 7, "v": i * i % 11, "part": part, **{name: cell(i) for name, cell in CELLS.items()}}
            for i, part in enumerate(parts)
        ],
    )
    return tmp_path


def written(folder: Path, tasks: dict[str, Any], **train: Any) -> None:
    write(
        folder,
        data={"source": table("t.csv", "u", "v"), "split": {"column": "part"}},
        tasks=tasks,
        train={"epochs": 30, "batch_size": 20, "threads": 1, "device": "cpu", **train},
        optimizer={"kind": "adam", "lr": 0.01},
    )


def test_the_mean_is_over_the_tasks_that_have_it(folder: Path, capsys: Capture) -> None:
    """One task of four has one class in validation, another one in test: the others choose the step."""
    written(folder, MANY, early_stopping={"patience": 5})
    done, record = ran(capsys, folder)
    lines = done.stderr.splitlines()
    told = [line for line in lines if "undefined" in line]
    assert told == [
        "warning: task 'one_in_validation' has a single class in validation: "
        "auroc and f1 are undefined there, and means over tasks leave it out",
        "warning: task 'one_in_test' has a single class in test: "
        "auroc is undefined there, and means over tasks leave it out",
    ]
    rows = list(map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines()))
    means = []
    for row in rows:
        split = row["split"]
        out = {"validation": "one_in_validation", "test": "one_in_test"}.get(split)
        each = [row[f"{split}/{task}/auroc"] for task in MANY if task != out]
        assert row[f"{split}/mean/auroc"] == pytest.approx(sum(each) / len(each), abs=1e-12)
        means += [row["validation/mean/auroc"]] if split == "validation" else []
        assert out is None or row[f"{split}/{out}/auroc"] is None
    best = 1 + means.index(max(means))
    assert record["selected"]["epoch"] == best
    assert record["epoch"] == min(30, best + 5)
    assert "(chosen on validation)" in done.stdout


REFUSED = {
    "validation/one_in_validation/auroc": (
        MANY,
        "task 'one_in_validation' has a single class in validation, so that it has no auroc there",
    ),
    "validation/mean/auroc": (
        {"one_in_validation": MANY["one_in_validation"]},
        "no task has the metric auroc in validation",
    ),
    "validation/number/r2": (
        {"number": {"kind": "regression", "target": "number"}},
        "task 'number' has equal labels only in validation, so that it has no r2 there",
    ),
}


@pytest.mark.parametrize("metric", REFUSED)
def test_a_named_metric_that_cannot_be_is_refused(metric: str, folder: Path, capsys: Capture) -> None:
    tasks, text = REFUSED[metric]
    written(folder, tasks, early_stopping={"metric": metric})
    line = f"train.early_stopping.metric: {text}; name another metric, or split otherwise"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [line])
