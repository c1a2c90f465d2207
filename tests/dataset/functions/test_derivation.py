"""`derived_from`: what a class stands for is learned from train or given by the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.errors import UserError
from mtl.recipe.load import load_recipe
from tests.support.tables import recipe_in, write_rows

CYCLE = ("ant", "bee", "cow", "doe")
SIZE = {"ant": "small", "bee": "small", "cow": "large", "doe": "large"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(folder: Path, derived_from: object, *overrides: str, wrong: int = 0, **task: Any) -> Dataset:
    """80 rows; `wrong` of the training rows have the other size."""
    other = {"small": "large", "large": "small"}
    rows: list[dict[str, object]] = [
        {
            "u": i,
            "v": i * i % 7,
            "part": "test" if i >= 60 else "train",
            "beast": CYCLE[i % 4],
            "size": other[SIZE[CYCLE[i % 4]]] if i < wrong else SIZE[CYCLE[i % 4]],
        }
        for i in range(80)
    ]
    write_rows(folder / "t.csv", rows)
    sized = {"kind": "multiclass", "target": "size", "derived_from": derived_from, **task}
    recipe_in(folder, {"beast": {"kind": "multiclass", "target": "beast"}, "size": sized})
    recipe = load_recipe("r.yaml", overrides)
    return load_dataset(recipe, header_of(recipe))


def shares(dataset: Dataset) -> list[list[float]]:
    found: list[list[float]] = dataset.derived["size"].shares.tolist()
    return found


EXPECTED = [[0, 1], [0, 1], [1, 0], [1, 0]]  # large, small


def test_a_mapping_is_learned(folder: Path) -> None:
    dataset = load(folder, "beast")
    assert dataset.learned.outputs["size"] == ("large", "small")
    assert dataset.derived["size"].of == "beast"
    assert shares(dataset) == EXPECTED


def test_a_mapping_is_given(folder: Path) -> None:
    dataset = load(folder, {"task": "beast", "mapping": SIZE}, wrong=3)
    assert shares(dataset) == EXPECTED
    assert (
        "task 'size': derived_from.mapping is wrong in 3 of 60 training rows with both labels"
        in dataset.notices
    )
    assert not any("wrong" in line for line in load(folder, {"task": "beast", "mapping": SIZE}).notices)


def test_rows_that_do_not_tell_it_are_refused(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(folder, "beast", wrong=1)
    assert caught.value.path == ("tasks", "size", "derived_from")
    assert caught.value.what == "class 'ant' of task 'beast' goes with 'small' and with 'large' in train"
    assert caught.value.todo == "say by `mapping` which one it stands for, or remove this key"


def test_a_class_without_a_pair_says_what_train_says(folder: Path) -> None:
    dataset = load(folder, "beast", "data.label_fraction.size=0.01")
    known = [row for row in shares(dataset) if 1 in row]
    assert len(known) == 2
    assert [row for row in shares(dataset) if 1 not in row] == [[0.5, 0.5]] * 2


def test_permuted_labels_change_no_mapping(folder: Path) -> None:
    for task in ("size", "beast"):
        assert shares(load(folder, "beast", f"data.permute_labels.tasks=[{task}]")) == EXPECTED


REFUSED = {
    "unknown class": (
        {**SIZE, "cat": "small"},
        ("mapping", "cat"),
        "no class 'cat' of task 'beast' (did you mean ",
    ),
    "unknown own class": ({**SIZE, "cow": "huge"}, ("mapping", "cow"), "no class 'huge' of this task"),
    "one left out": (
        {"ant": "small"},
        ("mapping",),
        "'bee', 'cow', 'doe' of task 'beast' are left out",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mapping_that_cannot_be(name: str, folder: Path) -> None:
    mapping, path, text = REFUSED[name]
    with pytest.raises(UserError) as caught:
        load(folder, {"task": "beast", "mapping": mapping})
    assert caught.value.path == ("tasks", "size", "derived_from", *path)
    assert caught.value.what.startswith(text)


def test_numbers_name_classes(folder: Path) -> None:
    write_rows(
        folder / "t.csv",
        [
            {"u": i, "v": 1 - i, "part": "test" if i > 30 else "train", "n": i % 3, "odd": i % 3 % 2}
            for i in range(40)
        ],
    )
    mapping = {"0": False, "1": True, "2": False}
    tasks = {
        "n": {"kind": "multiclass", "target": "n"},
        "odd": {"kind": "binary", "target": "odd", "derived_from": {"task": "n", "mapping": mapping}},
    }
    recipe_in(folder, tasks)
    for given in ([], ["tasks.odd.derived_from.mapping={'0': 0, '1': 1, '2': 0}"]):
        recipe = load_recipe("r.yaml", given)
        derived = load_dataset(recipe, header_of(recipe)).derived
        np.testing.assert_array_equal(derived["odd"].shares, [[1, 0], [0, 1], [1, 0]])
