"""A value is the same value in every file and in the recipe, whichever way it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.dataset import assemble
from mtl.dataset.assemble import load_dataset, read_sources
from mtl.dataset.header import header_of
from mtl.dataset.join import Joined
from mtl.dataset.labels import TaskLabels, read_task
from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.task_groups import known_outputs

LAYERS = {"backbone": {"kind": "layers", "stages": [{"name": "f", "kind": "linear", "features": 2}]}}
TEXTS = ["1.0", "2.0", "", "3.0", "1.0", "2.0", "3.0", "1.0"]
NUMBERS = [1, 2, None, 3, 1, 2, 3, 1]


def csv(path: Path, **columns: list[str]) -> str:
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def parquet(path: Path, **columns: list[Any]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def recipe_of(data: dict[str, Any], task: dict[str, Any]) -> Recipe:
    return load_recipe({
        "schema_version": 1, "name": "spelled", "data": data, "model": LAYERS,
        "tasks": {"t": {"missing": "mask", **task}},
        "optimizer": {"kind": "sgd", "lr": 0.1}, "train": {"epochs": 1, "batch_size": 4},
    })  # fmt: skip


def read(data: dict[str, Any], task: dict[str, Any]) -> tuple[TaskLabels, Joined]:
    """The labels of one task, where every row is a training row."""
    recipe = recipe_of(data, task)
    joined = read_sources(recipe)
    header = assemble._read_header(joined, header_of(recipe))
    outputs, splits = known_outputs(recipe, header)["t"], {"train": np.arange(joined.n_rows)}
    return read_task("t", recipe.tasks["t"], outputs, joined, header, splits, "error"), joined


def table(path: str, categorical: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"kind": "table", "path": path, "inputs": {"numeric": ["x"], "categorical": list(categorical)}}


def rows(n: int = 8) -> list[str]:
    return [str(i) for i in range(n)]


def targets(found: TaskLabels) -> list[int]:
    """The targets; -9 for a missing label."""
    return np.where(found.present, found.targets.astype(int), -9).tolist()


def test_two_sources_have_one_set_of_classes_and_categories(tmp_path: Path) -> None:
    """One program wrote `1`, another one `1.0`, since a value was missing; a third wrote Parquet."""
    data = {
        "sources": {
            "a": table(csv(tmp_path / "a.csv", x=rows(3), y=["0", "1", "2"], c=["5", "6", "7"]), ("c",)),
            "b": table(
                csv(tmp_path / "b.csv", x=rows(4), y=["0.0", "1.0", "", "2.0"], c=["5.0", "", "6.0", "7.0"]), ("c",)
            ),
            "c": table(parquet(tmp_path / "c.parquet", x=[1, 2], y=[2.0, None], c=[7, 5]), ("c",)),
        },
    }  # fmt: skip
    found, joined = read(data, {"kind": "multiclass", "target": "y"})
    assert found.outputs == ("0", "1", "2")
    assert targets(found) == [0, 1, 2, 0, 1, -9, 2, 2, -9]
    assert joined.layout is not None
    assert joined.layout.values == {"c": ("5", "6", "7")}
    assert joined.inputs[:, 1].tolist() == [1, 2, 3, 1, 0, 2, 3, 3, 1]


def test_two_sources_of_fractions_and_of_truth_values(tmp_path: Path) -> None:
    data = {
        "sources": {
            "a": table(csv(tmp_path / "a.csv", x=rows(3), y=["0.5", "1.0", "1.50"], z=["True", "False", ""])),
            "b": table(
                parquet(tmp_path / "b.parquet", x=[1, 2, 3], y=[1.5, 0.5, 1.0], z=[True, None, False])
            ),
            "c": table(csv(tmp_path / "c.csv", x=rows(2), y=["1", "0.50"], z=["0.0", "1.0"])),
        }
    }
    found, _ = read(data, {"kind": "multiclass", "target": "y"})
    assert found.outputs == ("0.5", "1", "1.5")
    assert targets(found) == [0, 1, 2, 2, 0, 1, 1, 0]
    found, _ = read(data, {"kind": "binary", "target": "z"})
    assert targets(found) == [1, 0, -9, 1, -9, 0, 0, 1]


ZEROS_AND_ONES = {
    "whole": ["0", "1", "", "1"], "floats": ["0.0", "1.0", "", "1.0"], "truth": ["False", "True", "", "True"],
    "lower": ["false", "true", "", "true"],
}  # fmt: skip


@pytest.mark.parametrize("form", ZEROS_AND_ONES)
def test_yes_and_no_with_gaps(form: str, tmp_path: Path) -> None:
    values = ZEROS_AND_ONES[form]
    source = {"source": table(csv(tmp_path / "t.csv", x=rows(4), y=values, z=values[::-1]))}
    assert targets(read(source, {"kind": "binary", "target": "y"})[0]) == [0, 1, -9, 1]
    both, _ = read(source, {"kind": "multilabel", "targets": ["y", "z"]})
    assert both.targets.tolist() == [[0, 1], [1, -1], [-1, 1], [1, 0]]


@pytest.mark.parametrize("written", ["csv", "parquet"])
@pytest.mark.parametrize("positive", [2, "2", "2.0", (2,), ("2.00",)])
def test_the_positive_value_of_a_recipe(written: str, positive: object, tmp_path: Path) -> None:
    path = (
        csv(tmp_path / "t.csv", x=rows(), y=TEXTS)
        if written == "csv"
        else parquet(tmp_path / "t.parquet", x=list(range(8)), y=NUMBERS)
    )
    found, _ = read({"source": table(path)}, {"kind": "binary", "target": "y", "positive": positive})
    assert targets(found) == [0, 1, -9, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("value", [True, "true", "True", 1])
def test_the_positive_truth_value_of_a_recipe(value: object, tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", x=rows(4), y=["True", "False", "", "True"])
    found, _ = read({"source": table(path)}, {"kind": "binary", "target": "y", "positive": value})
    assert targets(found) == [1, 0, -9, 1]


def test_classes_groups_and_orders_of_a_recipe(tmp_path: Path) -> None:
    source = {
        "source": table(
            csv(tmp_path / "t.csv", x=rows(), y=["1.5", "2.0", "", "3.0", "1.50", "2", "3", "1.5"])
        )
    }
    wanted = [0, 1, -9, 2, 0, 1, 2, 0]
    classes = {
        "kind": "multiclass",
        "target": "y",
        "classes": ("1.50", 2, "3.0"),
        "class_weights": {"2.0": 3.0},
    }
    found, _ = read(source, classes)
    assert targets(found) == wanted
    assert found.outputs == ("1.50", "2", "3.0")
    assert found.constants["class_weight"] == (1.0, 3.0, 1.0)
    order = {"kind": "ordinal", "target": "y", "order": ("3", "2.0", "1.5")}
    assert targets(read(source, order)[0]) == [-9 if v < 0 else 2 - v for v in wanted]
    groups = {"kind": "multiclass", "target": "y", "groups": {"low": ("1.50",), "high": ("2.0", 3)}}
    assert targets(read(source, groups)[0]) == [0, 1, -9, 1, 0, 1, 1, 0]


def test_labels_of_a_list(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", x=rows(4), y=["1.0|2.0", "3", "", "2"])
    task = {"kind": "multilabel", "target": "y", "labels": ("1", "2.0", "3"), "empty": "none"}
    found, _ = read({"source": table(path)}, task)
    assert found.targets.tolist() == [
        [1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0],
    ]  # fmt: skip


def test_groups_and_ids_that_are_one_stay_on_one_side(tmp_path: Path) -> None:
    names = ["1", "2", "3", "4", "1.0", "2.0", "3.0", "4.0"]
    parts = ["train"] * 4 + ["test"] * 4
    path = csv(tmp_path / "t.csv", x=rows(), y=["a", "b"] * 4, g=names, p=parts)
    task = {"kind": "multiclass", "target": "y"}
    recipe = recipe_of({"source": table(path), "split": {"test": 0.5, "group": "g"}}, task)
    splits = load_dataset(recipe, header_of(recipe)).splits
    assert {float(names[r]) for r in splits["train"]}.isdisjoint(float(names[r]) for r in splits["test"])
    recipe = recipe_of({"source": {**table(path), "id": "g"}, "split": {"column": "p"}}, task)
    with pytest.raises(UserError, match=r"4 ids are in both train and test, first '1'"):
        load_dataset(recipe, header_of(recipe))


def test_a_column_with_zeros_in_front_is_text(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", x=rows(4), y=["01067", "1067", "1067.0", "01067"])
    found, _ = read({"source": table(path)}, {"kind": "multiclass", "target": "y"})
    assert found.outputs == ("01067", "1067", "1067.0")


@pytest.mark.parametrize("write", [csv, parquet])
@pytest.mark.parametrize(
    ("values", "more", "odd"),
    [
        ([0, 1, 2, 3.7, 1, 2, 0, 1], {}, "3.7"),
        ([0, 1, 2, 3.7, 1, 2, 0, 1], {"classes": ["0", "1", "2", "3.7"]}, None),
        ([0, 1, 2, 3.7, 1, 2, 0, 1], {"groups": {"low": [0, 1], "high": [2, "3.7"]}}, None),
        ([0, 0.5, 1, 1.5, 2, 1, 0, 2], {}, None),  # half stars
        ([0, 0.5, 1, 0.5, 0, 1, 0, 1], {}, None),  # a class like others
        ([0, 1.5, 0, 0, 0, 0, 0, 0], {}, None),  # one whole number is no rule
    ],
)
def test_one_fraction_among_whole_classes(
    write: Any, values: list[float], more: dict[str, Any], odd: str | None, tmp_path: Path
) -> None:
    is_text = write is csv
    shown = [f"{value:g}" for value in values] if is_text else values
    path = write(
        tmp_path / ("t.csv" if is_text else "t.parquet"), x=rows() if is_text else [1.0] * 8, label=shown
    )
    data, task = {"source": table(path)}, {"kind": "multiclass", "target": "label", **more}
    if odd is None:
        assert len(read(data, task)[0].targets) == 8
        return
    with pytest.raises(UserError) as caught:
        read(data, task)
    what = f"{odd} in column 'label' is a fraction, and all other classes are whole: 0, 1, 2"
    assert what in str(caught.value)
    assert ":row " in str(caught.value)
