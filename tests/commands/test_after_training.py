"""The commands that follow training: `eval`, `predict`, `init`, and the four in a row on a table of customers."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import mtl
from mtl.console import number
from mtl.errors import ENVIRONMENT, OK
from tests.inference.shop import recipe, shop_rows, write_csv
from tests.support.assertions import Capture, called, plugins_undone, refused

ROOT = Path(__file__).parents[2]
PLUGIN = """\
import mtl


@mtl.register_task("shop.dear")
class Dear(mtl.tasks.Binary):
    \"\"\"Is it worth more than it was?\"\"\"

    reference = "ours"
    target: str = "yes"
    positive: str = "yes"
"""


@pytest.fixture(scope="module", autouse=True)
def _no_plots() -> Iterator[None]:
    """Runs end without their figures, which take most of the time of a run on a small table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtl.report.plots.plot_run", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def made(_no_plots: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shop.csv, the finished run `run` on it, and `arrays` on a.npz."""
    folder = tmp_path_factory.mktemp("made")
    data = write_csv(folder / "shop.csv", shop_rows(100))
    tasks = {"yes": {"kind": "binary", "target": "yes"}, "amount": {"kind": "regression", "target": "amount"}}
    mtl.run(recipe(data, tasks=tasks), out=folder / "run")
    np.savez(folder / "a.npz", inputs=np.eye(20, dtype=np.float32), c=np.resize([0, 1], 20))
    plain = recipe(data, tasks={"c": {"kind": "multiclass", "target": "c"}})
    plain["data"] = {"source": {"kind": "npz", "path": str(folder / "a.npz")}, "split": {"test": 0.25}}
    plain["model"] = {"backbone": plain["model"]["backbone"]}
    mtl.run(plain, out=folder / "arrays")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy to work in, as the working directory."""
    work = tmp_path / "work"
    shutil.copytree(made, work)
    monkeypatch.chdir(work)
    with plugins_undone():
        yield work


def make_customers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_customers", ROOT / "examples" / "make_customers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- all in a row ---


def test_customers_from_a_table_to_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    customers = make_customers()
    monkeypatch.setattr(sys, "argv", ["make_customers.py", "customers.csv", "--rows", "1500"])
    customers.main()
    assert capsys.readouterr().out == (
        "customers.csv: 1500 rows, targets segment,channel,churned,clicked,satisfaction,interests,spend,visits\n"
    )
    targets = customers.TARGETS
    done = called(capsys, "init", "customers.csv", "--targets", ",".join(targets), "-o", "my.yaml")
    note = (
        "note: column 'interests': 611 empty cells are taken to say that no label applies; "
        "if the labels are not known there, write empty: missing\n"
    )
    assert (done.returncode, done.stderr) == (OK, note)
    assert done.stdout == "my.yaml: 8 tasks; look through it, then: mtl run my.yaml\n"
    assert sorted(os.listdir()) == ["customers.csv", "my.yaml", "recipe.schema.json"]
    kinds = {task: spec.kind for task, spec in mtl.load_recipe("my.yaml").tasks.items()}
    assert kinds == {
        "segment": "multiclass",
        "channel": "multiclass",
        "churned": "binary",
        "clicked": "binary",
        "satisfaction": "ordinal",
        "interests": "multilabel",
        "spend": "regression",
        "visits": "regression",
    }
    assert called(capsys, "validate", "my.yaml").stdout.startswith("ok my.yaml: 8 tasks, 8 towers, ")

    changes = ["train.epochs=2", "train.threads=1", "train.device=cpu"]
    done = called(capsys, "run", "my.yaml", *changes, "--out", "run", "--quiet")
    assert (done.returncode, done.stderr) == (OK, "")
    again = called(capsys, "eval", "run")
    assert (again.returncode, again.stderr) == (OK, "")
    assert again.stdout.rstrip() in done.stdout  # the same table, to the last digit

    done = called(
        capsys, "predict", "run", "--input", "customers.csv", "--output", "p.csv", "--keep", "customer_id"
    )
    assert (done.returncode, done.stdout, done.stderr) == (OK, "p.csv: 1,500 rows\n", "")
    said, given = rows_of(tmp_path / "p.csv"), rows_of(tmp_path / "customers.csv")
    assert [row["customer_id"] for row in said] == [row["customer_id"] for row in given]
    assert set(targets) <= set(said[0])
    names = ("clicked", "segment", "satisfaction")
    for name, chance in zip(names, (0.5, 0.25, 0.33), strict=True):
        pairs = [(a[name], b[name]) for a, b in zip(said, given, strict=True) if b[name]]
        assert len(pairs) > 800
        assert np.mean([a == b for a, b in pairs]) > chance + 0.05
    spend = np.array(
        [[float(a["spend"]), float(b["spend"])] for a, b in zip(said, given, strict=True) if b["spend"]]
    )
    assert np.corrcoef(spend.T)[0, 1] > 0.3

    done = called(capsys, "eval", "run", "--data", "customers.csv")
    assert done.returncode == OK
    labels = [sum(bool(row[name]) for row in given) for name in targets if name != "interests"]
    columns = done.stdout.splitlines()[0].split()
    assert columns[0] == "customers.csv"  # not the name of a split: it is none
    assert "labels" in columns
    assert all(f"{n:,}" in done.stdout for n in labels)


def test_the_customers_are_as_promised() -> None:
    customers = make_customers()
    header, rows = customers.customers(400, 0.3, 1)
    assert header[0] == "customer_id"
    assert header[-8:] == customers.TARGETS
    assert {len(row) for row in rows} == {len(header)}
    assert len({row[0] for row in rows}) == 400
    missing = np.mean([[cell == "" for cell in row[-8:]] for row in rows])
    assert 0.25 < missing < 0.35
    assert customers.customers(400, 0.3, 1) == (header, rows)
    assert customers.customers(400, 0.3, 2)[1] != rows


# --- eval ---


def test_eval_prints_what_the_run_reported(folder: Path, capsys: Capture) -> None:
    results = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))["results"]
    for split in ("test", "validation"):
        done = called(capsys, "eval", "run", "--split", split)
        assert (done.returncode, done.stderr) == (OK, "")
        assert done.stdout.startswith(split)
        assert number(results[f"{split}/yes/auroc"]) in done.stdout
        assert number(results[f"{split}/amount/mae"]) in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere"], "nowhere: no checkpoint found: no such folder"),
        (
            ["run", "--split", "tset"],
            "run: no split 'tset' (did you mean 'test'?); one of train, validation, test",
        ),
        (
            ["run", "--data", "shop.csv", "--split", "train"],
            "--data: all rows of the file are evaluated, so that there is no split; leave out --split 'train'",
        ),
        (["run", "--data", "nowhere.csv"], "nowhere.csv: no such file"),
        (["run", "--data", "a.npz"], "a.npz: no column 'x'; columns: inputs, c"),
        (["run", "--data", "bare.csv"], "bare.csv: no columns 'yes', 'amount'; columns: x, y, city"),
        (["run", "--data", "empty.csv"], "empty.csv: no rows"),
        (["arrays", "--data", "shop.csv"], "shop.csv: is not an .npz file"),
    ],
)
def test_errors_of_eval(arguments: list[str], text: str, folder: Path, capsys: Capture) -> None:
    write_csv(folder / "bare.csv", [{"x": 1.0, "y": 1.0, "city": "Bern"}])
    (folder / "empty.csv").write_text("x,y,city,yes,amount\n", encoding="utf-8")
    refused(lambda: called(capsys, "eval", *arguments), folder, [text])


def test_eval_when_the_data_are_gone_or_changed(folder: Path, made: Path, capsys: Capture) -> None:
    data = made / "shop.csv"  # the recipe holds its absolute path
    content = data.read_bytes()
    try:
        data.write_bytes(content + b"r9999,1.0,1.0,Bern,blue,yes,100.0,low,new\n")
        refused(
            lambda: called(capsys, "eval", "run"), folder, ["run: data changed since this run began (sha256"]
        )
        data.unlink()
        refused(
            lambda: called(capsys, "eval", "run"),
            folder,
            [
                "shop.csv",
            ][:1],
        )
        assert called(capsys, "eval", "run", "--data", "shop.csv").returncode == OK
    finally:
        data.write_bytes(content)


# --- the device ---


@pytest.mark.parametrize(
    ("given", "asked"), [((), "auto"), (("--device", "cpu"), "cpu"), (("--device", "auto"), "auto")]
)
def test_the_device_is_chosen_as_a_run_chooses_it(
    given: tuple[str, ...], asked: str, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def resolve(name: str) -> torch.device:
        names.append(name)
        return torch.device("cpu")

    monkeypatch.setattr("mtl.training.devices.resolve", resolve)
    assert called(capsys, "eval", "run", *given).returncode == OK
    done = called(capsys, "predict", "run", "--input", "shop.csv", "--output", "p.csv", *given)
    assert done.returncode == OK
    mtl.load("run", *given[1:])
    assert names == [asked] * 3


# --- predict ---


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_predict_needs_no_labels(suffix: str, folder: Path, capsys: Capture) -> None:
    write_csv(
        folder / "new.csv", [{"city": "Bern", "y": None, "x": 0.5}, {"city": "Atlantis", "y": 1.0, "x": -3}]
    )
    done = called(
        capsys,
        "predict",
        "run",
        "--input",
        "new.csv",
        "--output",
        f"p{suffix}",
        "--keep",
        "x",
        "--keep",
        "city",
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        OK, f"p{suffix}: 2 rows; values not seen in training: city 1\n", "",
    )  # fmt: skip
    expected = mtl.load("run").predict("new.csv")
    assert list(expected) == ["yes", "yes_p", "amount"]
    if suffix == ".csv":
        assert list(rows_of(folder / "p.csv")[0]) == ["x", "city", "yes", "yes_p", "amount"]
        assert [row["yes"] for row in rows_of(folder / "p.csv")] == list(expected["yes"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--input", "no.csv", "--output", "p.csv"], "no.csv: no such file"),
        (["--input", "shop.csv", "--output", "p.xlsx"], "--output: 'p.xlsx' is none of .csv, .parquet, .npz"),
        (["--input", "shop.csv", "--output", "shop.csv"], "--output: 'shop.csv' is the input; give another name"),
        (["--input", "shop.csv", "--output", "p.csv", "--keep", "idd"], "no column 'idd' (did you mean 'id'?)"),
        (["--input", "shop.csv", "--output", "p.csv", "--keep", "id,idd"], "no column 'idd' (did you mean 'id'?)"),
        (["--input", "lacks.csv", "--output", "p.csv"], "lacks.csv: no column 'city'; columns: x, y"),
        (["--input", "bad.csv", "--output", "p.csv"], "bad.csv:row 7, column 'x': 'abc' is not a number"),
        (["--input", "bad.csv", "--output", "p.npz"], "bad.csv:row 7, column 'x': 'abc' is not a number"),
        (["--input", "empty.csv", "--output", "p.csv"], "empty.csv: no rows"),
        (["--input", "a.npz", "--output", "p.csv"], "a.npz: the run reads categories by name; give a table"),
        (["--input", "run", "--output", "p.csv"], "run: is a directory without Parquet files"),
        (["--output", "p.csv"], "mtl predict: Missing option '--input'."),
        (["--input", "shop.csv", "--output", "p.csv", "--device", "cuda:9"], "cuda:9"),
    ],
)  # fmt: skip
def test_errors_of_predict(arguments: list[str], text: str, folder: Path, capsys: Capture) -> None:
    rows = [{"x": 1.0, "y": 1.0, "city": "Bern"} for _ in range(9)]
    write_csv(folder / "lacks.csv", [{"x": 1.0, "y": 1.0}])
    write_csv(folder / "bad.csv", [{**row, "x": "abc" if i == 5 else 1.0} for i, row in enumerate(rows)])
    (folder / "empty.csv").write_text("x,y,city\n", encoding="utf-8")
    refused(lambda: called(capsys, "predict", "run", *arguments), folder, [text])


@pytest.mark.parametrize(
    ("name", "arrays", "text"),
    [
        ("w.npz", {"inputs": np.zeros((3, 4))}, "w.npz: shape (3, 4), the run takes (n, 20)"),
        ("n.npz", {"x": np.zeros((3, 20))}, "n.npz: no array 'inputs'"),
        ("e.npz", {"inputs": np.zeros((0, 20))}, "e.npz: no rows"),
        ("t.npz", {"inputs": np.full((2, 20), "a")}, "t.npz: holds <U1 values, not numbers"),
        ("v.npz", {"inputs": np.full((2, 20), np.nan)}, "v.npz:row 0: the value is missing"),
        (
            "shop.csv",
            {},
            "shop.csv: the run was trained on arrays of shape (20,); give an array, or an .npz file",
        ),
    ],
)
def test_errors_of_predict_on_arrays(
    name: str, arrays: dict[str, Any], text: str, folder: Path, capsys: Capture
) -> None:
    if arrays:
        np.savez(folder / name, **arrays)
    refused(lambda: called(capsys, "predict", "arrays", "--input", name, "--output", "p.csv"), folder, [text])


def test_a_kept_array_of_another_length(folder: Path, capsys: Capture) -> None:
    np.savez(folder / "k.npz", inputs=np.zeros((3, 20)), id=np.arange(2))
    command = ("predict", "arrays", "--input", "k.npz", "--output", "p.csv", "--keep", "id")
    refused(lambda: called(capsys, *command), folder, ["k.npz: array 'id' has 2 rows, 'inputs' has 3"])


@pytest.mark.parametrize("output", ["no/such/p.csv", "shop.csv/p.parquet"])
def test_an_output_that_cannot_be_written(output: str, folder: Path, capsys: Capture) -> None:
    command = ("predict", "run", "--input", "shop.csv", "--output", output)
    refused(lambda: called(capsys, *command), folder, [f"{output}: cannot write: "], code=ENVIRONMENT)


def test_the_plug_ins_of_a_run_are_asked_for(folder: Path, made: Path, capsys: Capture) -> None:
    (folder / "dear.py").write_text(PLUGIN, encoding="utf-8")
    plain = recipe(made / "shop.csv", tasks={"dear": {"kind": "shop.dear"}})
    (folder / "r.yaml").write_text(json.dumps(plain), encoding="utf-8")
    done = called(capsys, "run", "r.yaml", "--plugin", "dear.py", "--out", "plugged", "--quiet")
    assert done.returncode == OK, done.stderr
    command = ("predict", "plugged", "--input", "shop.csv", "--output", "p.csv")
    assert called(capsys, *command, "--plugin", "dear.py").returncode == OK
    assert list(rows_of(folder / "p.csv")[0]) == ["dear", "dear_p"]
    reported = called(capsys, "eval", "plugged", "--plugin", "dear.py")
    assert reported.returncode == OK
    (folder / "p.csv").unlink()
    with plugins_undone():
        mtl.recipe.specs.TASKS._members.pop("shop.dear")
        for start in (command, ("eval", "plugged")):
            refused(
                lambda c=start: called(capsys, *c),
                folder,
                [
                    "tasks.dear.kind: unknown task 'shop.dear' ... the run began with plug-ins; add --plugin ... dear"
                ],
            )


# --- init ---


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no.csv", "--targets", "a"], "no.csv: no such file"),
        (["shop.csv", "--targets", "yess"], "--targets: shop.csv has no column 'yess' (did you mean 'yes'?); columns:"),
        (["shop.csv", "--targets", " , "], "--targets: names no column"),
        (["shop.csv", "--targets", "yes,yes"], "--targets: column 'yes' is given twice"),
        (["shop.csv"], "mtl init: Missing option '--targets'."),
        (["shop.csv", "--targets", "id"], "--targets: column 'id' holds text with 100 distinct values in 100 rows"),
        (["shop.csv", "--targets", "yes", "--group", "city"], "--group: column 'city' lacks "),
        (["shop.csv", "--targets", "yes", "-o", "there.yaml"], "there.yaml: is there already; give another name by -o"),
        (["two.csv", "--targets", "a"], "two.csv:row 3: 3 fields, header has 2"),
    ],
)  # fmt: skip
def test_errors_of_init(arguments: list[str], text: str, folder: Path, capsys: Capture) -> None:
    (folder / "there.yaml").write_text("mine", encoding="utf-8")
    (folder / "two.csv").write_text("a,b\n1,2\n1,2,3\n", encoding="utf-8")
    refused(lambda: called(capsys, "init", *arguments), folder, [text])


def test_init_overwrites_only_when_told_to(folder: Path, capsys: Capture) -> None:
    (folder / "there.yaml").write_text("mine", encoding="utf-8")
    (folder / "recipe.schema.json").write_text("mine", encoding="utf-8")
    done = called(capsys, "init", "shop.csv", "--targets", "yes,amount", "-o", "there.yaml", "--force")
    note = "note: 1 input looks like a label: 'y'; take out what is known only afterwards\n"
    several = "note: 1 input lists several values in a cell: 'tags'; is it a label, or known only later?\n"
    assert (done.returncode, done.stderr) == (OK, note + several)
    assert list(mtl.load_recipe("there.yaml").tasks) == ["yes", "amount"]
    assert (folder / "recipe.schema.json").read_text(encoding="utf-8") == "mine"


def test_init_into_a_folder_that_is_not_there(folder: Path, capsys: Capture) -> None:
    command = ("init", "shop.csv", "--targets", "yes", "-o", "no/r.yaml")
    text = "no/r.yaml: cannot write: no such file or directory"
    refused(lambda: called(capsys, *command), folder, [text], code=ENVIRONMENT)
