"""Predictions: the same rows give the same answers whatever holds them, and as computed by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import mtl
import mtl.experiment.run
from mtl.errors import UserError
from mtl.inference import feeding
from mtl.inference.predict import TrainedModel, load
from tests.inference.shop import (
    COLUMNS,
    INPUTS,
    finite,
    recipe,
    same,
    shop_rows,
    table_of,
    write_csv,
    write_parquet,
)

ROWS = shop_rows(60, seed=5)


@pytest.fixture(scope="module")
def model(shop: Path) -> TrainedModel:
    return load(shop / "run")


class Frame:
    """A data frame as other libraries have them."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    def to_dict(self, orient: str) -> dict[str, list[Any]]:
        assert orient == "list"
        return self.columns


class ArrowFrame:
    """A data frame that hands over Arrow's own memory."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def as_lists(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in INPUTS}


FORMS: dict[str, Callable[[Path], Any]] = {
    "csv": lambda folder: write_csv(folder / "rows.csv", ROWS),
    "csv path as text": lambda folder: str(write_csv(folder / "rows.csv", ROWS)),
    "parquet": lambda folder: write_parquet(folder / "rows.parquet", ROWS),
    "table": lambda folder: table_of(ROWS),
    "chunked table": lambda folder: pa.concat_tables(
        [table_of(ROWS[:7]), table_of(ROWS[7:8]), table_of(ROWS[8:])]
    ),
    "lists": lambda folder: as_lists(ROWS),
    "arrays": lambda folder: {
        "x": np.array([row["x"] for row in ROWS]),
        "y": np.array([np.nan if row["y"] is None else row["y"] for row in ROWS]),
        "city": np.array([row["city"] for row in ROWS], dtype=object),
    },
    "frame": lambda folder: Frame(as_lists(ROWS)),
    "arrow frame": lambda folder: ArrowFrame(table_of(ROWS).select(INPUTS)),
}


# --- what comes out ---


def test_the_columns_and_what_is_in_them(model: TrainedModel) -> None:
    found = model.predict(as_lists(ROWS))
    assert list(found) == [name for names in COLUMNS.values() for name in names]
    assert {len(values) for values in found.values()} == {60}
    for task, classes in (("sort", ["blue", "green", "red"]), ("grade", ["low", "mid", "high"])):
        p = np.stack([found[f"{task}_p_{name}"] for name in classes], axis=1)
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
        assert list(found[task]) == [classes[i] for i in p.argmax(axis=1)]
    assert [set(tags) for tags in found["tags"]] == [
        {name for name in ("new", "old") if found[f"tags_p_{name}"][i] >= 0.5} for i in range(60)
    ]
    assert found["amount"].dtype == np.float64
    assert 60 < found["amount"].min() < found["amount"].max() < 140  # in the label's own unit
    assert finite(found["amount"])


def test_the_fitted_threshold_and_temperature_are_used(model: TrainedModel, shop: Path) -> None:
    constants = model.folder.record.model.constants["yes"]
    (threshold,), (temperature,) = constants["threshold"], constants["temperature"]
    assert threshold != 0.5
    assert temperature != 1.0
    found = model.predict(as_lists(ROWS))
    assert list(found["yes"]) == ["yes" if p >= np.float32(threshold) else "no" for p in found["yes_p"]]
    assert len(set(found["yes"])) == 2
    rows = np.concatenate([inputs for _, inputs in model.feed.batches(as_lists(ROWS))])
    with torch.inference_mode():
        model.built.model.eval()
        z = model.built.model(torch.from_numpy(rows))["yes"][:, 0]
    np.testing.assert_allclose(found["yes_p"], 1 / (1 + np.exp(-z.numpy() / temperature)), atol=1e-6)


def test_by_hand(tmp_path: Path) -> None:
    """One linear layer, ReLU and a logit: standardized numbers, an indicator, one-hot categories, nothing else."""
    data = write_csv(tmp_path / "shop.csv", shop_rows(120))
    plain = recipe(data, tasks={"yes": {"kind": "binary", "target": "yes"}})
    stages = [{"name": "fc1", "kind": "linear", "features": 4}]
    plain["model"] = {"backbone": {"kind": "layers", "norm": {"kind": "none"}, "stages": stages}}
    mtl.run(plain, out=tmp_path / "run")
    model = mtl.load(tmp_path / "run")
    layout = model.learned.layout
    assert layout is not None
    assert layout.values == {"city": ("Bern", "Oslo", "Rome")}

    weights = {name: value.double().numpy() for name, value in model.built.model.state_dict().items()}
    inside = weights["trunk.towers.stages.fc1.map.weight"]
    outside = weights["task_modules.binary_1.head.linear.weight"]
    cases = [
        (0.5, -0.25, "Oslo"),
        (0.5, None, "Oslo"),
        (None, 1.0, None),
        (2.0, 0.0, "Paris"),
        (0.5, -0.25, ""),
    ]
    expected = []
    for x, y, city in cases:
        numbers = np.array([np.nan if v is None else v for v in (x, y)])
        missing = np.isnan(numbers)
        filled = np.where(missing, weights["inputs.fill"], numbers)
        z = (filled - weights["inputs.mean"]) / weights["inputs.std"]
        hot = [float(city == name) for name in layout.values["city"]]
        row = np.array([*z, float(missing[1]), *hot])  # y alone was ever missing in training: one indicator
        hidden = np.maximum(0, row @ (inside if inside.shape[0] == len(row) else inside.T))
        logit = (outside @ hidden + weights["task_modules.binary_1.head.linear.bias"]).item()
        expected.append(1 / (1 + np.exp(-logit)))
    columns = {name: [case[i] for case in cases] for i, name in enumerate(INPUTS)}
    found = model.predict(columns)
    np.testing.assert_allclose(found["yes_p"], expected, atol=1e-6)
    assert len({round(p, 4) for p in expected}) >= 4  # the cases do differ


# --- the same rows, however they come ---


def test_what_the_forms_are() -> None:
    assert len(FORMS) == 9


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_rows(form: str, model: TrainedModel, tmp_path: Path) -> None:
    same(model.predict(FORMS[form](tmp_path)), model.predict(as_lists(ROWS)), exact="chunked" not in form)


@pytest.mark.parametrize("rows", [1, 7, 59])
def test_the_size_of_batches_does_not_matter(
    rows: int, model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.predict(as_lists(ROWS))
    monkeypatch.setattr(feeding, "ROWS", rows)
    sizes = [len(inputs) for _, inputs in model.feed.batches(as_lists(ROWS))]
    assert sizes == [rows] * (60 // rows) + ([60 % rows] if 60 % rows else [])
    same(model.predict(as_lists(ROWS)), whole)


def test_the_order_of_rows_and_their_company_do_not_matter(model: TrainedModel) -> None:
    whole = model.predict(as_lists(ROWS))
    order = np.random.default_rng(0).permutation(60)[:23]
    some = model.predict(as_lists([ROWS[i] for i in order]))
    picked = {n: [v[i] for i in order] if isinstance(v, list) else v[order] for n, v in whole.items()}
    same(some, picked)


def test_the_order_of_columns_and_further_ones_do_not_matter(model: TrainedModel) -> None:
    columns = as_lists(ROWS)
    other = {"zzz": ["?"] * 60, **{name: columns[name] for name in reversed(INPUTS)}, "sort": [None] * 60}
    same(model.predict(other), model.predict(columns), exact=True)


def test_a_category_that_training_did_not_see_is_as_one_that_is_missing(model: TrainedModel) -> None:
    columns = as_lists(ROWS)
    said = "column 'city': 60 of 60 values, such as 'Atlantis', were not seen in training, which had 'Bern'"
    with pytest.warns(UserWarning, match=said):
        unseen = model.predict({**columns, "city": ["Atlantis"] * 60})
    missing = model.predict({**columns, "city": [None] * 60})
    same(unseen, missing, exact=True)
    known = model.predict(columns)
    there = np.array([row["city"] is not None for row in ROWS])
    assert (known["amount"][there] != missing["amount"][there]).any()


def test_no_rows_give_empty_columns(model: TrainedModel) -> None:
    found = model.predict({"x": [], "y": [], "city": []})
    assert list(found) == [name for names in COLUMNS.values() for name in names]
    assert {len(values) for values in found.values()} == {0}


def test_predicting_changes_nothing(model: TrainedModel) -> None:
    before = {name: value.clone() for name, value in model.built.model.state_dict().items()}
    first, again = model.predict(as_lists(ROWS)), model.predict(as_lists(ROWS))
    same(first, again, exact=True)
    after = model.built.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_moved_run_whose_data_are_gone_still_predicts(model: TrainedModel, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "gone.csv", shop_rows(80))
    tasks = {
        "tags": {"kind": "multilabel", "target": "tags"},
        "amount": {"kind": "regression", "target": "amount"},
    }
    mtl.run(recipe(data, tasks=tasks), out=tmp_path / "here")
    before = mtl.load(tmp_path / "here").predict(as_lists(ROWS))
    data.unlink()
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = mtl.load(tmp_path / "there")
    same(moved.predict(as_lists(ROWS)), before, exact=True)
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        moved.evaluate("test")


# --- arrays ---


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    folder = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 3)).astype(np.float32)
    np.savez(folder / "a.npz", inputs=x, c=(x[:, 0] > 0).astype(np.int64))
    plain = recipe(folder, tasks={"c": {"kind": "multiclass", "target": "c"}})
    plain["data"] = {"source": {"kind": "npz", "path": str(folder / "a.npz")}, "split": {"test": 0.2}}
    plain["model"] = {"backbone": plain["model"]["backbone"]}
    mtl.run(plain, out=folder / "run")
    return load(folder / "run")


X = np.random.default_rng(1).standard_normal((20, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "form",
    [
        X.astype(np.float64),
        X.astype(">f4"),
        np.asfortranarray(X),
        X[::-1][::-1],
        torch.from_numpy(X.copy()),
        {"inputs": X},
        pa.table({"inputs": pa.array(X.tolist())}),
    ],
    ids=["float64", "big-endian", "Fortran", "strided", "tensor", "mapping", "table"],
)
def test_an_array_in_any_form(form: Any, arrays: TrainedModel) -> None:
    same(arrays.predict(form), arrays.predict(X), exact=True)


def test_a_read_only_array_and_whole_numbers(arrays: TrainedModel) -> None:
    whole = np.arange(6).reshape(2, 3)
    whole.setflags(write=False)
    same(arrays.predict(whole), arrays.predict(whole.astype(np.float32)), exact=True)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_of_arrays(compressed: bool, order: Any, arrays: TrainedModel, tmp_path: Path) -> None:
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "x.npz", inputs=np.asarray(X, order=order))
    same(arrays.predict(tmp_path / "x.npz"), arrays.predict(X), exact=True)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (np.zeros((4, 2)), "inputs: shape (4, 2), the run takes (n, 3)"),
        (np.zeros(3), "inputs: shape (3,), the run takes (n, 3)"),
        (np.zeros(()), "inputs: shape (), the run takes (n, 3)"),
        (np.array([["a", "b", "c"]]), "inputs: holds <U1 values, not numbers"),
        (np.array([[1, 2, None]], dtype=object), "inputs: holds object values, not numbers"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), "inputs:row 1: the value is missing"),
        (np.array([[0, 0, 1e300]]), "inputs:row 0: 1e+300 is not a finite float32"),
        ([[1, 2, 3]], "cannot predict for 'list': give an array, a table or a path"),
        (None, "cannot predict for 'NoneType': give an array, a table or a path"),
        ({"a": [1, 2]}, "table: the run was trained on arrays of shape (3,); give an array, or an .npz file with one "
                        "called 'inputs'"),
        ({"inputs": [[1, 2, 3], [1, 2]]}, "table:row 1, column 'inputs': the vector has 2 numbers, the first one 3"),
    ],
)  # fmt: skip
def test_an_array_that_is_not_like_the_run(data: Any, text: str, arrays: TrainedModel) -> None:
    with pytest.raises(UserError) as caught:
        arrays.predict(data)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"x": [1.0], "y": [1.0]}, "table: no column 'city'; columns: x, y"),
        ({"x": [1.0], "y": [1.0], "citi": ["a"]},
         "table: no column 'city' (did you mean 'citi'?); columns: x, y, citi"),
        ({"z": [1.0]}, "table: no columns 'x', 'y', 'city'; columns: z"),
        ({"x": ["abc"], "y": [1.0], "city": ["Bern"]}, "table:row 0, column 'x': 'abc' is not a number"),
        ({"x": [1.0, 2.0], "y": [1.0], "city": ["Bern"]}, "table: cannot be read ("),
        ({"x": [1.0, "a"], "y": [1.0, 1.0], "city": ["", ""]},
         "table, column 'x': is no sequence of values of one kind ("),
        ({"x": 7, "y": [1.0], "city": ["a"]}, "table, column 'x': is no sequence of values of one kind ("),
        ({"x": [float("inf")], "y": [1.0], "city": ["a"]}, "table:row 0, column 'x': inf is not a finite number"),
        ({"x": [1e300], "y": [1.0], "city": ["a"]}, "table:row 0, column 'x': the number is too large for float32"),
        (np.zeros((2, 3)), "inputs: the run reads categories by name; give a table"),
        ("nowhere.csv", "nowhere.csv: no such file"),
        ("nowhere.npz", "nowhere.npz: no such file"),
        ("rows.xlsx", "rows.xlsx: a table is one of .csv, .tsv, .txt, .parquet, .pq, .npz, not '.xlsx'; "
        "save the sheet as CSV or Parquet"),
    ],
)  # fmt: skip
def test_a_table_that_is_not_like_the_run(data: Any, text: str, model: TrainedModel) -> None:
    with pytest.raises(UserError) as caught:
        model.predict(data)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_number_is_refused_where_training_refused_it(tmp_path: Path) -> None:
    rows = [{**row, "y": row["y"] or 0.0} for row in shop_rows(80)]
    data = write_csv(tmp_path / "shop.csv", rows)
    plain = recipe(
        data,
        tasks={"yes": {"kind": "binary", "target": "yes"}, "sort": {"kind": "multiclass", "target": "sort"}},
    )
    plain["data"]["source"]["inputs"] = {"numeric": ["x", "y"]}
    mtl.run(plain, out=tmp_path / "run")
    model = mtl.load(tmp_path / "run")
    with pytest.raises(UserError) as caught:
        model.predict({"x": [1.0, 2.0], "y": [1.0, None]})
    assert str(caught.value) == (
        "table:row 1, column 'y': the value is missing; the run was trained with inputs.missing: error"
    )
    numbers = np.array([[row["x"], row["y"]] for row in rows[:9]])
    same(model.predict(numbers), model.predict({"x": numbers[:, 0], "y": numbers[:, 1]}), exact=True)
    with pytest.raises(UserError, match="inputs:row 1: the value is missing"):
        model.predict(np.array([[1.0, 2.0], [np.nan, 1.0]]))


# --- images ---


def write_images(folder: Path, n: int, side: int = 8) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(side)
    rows = []
    for i in range(n):
        pixels = rng.integers(0, 100, (side, side), dtype=np.uint8) + (100 if i % 2 else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        rows.append(
            {"file": f"{i}.png", "bright": "yes" if i % 2 else "no", "half": "odd" if i % 2 else "even"}
        )
    return rows


def test_a_run_on_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write_images(tmp_path / "images", 40)
    data = write_csv(tmp_path / "images" / "all.csv", rows)
    stages = [
        {"name": "conv1", "kind": "conv", "channels": 2, "kernel": 3},
        {"name": "fc1", "kind": "linear", "features": 3},
    ]
    plain = recipe(data, tasks={"bright": {"kind": "binary", "target": "bright"}})
    source = {"kind": "table", "path": str(data), "inputs": {"image": {"column": "file", "mode": "grey"}}}
    plain["data"] = {"source": source, "split": {"test": 0.25}}
    plain["model"] = {"backbone": {"kind": "layers", "stages": stages}}
    mtl.run(plain, out=tmp_path / "run")
    model = mtl.load(tmp_path / "run")
    assert model.feed.rows == 4096
    found = model.predict(data)
    pixels = np.stack([np.asarray(Image.open(tmp_path / "images" / row["file"]))[None] for row in rows])
    same(found, model.predict(pixels), exact=True)
    monkeypatch.chdir(tmp_path / "images")
    same(found, model.predict({"file": [row["file"] for row in rows]}), exact=True)

    small = write_csv(tmp_path / "small" / "all.csv", write_images(tmp_path / "small", 3, side=6))
    with pytest.raises(UserError) as caught:
        model.predict(small)
    assert str(caught.value) == "all.csv:row 2: the image is 6 x 6, the run takes 8 x 8"
    with pytest.raises(UserError, match=r"table:row 0: no such file nowhere\.png"):
        model.predict({"file": ["nowhere.png"]})


def test_the_rows_of_a_batch_follow_from_the_size_of_one(model: TrainedModel) -> None:
    def rows(*shape: int) -> int:
        header = type(model.header)(shape, {})
        return feeding.Feed(model.feed.source, header, model.learned).rows

    assert rows(10) == 4096
    assert rows(100_000) == 41
    assert rows(3, 64, 64) == 85
    assert rows(3, 4096, 4096) == 1


# --- names ---


@pytest.mark.parametrize("first", ["sort", "sort_p_red"])
def test_predictions_that_would_share_a_name_are_refused_before_training(first: str, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "shop.csv", shop_rows(40))
    tasks = {
        "sort": {"kind": "multiclass", "target": "sort"},
        "sort_p_red": {"kind": "regression", "target": "amount"},
    }
    other = next(name for name in tasks if name != first)
    with pytest.raises(UserError) as caught:
        mtl.run(recipe(data, tasks={first: tasks[first], other: tasks[other]}), out=tmp_path / "run")
    text = f"recipe: tasks.{other}: another task predicts a column 'sort_p_red' too; rename one of the two"
    assert str(caught.value) == text
    assert not (tmp_path / "run").exists()


# --- a run that is not finished ---


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run interrupted before it selected; its labels are noise and its steps are long: the last is not the best."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(3)
    rows = [{**row, "yes": str(rng.choice(["yes", "no"]))} for row in shop_rows(120)]
    plain = recipe(
        write_csv(folder / "shop.csv", rows),
        tasks={"yes": {"kind": "binary", "target": "yes"}},
        model={"backbone": {"kind": "layers", "stages": [{"name": "fc1", "kind": "linear", "features": 16}]}},
        optimizer={"kind": "adam", "lr": 1.0},
    )
    plain["train"] |= {
        "epochs": 7,
        "early_stopping": {"metric": "validation/yes/loss", "patience": 100},
        "checkpoint": {"keep": 3},
    }

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mtl.experiment.run, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mtl.run(plain, out=folder / "run")
    return folder / "run"


def best_and_last(run: Path) -> tuple[int, int]:
    """By the log: the step of the lowest validation loss, and the last one evaluated."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = {row["step"]: row["validation/yes/loss"] for row in lines if row["split"] == "validation"}
    best, last = min(losses, key=losses.__getitem__), max(losses)
    assert best < last
    return best, last


def has_weights_of(run: Path, step: int) -> bool:
    saved = load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    own = load(run).built.model.state_dict()
    return all(torch.equal(own[name], saved[name]) for name in own)


def test_a_run_that_is_not_finished_predicts_with_its_best_weights(
    broken_off: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, last = best_and_last(broken_off)
    capsys.readouterr()
    model = load(broken_off)
    assert capsys.readouterr() == ("", "")
    assert model.notice == f"{broken_off} is not finished: weights of step {best} are used"
    assert has_weights_of(broken_off, best)
    assert not has_weights_of(broken_off, last)


def test_or_with_its_newest_where_the_best_are_damaged(broken_off: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(broken_off, run)
    best, last = best_and_last(run)
    with (run / "checkpoints" / f"step-{best:08d}" / "model.safetensors").open("ab") as file:
        file.write(b"!")
    assert has_weights_of(run, last)
    assert load(run).notice == f"{run} is not finished: weights of step {last} are used"


def test_a_finished_run_is_loaded_in_silence(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(shop / "run").notice is None
    assert capsys.readouterr() == ("", "")
