"""A run evaluated again: on its own splits to the same numbers, and on other files as prediction reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtl
from mtl.dataset.assemble import load_dataset
from mtl.dataset.header import header_of
from mtl.errors import UserError
from mtl.inference.predict import TrainedModel, load
from tests.inference.shop import recipe, shop_rows, table_of, write_csv, write_parquet

ALL = shop_rows(240)


@pytest.fixture(scope="module")
def model(shop: Path) -> TrainedModel:
    return load(shop / "run")


@pytest.fixture(scope="module")
def tested(model: TrainedModel) -> list[dict[str, Any]]:
    """The rows that the run held out for its test."""
    dataset = load_dataset(model.recipe, header_of(model.recipe))
    rows = [ALL[i] for i in dataset.splits["test"]]
    assert len(rows) == 60
    return rows


def results(model: TrainedModel, split: str) -> dict[str, Any]:
    record = json.loads((model.folder.path / "run.json").read_text(encoding="utf-8"))
    return {name: value for name, value in record["results"].items() if name.startswith(f"{split}/")}


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_runs_own_splits_give_the_numbers_it_reported(split: str, model: TrainedModel) -> None:
    reported = results(model, split)
    assert len(reported) >= 15
    assert {name.split("/")[1] for name in reported} >= {"sort", "yes", "amount", "grade", "tags"}
    assert load(model.folder.path).evaluate(split) == reported


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_file_of_the_test_rows_gives_the_same(
    write: Any, model: TrainedModel, tested: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = write(tmp_path / ("t.csv" if write is write_csv else "t.parquet"), tested)
    assert model.evaluate(data=path) == results(model, "test")


def test_accuracy_is_that_of_the_predictions(
    model: TrainedModel, tested: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = model.predict(table_of(tested))
    measured = model.evaluate(data=write_csv(tmp_path / "t.csv", tested))
    for task in ("sort", "yes", "grade"):
        right = np.mean([said == row[task] for said, row in zip(found[task], tested, strict=True)])
        assert measured[f"test/{task}/accuracy"] == pytest.approx(right, abs=1e-6)
    error = np.abs(found["amount"] - [row["amount"] for row in tested])
    assert measured["test/amount/mae"] == pytest.approx(error.mean(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*holds rows that the run was trained on")
def test_labels_may_be_missing_and_are_counted(model: TrainedModel, tmp_path: Path) -> None:
    rows = [{**row, "sort": None if i % 2 else row["sort"], "amount": None} for i, row in enumerate(ALL[:30])]
    measured = model.evaluate(data=write_csv(tmp_path / "t.csv", rows))
    assert measured["test/amount/r2"] is None
    half = [row for i, row in enumerate(ALL[:30]) if i % 2 == 0]
    found = model.predict(table_of(half))
    right = np.mean([said == row["sort"] for said, row in zip(found["sort"], half, strict=True)])
    assert measured["test/sort/accuracy"] == pytest.approx(right, abs=1e-6)


def test_columns_in_another_order_and_further_ones_that_patterns_would_find(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"s_1": x, "s_2": y, "c": int(x > 3 * y)} for x, y in rng.standard_normal((80, 2)).round(3).tolist()
    ]
    data = write_csv(tmp_path / "a.csv", rows)
    plain = recipe(data, tasks={"c": {"kind": "binary", "target": "c"}})
    plain["data"]["source"] = {"kind": "table", "path": str(data), "inputs": {"numeric": ["s_*"]}}
    plain["model"] = {"backbone": plain["model"]["backbone"]}
    mtl.run(plain, out=tmp_path / "run")
    model = mtl.load(tmp_path / "run")
    turned = [{"s_0": 9.0, "s_2": row["s_2"], "s_1": row["s_1"], "c": row["c"]} for row in rows]
    with pytest.warns(UserWarning, match="was trained on"):
        own = model.evaluate(data=data)
    with pytest.warns(UserWarning, match="holds rows that the run was trained on: 44 of 80 rows"):
        assert model.evaluate(data=write_csv(tmp_path / "b.csv", turned)) == own
    narrow = write_csv(tmp_path / "n.csv", [{"s_1": 1.0, "c": 1}])
    with pytest.raises(UserError, match=r"^n\.csv: no column 's_2'"):
        model.evaluate(data=narrow)


# --- what is told ---


def test_the_file_of_the_training_rows_is_told_wherever_it_lies(
    model: TrainedModel, shop: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.csv"
    shutil.copyfile(shop / "shop.csv", copy)
    n_train = model.folder.record.data.rows["train"]
    with pytest.warns(UserWarning, match="was trained on") as caught:
        model.evaluate(data=copy)
    assert [str(each.message) for each in caught] == [
        f"{copy} is the file that the run was trained on, so that its {n_train} training rows count too and the "
        f"numbers say little of new rows; mtl eval {model.folder.path} measures the rows that were held out"
    ]


def test_training_rows_in_another_file_are_counted(model: TrainedModel, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "part.csv", ALL[:100])
    n = np.count_nonzero(load_dataset(model.recipe, header_of(model.recipe)).splits["train"] < 100)
    assert 40 < n < 70
    with pytest.warns(UserWarning, match="was trained on") as caught:
        model.evaluate(data=path)
    assert [str(each.message) for each in caught] == [
        f"{path} holds rows that the run was trained on: {n} of 100 rows have the inputs of training rows, so that "
        f"they count too and the numbers say little of new rows; mtl eval {model.folder.path} measures the rows that "
        "were held out"
    ]
    model.evaluate(data=write_csv(tmp_path / "new.csv", shop_rows(60, seed=9)))  # warnings are errors


def test_rows_that_are_alike_by_chance_are_no_training_rows(tmp_path: Path) -> None:
    """A table of one category: every row that was held out has the inputs of a training row, and so has a new one."""
    rows = [{**row, "city": row["city"] or "Rome"} for row in shop_rows(120)]
    made = recipe(write_csv(tmp_path / "a.csv", rows), tasks={"yes": {"kind": "binary", "target": "yes"}})
    made["data"]["source"]["inputs"] = {"categorical": ["city"]}
    mtl.run(made, out=tmp_path / "run")
    new = [{**row, "city": row["city"] or "Rome"} for row in shop_rows(40, seed=1)]
    mtl.load(tmp_path / "run").evaluate(data=write_csv(tmp_path / "b.csv", new))


def test_without_the_data_of_the_run_nothing_is_said(shop: Path, tmp_path: Path) -> None:
    rows = shop_rows(80)
    data = write_csv(tmp_path / "shop.csv", rows)
    mtl.run(recipe(data, tasks={"yes": {"kind": "binary", "target": "yes"}}), out=tmp_path / "run")
    data.unlink()
    mtl.load(tmp_path / "run").evaluate(data=write_csv(tmp_path / "part.csv", rows[:40]))


def test_a_file_of_held_out_rows_is_no_training_file(tmp_path: Path) -> None:
    train, test = (
        write_csv(tmp_path / "a.csv", shop_rows(80)),
        write_csv(tmp_path / "b.csv", [{**row, "id": f"t{i}"} for i, row in enumerate(shop_rows(40, 1))]),
    )
    made = recipe(train, tasks={"yes": {"kind": "binary", "target": "yes"}})
    made["data"]["source"]["test"] = str(test)
    made["data"]["split"] = {}
    mtl.run(made, out=tmp_path / "run")
    model = mtl.load(tmp_path / "run")
    with pytest.warns(UserWarning, match="its 80 training rows count too"):
        model.evaluate(data=train)
    assert model.evaluate(data=test) == model.evaluate("test")


# --- what is refused ---


def test_data_that_changed_since_the_run(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "shop.csv", shop_rows(80))
    mtl.run(recipe(data, tasks={"yes": {"kind": "binary", "target": "yes"}}), out=tmp_path / "run")
    write_csv(data, shop_rows(80, seed=1))
    with pytest.raises(UserError) as caught:
        load(tmp_path / "run").evaluate()
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'run'}: data changed since this run began (sha256 ")
    assert text.endswith("...); to evaluate on other rows, give them by --data")
    assert load(tmp_path / "run").evaluate(data=data)["test/yes/accuracy"] is not None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"amount": "abc"}, "t.csv:row 4, column 'amount': 'abc' is not a number"),
        ({"x": "abc"}, "t.csv:row 4, column 'x': 'abc' is not a number"),
        ({"yes": "maybe"}, "t.csv:row 4: label 'maybe', allowed 'no' and 'yes'"),
        ({"sort": "pink"}, "t.csv:row 4: label 'pink', allowed 'blue', 'green', 'red'"),
        ({"tags": "new|odd"}, "t.csv:row 4: label 'odd', allowed 'new', 'old'"),
    ],
)
def test_labels_and_inputs_that_the_run_does_not_know(
    changes: dict[str, str], text: str, model: TrainedModel, tmp_path: Path
) -> None:
    rows = [*ALL[:2], {**ALL[2], **changes}]
    with pytest.raises(UserError) as caught:
        model.evaluate(data=write_csv(tmp_path / "t.csv", rows))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("split", "data", "text"),
    [
        ("tset", None, "no split 'tset' (did you mean 'test'?); one of train, validation, test"),
        ("test", "nowhere.csv", "nowhere.csv: no such file"),
        (
            "test",
            "labels.csv",
            "labels.csv: no columns 'sort', 'yes', 'amount', 'grade', 'tags'; columns: x, y, city",
        ),
        ("test", "empty.csv", "empty.csv: no rows"),
        ("test", "rows.npz", "rows.npz: no such file"),
    ],
)
def test_no_such_split_or_file(
    split: str,
    data: str | None,
    text: str,
    model: TrainedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("labels.csv"), [{"x": 1.0, "y": 1.0, "city": "Bern"}])
    Path("empty.csv").write_text("x,y,city,sort,yes,amount,grade,tags\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        model.evaluate(split, data)
    assert text in str(caught.value)


def test_runs_on_generated_data_have_no_other_file(tmp_path: Path) -> None:
    changes = ["train.epochs=1", "train.max_steps=null", "data.source.rows=40", "data.source.test_rows=20"]
    mtl.run("synthetic_stitch", changes, out=tmp_path / "run")
    with pytest.raises(UserError, match="only runs on a file can be evaluated on another one; use --split"):
        load(tmp_path / "run").evaluate(data="x.csv")


def test_a_run_on_arrays(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    labels = {"c": (x[:, 0] > 0).astype(np.int64), "side": np.resize(["train", "train", "test"], 60)}
    np.savez(tmp_path / "a.npz", inputs=x, **labels)
    plain = recipe(tmp_path, tasks={"c": {"kind": "multiclass", "target": "c"}})
    plain["data"] = {"source": {"kind": "npz", "path": str(tmp_path / "a.npz")}, "split": {"column": "side"}}
    plain["model"] = {"backbone": plain["model"]["backbone"]}
    done = mtl.run(plain, out=tmp_path / "run")
    held_out = labels["side"] == "test"
    np.savez(tmp_path / "t.npz", inputs=x[held_out], c=labels["c"][held_out])
    model = mtl.load(tmp_path / "run")
    reported = {name: value for name, value in done.metrics.items() if name.startswith("test/")}
    assert model.evaluate(data=tmp_path / "t.npz") == reported
    np.savez(tmp_path / "w.npz", inputs=x[:, :2], c=labels["c"])
    with pytest.raises(UserError, match=r"w\.npz: gives inputs of shape \(2,\), the run takes \(3,\)"):
        model.evaluate(data=tmp_path / "w.npz")
    np.savez(tmp_path / "n.npz", inputs=np.full((2, 3), np.nan, np.float32), c=labels["c"][:2])
    with pytest.raises(UserError, match="row 0"):
        model.evaluate(data=tmp_path / "n.npz")


def test_a_task_of_one_of_several_sources(tmp_path: Path) -> None:
    rows = shop_rows(120)
    one = write_csv(
        tmp_path / "one.csv", [{k: row[k] for k in ("x", "y", "city", "yes")} for row in rows[:60]]
    )
    two = write_csv(
        tmp_path / "two.csv", [{k: row[k] for k in ("x", "y", "city", "amount")} for row in rows[60:]]
    )
    tasks = {
        "yes": {"kind": "binary", "target": "yes", "missing": "mask", "source": "one"},
        "amount": {"kind": "regression", "target": "amount", "missing": "mask", "source": "two"},
    }
    plain = recipe(one, tasks=tasks)
    inputs = plain["data"]["source"]["inputs"]
    plain["data"]["sources"] = {
        name: {"kind": "table", "path": str(path), "inputs": inputs}
        for name, path in (("one", one), ("two", two))
    }
    del plain["data"]["source"]
    mtl.run(plain, out=tmp_path / "run")
    model = mtl.load(tmp_path / "run")
    with pytest.warns(UserWarning, match="holds rows that the run was trained on"):
        measured = model.evaluate(data=write_csv(tmp_path / "all.csv", rows))
    found = model.predict(tmp_path / "all.csv")
    right = np.mean([said == row["yes"] for said, row in zip(found["yes"], rows, strict=True)])
    assert measured["test/yes/accuracy"] == pytest.approx(right, abs=1e-6)
    error = np.abs(found["amount"] - [row["amount"] for row in rows])
    assert measured["test/amount/mae"] == pytest.approx(error.mean(), rel=1e-5)


def test_a_checkpoint_that_is_damaged_is_named(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop / "run", tmp_path / "run")
    step = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["selected"]["step"]
    weights = tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(
        UserError, match=rf"step-{step:08d} is damaged \(model\.safetensors: sha256 differs\)"
    ):
        load(tmp_path / "run")


def test_a_file_of_one_class_leaves_out_what_it_cannot_define(
    tested: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Every answer is no, and no row has a grade: the mean loss is that of the tasks that have labels."""
    lacking = [{**row, "yes": "no", "grade": ""} for row in tested]
    masked = recipe(tmp_path / "all.csv", task_defaults={"missing": "mask"}, train__epochs=1)
    write_csv(tmp_path / "all.csv", ALL)
    found = load(mtl.run(masked, out=tmp_path / "run").path).evaluate(
        data=write_csv(tmp_path / "t.csv", lacking)
    )
    assert found["test/yes/auroc"] is found["test/yes/f1"] is found["test/grade/loss"] is None
    assert found["test/yes/accuracy"] is not None
    losses = [found[f"test/{task}/loss"] for task in ("sort", "yes", "amount", "tags")]
    assert found["test/mean/loss"] == pytest.approx(np.mean(losses))
