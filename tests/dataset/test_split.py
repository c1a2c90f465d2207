"""`data.split` on files: which rows are where, and what the command says of splits that cannot be (D10, D11).

Every table has 40 rows: `u` is the row's number, `label` its number modulo 4, `who` is p0 to p9, `day` counts from
2024-01-01.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.recipe.load import load_recipe
from tests.support import recipes
from tests.support.assertions import Capture, called, refused
from tests.support.recipes import table
from tests.support.tables import write_rows

N = 40
Row = dict[str, object]


def row(i: int) -> Row:
    day = date(2024, 1, 1) + timedelta(days=i)
    return {
        "u": i,
        "label": i % 4,
        "who": f"p{i // 4}",
        "day": day.isoformat(),
        "part": "",
        "id": f"img_{i:03d}",
    }


def recipe_in(folder: Path, split: Mapping[str, object], source: Mapping[str, object] | None = None) -> Path:
    """`r.yaml` over `t.csv`, or over other sources by name."""
    sources = {"source": table("t.csv", "u")} if source is None else source
    tasks = {"a": {"kind": "multiclass", "target": "label", "missing": "mask"}}
    return recipes.write(folder, data={"split": split, **sources}, tasks=tasks)


def data_of(folder: Path, split: Mapping[str, object], source: Mapping[str, object] | None = None) -> Dataset:
    recipe = load_recipe(recipe_in(folder, split, source))
    return load_dataset(recipe, header_of(recipe))


def numbers(dataset: Dataset) -> dict[str, list[int]]:
    """Split -> the numbers `u` of its rows."""
    return {name: dataset.rows.inputs[rows, 0].int().tolist() for name, rows in dataset.splits.items()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "t.csv", [row(i) for i in range(N)])
    return tmp_path


# --- where rows go ----------------------------------------------------------------------------------------


def test_fractions(folder: Path) -> None:
    parts = numbers(data_of(folder, {"validation": 0.1, "test": 0.2}))
    assert {name: len(part) for name, part in parts.items()} == {"train": 28, "validation": 4, "test": 8}
    assert sorted(chain(*parts.values())) == list(range(N))
    assert numbers(data_of(folder, {"test": 0.2}))["test"] == parts["test"]


def test_stratified(folder: Path) -> None:
    parts = numbers(data_of(folder, {"validation": 0.1, "test": 0.2, "stratify": "a"}))
    for name, each in (("train", 7), ("validation", 1), ("test", 2)):
        assert np.bincount(np.array(parts[name]) % 4).tolist() == [each] * 4


@pytest.mark.parametrize("strata", [["a"], "all"])
def test_one_task_is_stratified_alike_however_it_is_named(strata: object, folder: Path) -> None:
    held = {"validation": 0.1, "test": 0.2}
    assert numbers(data_of(folder, {**held, "stratify": strata})) == numbers(
        data_of(folder, {**held, "stratify": "a"})
    )


def test_a_quantity_is_stratified_by_whether_it_is_there(folder: Path) -> None:
    write_rows(folder / "t.csv", [{**row(i), "label": i / 7 if i % 4 == 0 else ""} for i in range(N)])
    task = {"a": {"kind": "regression", "target": "label", "missing": "mask"}}
    path = recipes.write(
        folder,
        data={"split": {"validation": 0.2, "test": 0.2, "stratify": "a"}, "source": table("t.csv", "u")},
        tasks=task,
    )
    recipe = load_recipe(path)
    parts = numbers(load_dataset(recipe, header_of(recipe)))
    assert {name: sum(i % 4 == 0 for i in part) for name, part in parts.items()} == {
        "train": 6,
        "validation": 2,
        "test": 2,
    }


def test_rows_without_the_label_are_a_stratum_of_their_own(folder: Path) -> None:
    """So that a task with few labels has some in every split."""
    write_rows(folder / "t.csv", [{**row(i), "label": row(i)["label"] if i < 10 else ""} for i in range(N)])
    parts = numbers(data_of(folder, {"validation": 0.2, "test": 0.2, "stratify": "a"}))
    labelled = {name: sum(i < 10 for i in part) for name, part in parts.items()}
    assert labelled == {"train": 6, "validation": 2, "test": 2}


def test_groups(folder: Path) -> None:
    parts = numbers(data_of(folder, {"validation": 0.2, "test": 0.2, "group": "who"}))
    people = {name: {i // 4 for i in part} for name, part in parts.items()}
    assert {name: len(group) for name, group in people.items()} == {"train": 6, "validation": 2, "test": 2}
    assert len(set.union(*people.values())) == 10


@pytest.mark.parametrize(
    ("split", "train", "validation", "test"),
    [
        ({"test": 0.25}, range(30), None, range(30, 40)),
        ({"test": 0.25, "gap": "3d"}, range(27), None, range(30, 40)),
        ({"validation": 0.1, "test": 0.25, "gap": "2d"}, range(22), range(24, 28), range(30, 40)),
        ({"test_from": "2024-01-31"}, range(30), None, range(30, 40)),
        (
            {"test_from": "2024-02-01", "validation_from": "2024-01-21T12:00:00", "gap": "36h"},
            range(19),
            range(21, 30),
            range(31, 40),
        ),
    ],
)
def test_by_time(
    folder: Path, split: dict[str, object], train: range, validation: range | None, test: range
) -> None:
    dataset = data_of(folder, {"by_time": "day", **split})
    expected = {"train": list(train), "validation": list(validation or ()), "test": list(test)}
    assert numbers(dataset) == {name: part for name, part in expected.items() if part}
    left = N - sum(map(len, expected.values()))
    said = [notice for notice in dataset.notices if "in no split" in notice]
    assert said == ([f"{left} of 40 rows are in no split"] if left else [])


def test_a_column_of_words(folder: Path) -> None:
    words = ["train", "Train", "val", "test", "valid", "dev", "train", "validation", "", "train"]
    write_rows(folder / "t.csv", [{**row(i), "part": words[i % 10]} for i in range(N)])
    dataset = data_of(folder, {"column": "part"})
    assert {name: sorted({i % 10 for i in part}) for name, part in numbers(dataset).items()} == {
        "train": [0, 1, 6, 9],
        "validation": [2, 4, 5, 7],
        "test": [3],
    }
    assert "4 of 40 rows are in no split" in dataset.notices


def test_a_column_without_a_test_split_may_have_one_held_out(folder: Path) -> None:
    write_rows(folder / "t.csv", [{**row(i), "part": "dev" if i < 8 else "train"} for i in range(N)])
    parts = numbers(data_of(folder, {"column": "part", "test": 0.25}))
    assert {name: len(part) for name, part in parts.items()} == {"train": 24, "validation": 8, "test": 8}
    assert sorted(parts["validation"]) == list(range(8))


def test_given_files(folder: Path) -> None:
    write_rows(folder / "t.csv", [row(i) for i in range(20)])
    write_rows(folder / "v.csv", [row(i) for i in range(20, 25)])
    write_rows(folder / "s.csv", [row(i) for i in range(25, N)])
    files = {"kind": "table", "path": "t.csv", "inputs": {"numeric": ["u"]}, "id": "id"}
    one = data_of(folder, {}, {"source": {**files, "validation": "v.csv", "test": "s.csv"}})
    expected = {"train": list(range(20)), "validation": list(range(20, 25)), "test": list(range(25, N))}
    assert numbers(one) == expected
    held_out = numbers(data_of(folder, {"validation": 0.2}, {"source": {**files, "test": "s.csv"}}))
    assert {name: len(part) for name, part in held_out.items()} == {"train": 16, "validation": 4, "test": 15}
    assert held_out["test"] == expected["test"]


def test_people_in_several_files_are_on_one_side(folder: Path) -> None:
    """Each of three files has other rows of the same ten people; nothing else keeps them together."""
    sources = {}
    for k in range(3):
        write_rows(folder / f"{k}.csv", [row(i) for i in range(k, N, 3)])
        sources[f"s{k}"] = {"kind": "table", "path": f"{k}.csv", "inputs": {"numeric": ["u"]}}
    parts = numbers(data_of(folder, {"test": 0.3, "group": "who"}, {"sources": sources}))
    people = {name: {i // 4 for i in part} for name, part in parts.items()}
    assert len(people["test"]) == 3
    assert not people["test"] & people["train"]
    assert sorted(chain(*parts.values())) == list(range(N))


def test_the_seed_of_splits_is_one_of_its_own(folder: Path, capsys: Capture) -> None:
    recipe_in(folder, {"test": 0.2})
    parts = []
    for seed in ({"split": 1}, {"split": 1, "init": 9, "order": 9, "labels": 9}, {"split": 2}, {"split": 1}):
        recipe = load_recipe(folder / "r.yaml", [f"seed={json.dumps(seed)}"])
        parts.append(numbers(load_dataset(recipe, header_of(recipe))))
    assert parts[0] == parts[1] == parts[3]
    assert parts[0] != parts[2]


# --- what is refused --------------------------------------------------------------------------------------


def two_files(folder: Path, test: list[Row], **more: object) -> dict[str, object]:
    write_rows(folder / "s.csv", test)
    return {
        "source": {"kind": "table", "path": "t.csv", "test": "s.csv", "inputs": {"numeric": ["u"]}, **more}
    }


Make = Callable[[Path], Mapping[str, object] | None]


def plain(folder: Path) -> None:
    return None


def tiny(folder: Path) -> None:
    write_rows(folder / "t.csv", [row(i) for i in range(3)])


def misspelled(folder: Path) -> None:
    write_rows(folder / "t.csv", [{**row(i), "part": "holdout" if i == 5 else "train"} for i in range(N)])


def one_empty(column: str, at: tuple[int, ...] = (6,)) -> Make:
    def make(folder: Path) -> None:
        write_rows(folder / "t.csv", [{**row(i), column: ""} if i in at else row(i) for i in range(N)])

    return make


def overlapping(folder: Path) -> Mapping[str, object]:
    return two_files(folder, [row(i) for i in (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)], id="id")


def overlapping_sources(folder: Path) -> Mapping[str, object]:
    """The same twelve rows are in two sources, and in each for something else."""
    mine = two_files(folder, [row(i) for i in range(N, N + 4)], id="id")["source"]
    write_rows(folder / "o.csv", [row(i) for i in range(N + 4, N + 10)])
    write_rows(folder / "o_test.csv", [row(i) for i in range(4, 16)])
    other = {"kind": "table", "path": "o.csv", "test": "o_test.csv", "inputs": {"numeric": ["u"]}, "id": "id"}
    return {"sources": {"one": mine, "other": other}}


def same_people(folder: Path) -> Mapping[str, object]:
    return two_files(folder, [row(i) for i in range(36, 44)])


CASES: dict[str, tuple[Make, dict[str, object], str]] = {
    "D10 rounding to none": (
        tiny,
        {"validation": 0.1, "test": 0.4},
        "r.yaml:3:28: data.split.validation: split 'validation' is empty (3 rows x 0.1); "
        "write validation: 0.33 or more, or bring more rows",
    ),
    "D10 a fraction of 0": (
        plain,
        {"validation": 0.0, "test": 0.2},
        "r.yaml:3:28: data.split.validation: Input should be greater than 0",
    ),
    "D10 no test split": (
        plain,
        {"validation": 0.2},
        "r.yaml:3:15: data.split: the data have no test split; write data.split: {test: 0.2} to hold out a fifth",
    ),
    "D10 nothing left for training": (
        tiny,
        {"validation": 0.49, "test": 0.5},
        "data.split: split 'train' is empty (2 test and 1 validation rows of 3 are held out); hold out less",
    ),
    "D11 ids in two files": (
        overlapping,
        {},
        "r.yaml:3:15: data.split: 12 ids are in both train and test, first 'img_004'",
    ),
    "D11 ids in two sources": (
        overlapping_sources,
        {},
        "r.yaml:3:15: data.split: 12 ids are in both train and test, first 'img_004'",
    ),
    "D11 a group in two files": (
        same_people,
        {"group": "who"},
        "r.yaml:3:23: data.split.group: 1 group is in both train and test, first 'p9'",
    ),
    "another word": (
        misspelled,
        {"column": "part"},
        "r.yaml:3:24: data.split.column: t.csv:row 7: 'holdout' is none of train, validation, test",
    ),
    "no word": (plain, {"column": "part"}, "data.split.column: split 'train' is empty: no row says train"),
    "a column beside given files": (
        overlapping,
        {"column": "part"},
        "data.split.column: the source gives splits already; remove this key",
    ),
    "a fraction beside given files": (
        overlapping,
        {"test": 0.2},
        "data.split.test: the source gives a test split of 12 rows already; remove this key",
    ),
    "a row without a group": (
        one_empty("who"),
        {"test": 0.2, "group": "who"},
        "r.yaml:3:34: data.split.group: t.csv:row 8: no group in column 'who'",
    ),
    "rows without a group": (
        one_empty("who", (6, 3, 9)),
        {"test": 0.2, "group": "who"},
        "t.csv:row 5: no group in column 'who', and 2 more rows like it",
    ),
    "a row without a time": (
        one_empty("day"),
        {"test": 0.2, "by_time": "day"},
        "data.split.by_time: t.csv:row 8: has no time",
    ),
    "a moment after all rows": (
        plain,
        {"by_time": "day", "test_from": "2030-01-01"},
        "r.yaml:3:41: data.split.test_from: split 'test' is empty: no row is that late",
    ),
    "too few groups": (
        tiny,
        {"test": 0.2, "group": "who"},
        "data.split.group: 1 group is too little for test 0.2",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, folder: Path, capsys: Capture) -> None:
    make, split, text = CASES[name]
    recipe_in(folder, split, make(folder))
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


@pytest.mark.parametrize(("key", "column"), [("column", 24), ("group", 23), ("by_time", 25)])
def test_a_column_that_no_source_has(key: str, column: int, folder: Path, capsys: Capture) -> None:
    sources = {name: {"kind": "table", "path": "t.csv", "inputs": {"numeric": ["u"]}} for name in ("a", "b")}
    recipe_in(folder, {key: "nosuch"}, {"sources": sources})
    text = f"r.yaml:3:{column}: data.split.{key}: no column 'nosuch'; columns: "
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])
