"""What is held out, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mtl.data.columns import Rows
from mtl.data.splits import make_splits
from mtl.errors import UserError
from mtl.recipe.schema import Split


def rows(start: int, stop: int) -> Rows:
    return np.arange(start, stop, dtype=np.int64)


def error(given: dict[str, Rows], n: int, split: dict[str, float]) -> str:
    with pytest.raises(UserError) as caught:
        make_splits(given, n, split, 0)
    return str(caught.value)


def test_given_splits_stay_as_they_are() -> None:
    splits = make_splits({"test": rows(6, 10), "train": rows(0, 6)[::-1]}, 10, {}, seed=0)
    assert {name: part.tolist() for name, part in splits.items()} == {
        "train": [0, 1, 2, 3, 4, 5],
        "test": [6, 7, 8, 9],
    }
    assert list(splits) == ["train", "test"]


def test_validation_is_held_out_of_train() -> None:
    given = {"train": rows(0, 60), "test": rows(60, 70)}
    splits = make_splits(given, 70, {"validation": 0.1}, seed=3)
    assert list(splits) == ["train", "validation", "test"]
    assert [len(part) for part in splits.values()] == [54, 6, 10]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), rows(0, 70))
    assert splits["validation"].tolist() == [1, 5, 27, 36, 42, 43]
    other = make_splits(given, 70, {"validation": 0.1}, seed=4)
    assert other["validation"].tolist() != splits["validation"].tolist()


def test_asking_for_validation_leaves_the_test_split_as_it_is() -> None:
    one = make_splits({}, 100, {"test": 0.2}, seed=0)
    two = make_splits({}, 100, {"test": 0.2, "validation": 0.3}, seed=0)
    np.testing.assert_array_equal(one["test"], two["test"])
    assert [len(part) for part in two.values()] == [50, 30, 20]


@given(
    n=st.integers(3, 200),
    test=st.floats(0.01, 0.5),
    validation=st.floats(0.01, 0.45),
    seed=st.integers(0, 99),
)
def test_splits_never_overlap_and_leave_no_row_out(n: int, test: float, validation: float, seed: int) -> None:
    split = {"test": test, "validation": validation}
    if min(test, validation) * n < 0.5 or sum(int(f * n + 0.5) for f in (test, validation)) >= n:
        assert "is empty (" in error({}, n, split)
        return
    splits = make_splits({}, n, split, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), rows(0, n))
    for name, fraction in (("test", test), ("validation", validation)):
        assert abs(len(splits[name]) - fraction * n) <= 0.5 + 1e-9
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in splits.values())


def test_without_a_train_split_the_rest_is_for_training() -> None:
    splits = make_splits({"test": rows(0, 3), "validation": rows(5, 6)}, 8, {}, seed=0)
    assert splits["train"].tolist() == [3, 4, 6, 7]


@pytest.mark.parametrize(
    ("given", "n", "split", "text"),
    [
        (
            {"train": rows(0, 3), "test": rows(3, 5)},
            5,
            {"validation": 0.1},
            "validation: split 'validation' is empty (3 rows x 0.1); write validation: 0.33 or",
        ),
        (
            {},
            4,
            {"test": 0.1},
            "test: split 'test' is empty (4 rows x 0.1); write test: 0.25 or",
        ),
        (
            {},
            10,
            {},
            "the data have no test split; write data.split: {test: 0.2} to hold out a fifth",
        ),
        ({}, 0, {"test": 0.5}, "the data have no rows"),
        (
            {},
            2,
            {"test": 0.4, "validation": 0.4},
            "split 'train' is empty (1 test and 1 validation rows of 2 are held out); hold out less",
        ),
        (
            {"test": rows(0, 4)},
            9,
            {"test": 0.2},
            "test: the source gives a test split of 4 rows already; remove this key",
        ),
        (
            {"validation": rows(0, 4), "test": rows(4, 5)},
            9,
            {"validation": 0.2},
            "validation: the source gives a validation split of 4 rows already",
        ),
        (
            {"train": rows(0, 4), "test": rows(2, 6)},
            6,
            {},
            "2 rows are in both train and test, first row 2",
        ),
        (
            {"train": rows(0, 4), "test": rows(0, 0)},
            6,
            {},
            "split 'test' is empty (the source gives it 0 rows)",
        ),
        ({"test": rows(3, 7)}, 6, {}, "split 'test' names a row outside 0..5"),
        ({"test": np.array([1, 1])}, 6, {}, "split 'test' names a row twice"),
        ({"dev": rows(0, 1)}, 6, {}, "gives a split 'dev'; known: train, validation, test"),
    ],
)
def test_says_what_is_wrong(given: dict[str, Rows], n: int, split: dict[str, float], text: str) -> None:
    assert text in error(given, n, split)


def test_if_all_rows_are_for_testing_train_is_empty() -> None:
    assert "split 'train' is empty" in error({"test": rows(0, 6)}, 6, {})


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"validation": 0.0}, "greater than 0"),
        ({"test": 1.0}, "less than 1"),
        ({"validation": 0.5, "test": 0.5}, "validation 0.5 and test 0.5 leave no rows for training"),
        ({"valdation": 0.5}, "unknown key 'valdation' (did you mean 'validation'?)"),
    ],
)
def test_fractions_are_checked(keys: dict[str, float], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Split.model_validate(keys)
    assert caught.value.errors()[0]["msg"].endswith(text)
