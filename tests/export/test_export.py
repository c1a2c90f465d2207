"""What leaves mtl gives what the run predicts: every kind of task, every sharing scheme, vectors, tables and images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtl
from mtl.errors import ENVIRONMENT, USER, EnvironmentFault, UserError
from mtl.export import write
from mtl.export.write import Exported, export
from mtl.inference.load import load_trained
from mtl.model.tasks.kinds import YesNo
from mtl.recipe.specs import SHARING
from tests.inference.shop import recipe as shop_recipe
from tests.inference.shop import shop_rows, write_csv
from tests.support.assertions import Capture, called
from tests.support.recipes import linear, recipe, stitched

SUFFIX = {"torch": ".pt2", "onnx": ".onnx"}
SCHEMES: dict[str, dict[str, Any]] = {
    "none": {}, "cross_stitch": {"after": ["fc1"]}, "nddr": {"after": ["fc1"]}, "sluice": {"after": ["fc1"]},
    "soft": {"stages": ["fc1"]}, "ltb": {"after": ["fc1"]}, "mmoe": {"experts": 3}, "dselect_k": {"experts": 4, "k": 2},
    "cgc": {"own": 1, "shared": 1}, "ple": {"own": 1, "shared": 1, "after": ["fc1", "fc2"]},
    "mtan": {"after": ["fc1", "fc2"]}, "film": {"after": ["fc1"]}, "lora": {"stages": ["fc2"], "rank": 2},
}  # fmt: skip


def trained(folder: Path, **changes: Any) -> Path:
    mtl.run(recipe(**{"train__epochs": 1, **changes}), out=folder / "run", report=False)
    return folder / "run"


def exported(run: Path, kind: str) -> Exported:
    return export(load_trained(run, "cpu"), run.parent / f"m{SUFFIX[kind]}", kind)


def outputs(path: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the file gives, by torch or onnxruntime alone."""
    if path.suffix == ".pt2":
        found = torch.export.load(path).module()(torch.from_numpy(rows))
        return {name: values.detach().numpy() for name, values in found.items()}
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"inputs": rows}), strict=True))


def test_every_scheme_is_here() -> None:
    assert set(SCHEMES) == set(SHARING.names()) - {"gated", "units"}


@pytest.mark.parametrize("kind", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_sharing_scheme(scheme: str, kind: str, tmp_path: Path) -> None:
    sharing = {"kind": scheme, **SCHEMES[scheme]}
    run = trained(tmp_path, model__sharing=sharing, model__backbone__stages=linear(6, 5))
    done = exported(run, kind)
    assert (done.n_rows, done.made_up_why) == (40, "")
    assert done.difference < 1e-6
    for n in (1, 7, 300):  # any number of rows
        rows = np.random.default_rng(n).standard_normal((n, 16)).astype(np.float32)
        found, said = outputs(done.path, rows), mtl.load(run).predict(rows)
        for task in ("a", "b"):
            assert np.array_equal(found[task], said[task])
            assert np.abs(found[f"{task}_p"][:, 0] - said[f"{task}_p_0"]).max() < 1e-5


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table with every kind of task, categories, and numbers that are missing."""
    folder = tmp_path_factory.mktemp("shop")
    path = write_csv(folder / "shop.csv", shop_rows(240))
    mtl.run(shop_recipe(path), out=folder / "run", report=False)
    return folder


@pytest.mark.parametrize("kind", SUFFIX)
def test_every_kind_of_task(kind: str, shop: Path) -> None:
    """A program that knows the description alone makes the rows, and reads the answers."""
    done = exported(shop / "run", kind)
    described = done.description
    rows = shop_rows(50, seed=9)
    columns, codes = described["inputs"]["columns"], described["inputs"]["codes"]
    assert columns == ["x", "y", "city"]
    made = [
        [np.nan if row[name] is None else row[name] for name in ("x", "y")]
        + [codes["city"].get(row["city"], 0)]
        for row in rows
    ]
    found = outputs(done.path, np.array(made, np.float32))
    said = mtl.load(shop / "run").predict({name: [row[name] for row in rows] for name in columns})
    classes = {task: own.get("classes") for task, own in described["tasks"].items()}
    assert [classes["sort"][i] for i in found["sort"]] == list(said["sort"])
    assert [classes["grade"][i] for i in found["grade"]] == list(said["grade"])
    assert [classes["yes"][int(i)] for i in found["yes"]] == list(said["yes"])
    lists = [
        [name for name, there in zip(classes["tags"], row, strict=True) if there] for row in found["tags"]
    ]
    assert lists == said["tags"]
    np.testing.assert_allclose(found["amount"], said["amount"], rtol=1e-6)
    np.testing.assert_allclose(found["yes_p"], said["yes_p"], atol=1e-6)
    assert described["tasks"]["amount"]["unit"] == "as in the data"
    assert set(described["outputs"]) == set(found)


@pytest.mark.parametrize("kind", SUFFIX)
def test_categories_as_vectors(kind: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "shop.csv", shop_rows(120))
    made = shop_recipe(path, data__source__inputs={
        "numeric": ["x", "y"], "categorical": ["city"], "missing": "median", "embedding": 3,
    })  # fmt: skip
    mtl.run(made, out=tmp_path / "run", report=False)
    assert exported(tmp_path / "run", kind).difference < 1e-5


@pytest.mark.parametrize("kind", SUFFIX)
def test_images(kind: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=draw.random((40, 1, 8, 8), np.float32), y=draw.integers(0, 3, 40))
    run = trained(
        tmp_path,
        data={
            "source": {"kind": "npz", "path": str(tmp_path / "a.npz"), "inputs": "x"},
            "split": {"test": 0.25},
        },
        tasks={name: {"kind": "multiclass", "target": "y"} for name in "ab"},
        model__backbone__stages=[
            {"name": "conv1", "kind": "conv", "channels": 4, "kernel": 3},
            {"name": "pool1", "kind": "max_pool", "size": 2},
            {"name": "fc1", "kind": "linear", "features": 6},
        ],
        model__sharing=stitched("pool1", "fc1"),
    )
    assert exported(run, kind).difference < 1e-5


@pytest.mark.parametrize("kind", SUFFIX)
def test_the_file_describes_itself(kind: str, shop: Path) -> None:
    done = exported(shop / "run", kind)
    if kind == "torch":
        held = {"mtl.json": ""}
        torch.export.load(done.path, extra_files=held)
        text: Any = held["mtl.json"]
    else:
        text = pytest.importorskip("onnx").load(done.path).metadata_props[0].value
    assert json.loads(text) == done.description


def test_a_file_that_differs_is_refused(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network that is written says other probabilities than the run."""
    plain = write._program

    def other(network: Any, rows: Any) -> Any:
        next(module for module in network.modules() if isinstance(module, YesNo)).temperature.mul_(1.01)
        return plain(network, rows)

    monkeypatch.setattr(write, "_program", other)
    with pytest.raises(UserError, match=r"^the file gives 'yes_p' with a difference of "):
        export(load_trained(shop / "run", "cpu"), tmp_path / "m.pt2", "torch")
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_data_are_gone(shop: Path, tmp_path: Path) -> None:
    import shutil

    run = Path(shutil.copytree(shop / "run", tmp_path / "run"))
    data = shop / "shop.csv"
    data.rename(tmp_path / "away.csv")
    try:
        done = exported(run, "torch")
    finally:
        (tmp_path / "away.csv").rename(data)
    assert "no such file" in done.made_up_why
    assert (done.n_rows, done.difference < 1e-5) == (64, True)


def test_onnx_is_an_extra(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(EnvironmentFault) as caught:
        export(load_trained(shop / "run", "cpu"), tmp_path / "m.onnx", "onnx")
    assert str(caught.value) == "mtl: onnxscript is not installed; pip install 'mtl-recipes[onnx]'"
    assert caught.value.code == ENVIRONMENT


def test_the_command(shop: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    done = called(capsys, "export", "run", "--format", "torch")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("shop.pt2: ")
    assert first.endswith(", 9 outputs for 5 tasks")
    assert second.startswith("it gives what the run predicts, on 64 rows to ")
    again = called(capsys, "export", "run", "--format", "torch")
    assert (again.returncode, "is there already" in again.stderr) == (USER, True)
    wrong = called(capsys, "export", "run", "--format", "torch", "--output", "m.onnx")
    assert wrong.stderr == "error: --output: 'm.onnx' does not end with .pt2; give another name\n"
    assert called(capsys, "export", "run", "--format", "torch", "--force").returncode == 0
    (shop / "shop.pt2").unlink()
