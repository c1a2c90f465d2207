"""Labels that are functions of another label or of an input are named; those that are so by chance are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.functions import found as module
from mtl.dataset.functions.evidence import evidence, refuted
from mtl.dataset.header import header_of
from mtl.recipe.load import load_recipe
from tests.support.assertions import Capture, called
from tests.support.tables import recipe_in, write_rows

N = 400
SORT = {"kind": "multiclass", "target": "sort"}
Columns = Mapping[str, Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def columns(n: int = N) -> dict[str, Any]:
    rng = np.random.default_rng(6)
    sort = rng.integers(0, 6, n)
    return {
        "u": [f"{x:.4f}" for x in rng.normal(size=n)],
        "v": [f"{x:.4f}" for x in rng.normal(size=n)],
        "few": rng.integers(0, 4, n).tolist(),
        "state": [("new", "old", "odd")[i] for i in rng.integers(0, 3, n)],
        "sort": [f"s{i}" for i in sort],
        "big": ["yes" if i > 3 else "no" for i in sort],
        "noise": rng.integers(0, 2, n).tolist(),
        "price": (10.5 * sort).tolist(),
        "amount": [f"{x:.3f}" for x in rng.normal(size=n)],
        "id": list(range(n)),
        "part": ["test" if i % 5 == 0 else "train" for i in range(n)],
    }


def load(folder: Path, tasks: Mapping[str, Any], made: Columns | None = None, **data: Any) -> Dataset:
    made = columns() if made is None else made
    rows = [dict(zip(made, row, strict=True)) for row in zip(*made.values(), strict=True)]
    write_rows(folder / "t.csv", rows)
    inputs = {"numeric": ["u", "v", "few"], "categorical": ["state"]}
    source = {"kind": "table", "path": "t.csv", "inputs": inputs}
    recipe_in(folder, tasks, data={"source": source, "split": {"column": "part"}, **data})
    recipe = load_recipe("r.yaml")
    return load_dataset(recipe, header_of(recipe))


def names(dataset: Dataset) -> list[tuple[str, str]]:
    return [(each.task, each.of) for each in dataset.functions]


def test_a_label_that_follows_from_another_label(folder: Path) -> None:
    tasks = {
        "sort": SORT,
        "big": {"kind": "binary", "target": "big"},
        "noise": {"kind": "binary", "target": "noise"},
    }
    dataset = load(folder, tasks)
    (only,) = dataset.functions
    assert (only.task, only.of, only.is_input, only.n_rows) == ("big", "sort", False, 320)
    assert only.mapping == {f"s{i}": "yes" if i > 3 else "no" for i in range(6)}
    assert (
        "task 'big': its label follows from that of task 'sort' in all 320 training rows that have both; with "
        "tasks.big.derived_from: sort the results show what that alone reaches"
    ) in dataset.notices
    said = load(folder, {**tasks, "big": {"kind": "binary", "target": "big", "derived_from": "sort"}})
    assert said.functions == ()


def test_numbers_and_classes_that_say_the_same_are_found_once(folder: Path) -> None:
    tasks = {"price": {"kind": "regression", "target": "price"}, "sort": SORT}
    dataset = load(folder, tasks)
    assert names(dataset) == [("sort", "price")]
    assert dataset.functions[0].mapping["31.5"] == "s3"
    assert not any("derived_from" in line for line in dataset.notices)


@pytest.mark.parametrize("of", ["few", "state"])
def test_a_label_that_follows_from_an_input(of: str, folder: Path) -> None:
    made = columns()
    made["big"] = ["yes" if value in (3, "odd") else "no" for value in made[of]]
    dataset = load(folder, {"big": {"kind": "binary", "target": "big"}}, made)
    assert names(dataset) == [("big", of)]
    assert dataset.functions[0].is_input
    assert set(dataset.functions[0].mapping.values()) == {"yes", "no"}
    assert any(
        line.startswith(f"task 'big': its label follows from input '{of}'") for line in dataset.notices
    )


def test_chance_and_ids_are_no_functions(folder: Path) -> None:
    """Every distinct number determines a label, as an id does, and two labels of eight rows agree easily."""
    tasks = {
        "noise": {"kind": "binary", "target": "noise"},
        "amount": {"kind": "regression", "target": "amount"},
        "id": {"kind": "regression", "target": "id"},
    }
    assert load(folder, tasks).functions == ()
    made = columns(12)
    made["big"] = made["noise"] = [i % 2 for i in range(12)]
    few = {name: {"kind": "binary", "target": name} for name in ("big", "noise")}
    assert load(folder, few, made).functions == ()
    made = columns(60)
    made["big"] = made["noise"] = [i % 2 for i in range(60)]
    assert names(load(folder, few, made)) == [("noise", "big")]


def test_one_row_that_differs_is_enough(folder: Path) -> None:
    made = columns()
    train = made["part"].index("train")
    made["big"][train] = "no" if made["big"][train] == "yes" else "yes"
    tasks = {"sort": SORT, "big": {"kind": "binary", "target": "big"}}
    assert load(folder, tasks, made).functions == ()
    made = columns()
    made["big"][0] = "no" if made["big"][0] == "yes" else "yes"
    assert made["part"][0] == "test"  # the training rows say it all the same
    assert names(load(folder, tasks, made)) == [("big", "sort")]


def test_only_rows_with_both_labels_count(folder: Path) -> None:
    made = columns()
    made["big"] = [value if i % 2 else "" for i, value in enumerate(made["big"])]
    tasks = {"sort": SORT, "big": {"kind": "binary", "target": "big", "missing": "mask"}}
    dataset = load(folder, tasks, made)
    there = [i for i in range(N) if i % 2 and i % 5]
    assert [(each.task, each.n_rows) for each in dataset.functions] == [("big", len(there))]


def test_copies_of_a_few_rows_are_no_evidence(folder: Path) -> None:
    made = {name: (list(values) * 40)[:400] for name, values in columns(10).items()}
    made["part"] = ["train"] * 390 + ["test"] * 10
    tasks = {"sort": SORT, "noise": {"kind": "binary", "target": "noise"}}
    assert load(folder, tasks, made).functions == ()


def test_rows_of_one_group_count_once(folder: Path) -> None:
    """Eight people with 50 rows each: what holds of people is no evidence for the rows."""
    made = columns()
    made["person"] = [f"p{i // 50}" for i in range(N)]
    made["big"] = ["yes" if i // 50 % 2 else "no" for i in range(N)]
    made["sort"] = [f"s{i // 50 // 2}" for i in range(N)]
    made["noise"] = ["yes" if i // 50 // 2 % 2 else "no" for i in range(N)]
    tasks = {"sort": SORT, "noise": {"kind": "binary", "target": "noise"}}
    grouped = load(folder, tasks, made, split={"group": "person", "test": 0.25})
    assert grouped.functions == ()
    assert names(load(folder, tasks, made)) == [("noise", "sort")]


def test_large_data_are_judged_on_a_sample_and_checked_on_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST", 30)
    monkeypatch.setattr(module, "SAMPLE", 100)
    tasks = {"sort": SORT, "big": {"kind": "binary", "target": "big"}}
    assert names(load(folder, tasks)) == [("big", "sort")]
    made = columns()
    sampled = {int(i) for i in np.linspace(0, 319, 100)} | {int(i) for i in np.linspace(0, 319, 30)}
    odd = next(i for i in range(320) if i not in sampled)
    row = [i for i in range(N) if i % 5][odd]
    made["big"][row] = "no" if made["big"][row] == "yes" else "yes"
    assert load(folder, tasks, made).functions == ()


def test_many_functions_are_counted(folder: Path) -> None:
    made = columns()
    for i in range(9):
        made[f"c{i}"] = [int(text[1]) * (i % 4 + 1) // 3 % 4 for text in made["sort"]]
    tasks = {"sort": SORT, **{f"c{i}": {"kind": "multiclass", "target": f"c{i}"} for i in range(9)}}
    dataset = load(folder, tasks, made)
    assert len(dataset.functions) == 9
    assert sum("follows from" in line for line in dataset.notices) == module.SHOWN
    assert "3 more labels follow from another label or from an input" in dataset.notices


def test_a_label_that_is_asked_for_twice_is_found_in_generated_rows_too() -> None:
    from tests.support.recipes import recipe

    made = recipe(tasks__b={"kind": "multiclass", "target": "task0"}, data__source__rows=200)
    found = load_dataset(made, header_of(made))
    assert [(each.task, each.of) for each in found.functions] == [("b", "a")]
    assert "task 'b': its label follows from that of task 'a' in all 200 training rows that have both" in str(
        found.notices
    )


def test_validate_reads_the_rows_if_asked(folder: Path, capsys: Capture) -> None:
    load(folder, {"sort": SORT, "big": {"kind": "binary", "target": "big"}})
    plain = called(capsys, "validate", "r.yaml")
    assert (plain.returncode, plain.stderr) == (0, "")
    done = called(capsys, "validate", "r.yaml", "--data")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: task 'big': its label follows from that of task 'sort'")
    assert " parameters" in done.stdout
    (folder / "t.csv").write_text((folder / "t.csv").read_text().replace(",s3,", ",,", 1))
    assert called(capsys, "validate", "r.yaml").returncode == 0
    refused = called(capsys, "validate", "r.yaml", "--data")
    assert refused.returncode == 2
    assert "no label in column 'sort'" in refused.stderr


def test_the_evidence_counts_orders_against_functions() -> None:
    of, values = np.repeat([0, 1, 2], 4), np.repeat([0, 1, 0], 4)
    assert evidence(of, values) == pytest.approx(np.log(495) - 3 * np.log(2))  # 12 choose 4
    assert evidence(values, of) is None
    assert evidence(np.arange(12), values) is None


def test_most_columns_are_refuted_by_a_few_rows() -> None:
    rng = np.random.default_rng(0)
    label = np.where(rng.random(400) < 0.05, 1.0, 0.0)
    columns = np.stack(
        [label, label * 3 + 2, rng.integers(0, 3, 400), np.arange(400.0), np.full(400, np.nan)]
    )
    assert refuted(columns, label).tolist() == [False, False, True, False, False]
    one_differs = np.where(np.arange(400) == np.flatnonzero(label)[3], 0.0, label)
    assert refuted(one_differs[None], label).tolist() == [True]  # rare labels are looked at first
    assert refuted(columns, np.full(400, np.nan)).tolist() == [False] * 5
    assert refuted(columns, np.where(label == 1, label, np.nan)).tolist() == [False] * 5
    for _ in range(50):
        values = rng.integers(0, 4, (6, 30)).astype(np.float64)
        values[rng.random(values.shape) < 0.1] = np.nan
        one, others = values[0], values[1:]
        differ = one[:, None] != one
        differ &= ~np.isnan(one[:, None] + one)
        found = [(differ & (each[:, None] == each)).any() for each in others]
        assert (found | ~refuted(others, one)).all(), "nothing is refuted that holds"
