"""Rows as tensors, and what is said of labels that are missing, wrong or all alike (D12-D23)."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from mtl.data.types import Columns, Header
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.errors import USER, ManyErrors, UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.sources.synthetic import Synthetic
from tests.support import recipes

N = 12
THREE, TWO = ("red", "green", "blue"), ("no", "yes")
HEADER = Header(input_shape=(4,), labels={"three": THREE, "two": TWO, "more": THREE})


def columns(**changes: Any) -> Columns:
    values: dict[str, Any] = {
        "inputs": np.arange(N * 4, dtype=np.float32).reshape(N, 4),
        "labels": {
            "three": np.arange(N) % 3,
            "two": np.arange(N) % 2,
            "more": (np.arange(N) + 1) % 3,
        },
        "splits": {"train": np.arange(8), "test": np.arange(8, N)},
        "fingerprint": "f" * 64,
    }
    return Columns(**{**values, **changes})


def recipe_of(missing: str = "error", **data: Any) -> Recipe:
    return recipes.recipe(
        data={"source": {"kind": "synthetic"}, **data},
        task_defaults={"kind": "multiclass", "missing": missing},
        tasks={"a": {"target": "three"}, "b": {"target": "two"}, "c": {"target": "more"}},
    )


Load = Callable[..., Dataset]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def loading(given: Columns, recipe: Recipe | None = None, header: Header = HEADER) -> Dataset:
        recipe = recipe or recipe_of()
        monkeypatch.setattr(Synthetic, "columns", lambda self, seed: given)
        monkeypatch.setattr(Synthetic, "header", lambda self: header)
        return load_dataset(recipe, header)

    return loading


def masked(column: str, *missing: int) -> Columns:
    present = np.ones(N, dtype=bool)
    present[list(missing)] = False
    return columns(present={column: present})


def label(column: str, row: int, value: int, given: Columns | None = None) -> Columns:
    given = given or columns()
    labels = {name: values.copy() for name, values in given.labels.items()}
    labels[column][row] = value
    return columns(labels=labels, present=given.present)


def error_of(load: Load, *args: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        load(*args)
    assert caught.value.code == USER
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, ManyErrors)
    return caught.value


# --- tensors ----------------------------------------------------------------------------------------------


def test_targets_and_masks_per_group(load: Load) -> None:
    present = np.arange(N) % 4 != 0
    dataset = load(columns(present={"more": present}), recipe_of("mask"))
    assert dataset.rows.inputs.dtype == torch.float32
    assert {name: tuple(t.shape) for name, t in dataset.rows.target.items()} == {
        "multiclass_3": (N, 2),
        "multiclass_2": (N, 1),
    }
    assert dataset.rows.present.keys() == dataset.rows.target.keys()
    three = dataset.rows.target["multiclass_3"]
    assert three.dtype == torch.int8  # the smallest that holds the classes
    assert dataset.rows.targets(np.arange(2)).target["multiclass_3"].dtype == torch.int64
    assert three[:, 0].tolist() == [i % 3 for i in range(N)]
    there = torch.from_numpy(present)
    assert three[:, 1][there].tolist() == [(i + 1) % 3 for i in range(N) if present[i]]
    assert ((three >= 0) & (three < 3)).all()  # whatever stands for a missing label, a loss can take it
    assert dataset.rows.present["multiclass_3"][:, 0].all()
    assert torch.equal(dataset.rows.present["multiclass_3"][:, 1], there)
    assert dataset.rows.present["multiclass_3"].dtype == torch.bool
    assert dataset.rows.target["multiclass_2"][:, 0].tolist() == [i % 2 for i in range(N)]
    assert (dataset.notices, dataset.ceiling, dataset.fingerprint) == ((), {}, "f" * 64)


def test_splits_and_standardization(load: Load) -> None:
    dataset = load(columns(), recipe_of(split={"validation": 0.25}))
    assert {name: len(rows) for name, rows in dataset.splits.items()} == {
        "train": 6,
        "validation": 2,
        "test": 4,
    }
    assert sorted(np.concatenate(list(dataset.splits.values()))) == list(range(N))
    mean, std = dataset.learned.mean, dataset.learned.std
    assert mean is not None
    assert std is not None
    train = dataset.rows.inputs[torch.from_numpy(dataset.splits["train"])].double()
    torch.testing.assert_close(torch.from_numpy(mean).double(), train.mean(0))
    torch.testing.assert_close(torch.from_numpy(std).double(), train.std(0, correction=0))
    assert load(columns(), recipe_of(standardize={"kind": "none"})).learned.mean is None


def test_integers_stay_as_they_are_stored(load: Load) -> None:
    dataset = load(columns(inputs=np.arange(N * 4, dtype=np.uint8).reshape(N, 4)))
    assert dataset.rows.inputs.dtype == torch.uint8


def test_ceiling_is_by_task(load: Load) -> None:
    dataset = load(columns(ceiling={"three": 0.9, "other": 0.1}))
    assert dataset.ceiling == {"a": 0.9}


def test_to_another_device_is_the_same_rows(load: Load) -> None:
    dataset = load(columns(present={"two": np.arange(N) > 0}), recipe_of("mask"))
    moved = dataset.to(torch.device("meta"))
    assert moved.rows.inputs.is_meta
    tensors = (*moved.rows.target.values(), *moved.rows.present.values())
    assert all(tensor.is_meta for tensor in tensors)
    assert moved.splits is dataset.splits
    assert moved.rows.target.keys() == dataset.rows.target.keys()


# --- labels that are missing ------------------------------------------------------------------------------


def test_a_missing_label_names_the_row(load: Load) -> None:
    error = error_of(load, masked("two", 5, 3, 9))
    assert error.path == ("tasks", "b", "target")
    assert "row 3: no label in column 'two', and 2 more rows like it" in str(error)
    assert str(error).endswith("; set `missing: mask` to leave such rows out of this task")


def test_a_missing_label_in_no_split_is_no_fault(load: Load) -> None:
    given = columns(
        splits={"train": np.arange(7), "test": np.arange(8, N)}, present={"two": np.arange(N) != 7}
    )
    assert len(load(given).rows.inputs) == N


@pytest.mark.parametrize(("rows", "split"), [(range(8), "train"), (range(8, N), "test")])
def test_a_task_without_labels_in_a_split(load: Load, rows: range, split: str) -> None:
    error = error_of(load, masked("two", *rows), recipe_of("mask"))
    assert f"task 'b' has no labels in split '{split}'" in str(error)
    assert error.path == ("tasks", "b")


# --- labels that are wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, -1, 10**12])
def test_a_label_out_of_range(load: Load, value: int) -> None:
    error = error_of(load, label("three", 6, value))
    assert f"row 6: label {value}, allowed 0..2" in str(error)
    assert error.path == ("tasks", "a", "target")


def test_a_wrong_label_that_is_not_there_is_no_fault(load: Load) -> None:
    dataset = load(label("two", 6, -1, masked("two", 6)), recipe_of("mask"))
    assert not dataset.rows.present["multiclass_2"][6, 0]
    assert dataset.rows.target["multiclass_2"][6, 0] in (0, 1)


def test_the_first_of_many_wrong_labels_is_named(load: Load) -> None:
    error = error_of(load, label("three", 9, 77, label("three", 4, 3)))
    assert "row 9: label 77" in str(error) or "row 4: label 3" in str(error)


def test_a_single_class_in_train(load: Load) -> None:
    labels: Mapping[str, Any] = {**columns().labels, "two": (np.arange(N) >= 8).astype(int)}
    error = error_of(load, columns(labels=labels))
    assert "task 'b' has a single class in train: nothing to learn" in str(error)
    assert error.path[:2] == ("tasks", "b"), "the place in the recipe is not said"


def test_a_class_that_train_lacks_is_a_notice(load: Load) -> None:
    labels: Mapping[str, Any] = {**columns().labels, "three": np.array([0, 1] * 4 + [2] * 4)}
    dataset = load(columns(labels=labels))
    assert dataset.notices == ("task 'a': no row of train has 'blue' (4 rows of other splits do)",)


def test_a_class_whose_labels_are_missing_in_train_is_absent(load: Load) -> None:
    given = masked("three", 2, 5)
    notice = "task 'a': no row of train has 'blue' (2 rows of other splits do)"
    assert load(given, recipe_of("mask")).notices == (notice,)


def test_many_absent_classes_are_named_up_to_five(load: Load) -> None:
    names = tuple(f"c{i}" for i in range(20))
    header = Header(input_shape=(4,), labels={**HEADER.labels, "three": names})
    (notice,) = load(columns(), None, header).notices
    assert notice == "task 'a': no row of train has 'c3', 'c4', 'c5', 'c6', 'c7'"


def weighted(weights: list[float], missing: tuple[int, ...] = ()) -> tuple[Columns, Recipe]:
    given = masked("two", *missing) if missing else columns()
    given = columns(present=given.present, extra={"w": np.array(weights)})
    recipe = recipe_of("mask")
    tasks = {**recipe.tasks, "b": recipe.tasks["b"].model_copy(update={"sample_weight": "w"})}
    return given, recipe.model_copy(update={"tasks": tasks})


def test_weights_of_rows(load: Load) -> None:
    """A row without the label needs none; other tasks of its kind count their labels alike."""
    dataset = load(*weighted([0.5, 2, np.nan, *range(9)], missing=(2,)))
    weight = dataset.rows.targets(np.arange(5)).weight
    assert weight["multiclass_2"][:, 0].tolist() == [0.5, 2, 0, 0, 1]
    assert weight["multiclass_3"][:3].tolist() == [[1, 1]] * 3


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.5, "-0.5"), (np.nan, "nan"), (np.inf, "inf"), (1e39, "1e+39")]
)
def test_a_weight_that_is_none(load: Load, value: float, shown: str) -> None:
    error = error_of(load, *weighted([1.0] * 4 + [value] * 2 + [1.0] * 6))
    assert error.path == ("tasks", "b", "sample_weight")
    assert f"row 4: the weight in column 'w' is {shown}; it must be 0 or more" in str(error)


def test_weights_that_are_all_zero(load: Load) -> None:
    error = error_of(load, *weighted([0.0] * 8 + [1.0] * 4))
    assert "column 'w' is 0 in every labelled row of train" in str(error)


# --- inputs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [3, 10])  # of train and of test
@pytest.mark.parametrize("scale", ["per_feature", "none"])
def test_inputs_that_are_not_finite(load: Load, value: float, row: int, scale: str) -> None:
    inputs = columns().inputs.copy()
    inputs[row, 2] = value
    error = error_of(load, columns(inputs=inputs), recipe_of(standardize={"kind": scale}))
    assert f"data.standardize: row {row}: holds {value}" in str(error)
    assert error.path[:2] == ("data", "standardize")


def test_inputs_in_no_split_are_not_looked_at(load: Load) -> None:
    inputs = columns().inputs.copy()
    inputs[11] = np.nan
    load(columns(inputs=inputs, splits={"train": np.arange(8), "test": np.arange(8, 11)}))


def test_errors_have_a_place_in_the_file(load: Load, tmp_path: Any) -> None:
    from mtl.recipe.load import to_yaml

    path = tmp_path / "r.yaml"
    path.write_text(to_yaml(recipe_of()))
    error = error_of(load, label("three", 6, 9), load_recipe(path))
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+: tasks\.a\.target: row 6: label 9", str(error))
