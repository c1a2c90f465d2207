"""Lists of labels are written so that they read back as the same lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mtl
from mtl.dataset.assemble import wanted_of
from mtl.inference.writing import write_predictions
from mtl.recipe.load import load_recipe

ROWS = [("a", "x;y"), ("b|a", "x"), ("b", ";"), ("a|b", "y")] * 6


def recipe(path: Path, empty: str | None) -> dict[str, Any]:
    told = {} if empty is None else {"empty": empty}
    source = {
        "kind": "table", "path": str(path), "inputs": {"numeric": ["n"]}, "formats": {"second": {"separator": ";"}},
    }  # fmt: skip
    return {
        "schema_version": 1,
        "name": "lists",
        "data": {"source": source, "split": {"test": 0.25}},
        "tasks": {
            "first": {"kind": "multilabel", "target": "first", "threshold": 0.99, **told},
            "second": {"kind": "multilabel", "target": "second", "threshold": 0.01},
        },
        "model": {"backbone": {"kind": "layers", "stages": [{"name": "f", "kind": "linear", "features": 2}]}},
        "optimizer": {"kind": "sgd", "lr": 0.01},
        "train": {"epochs": 1, "batch_size": 8, "threads": 1},
    }


@pytest.mark.parametrize("empty", [None, "none", "missing"])
@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_predicted_lists_read_back(suffix: str, empty: str | None, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "n,first,second\n" + "".join(f"{i},{a},{b}\n" for i, (a, b) in enumerate(ROWS)), encoding="utf-8"
    )
    model = mtl.load(mtl.run(recipe(path, empty), out=tmp_path / "run").path)
    predicted = model.predict(path)
    assert predicted["first"] == [[]] * len(ROWS)  # no probability reaches 0.99
    assert predicted["second"] == [["x", "y"]] * len(ROWS)
    output = tmp_path / f"out{suffix}"
    write_predictions(model, str(path), str(output), keep=["n"])
    if suffix == ".csv":
        cell = "" if empty == "none" else "|"
        assert output.read_text(encoding="utf-8").splitlines()[1].split(",")[1].strip('"') == cell
    again = load_recipe(recipe(output, empty))
    columns = again.data.only.read(0, wanted_of(again))
    assert not columns.labels["first"].any()
    assert "first" not in columns.present  # every row lists its labels, none of them
    assert columns.labels["second"].tolist() == [[1, 1]] * len(ROWS)
