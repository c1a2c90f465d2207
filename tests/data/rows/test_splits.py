"""What is held out, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from mtl.data.rows.splits import CALLED, NAMES, check_apart, given_by_column, make_splits
from mtl.data.types import Rows
from mtl.errors import UserError
from mtl.recipe.keys.data import Split


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


@pytest.mark.parametrize("rule", ["plain", "units", "group", "stratify", "by time"])
def test_if_all_rows_are_for_testing_train_is_empty(rule: str) -> None:
    with pytest.raises(UserError) as caught:
        make_splits({"test": rows(0, N)}, N, {}, 0, **RULES[rule])
    assert str(caught.value) == "split 'train' is empty: every row is in another split"


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


# --- what every rule keeps --------------------------------------------------------------------------------

N = 240


def several(i: Rows) -> Rows:
    """Two columns of classes; the second one has four gaps out of five."""
    return np.stack([i % 3, np.where(i % 5 == 0, 3 + i % 2, -1)], axis=1)


RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "units": {"units": np.arange(N) // 2},
    "group": {"group": np.arange(N) % 40},
    "group of units": {"group": np.arange(N) // 6, "units": np.arange(N) // 2},
    "stratify": {"stratify": np.arange(N) % 7},
    "stratify of units": {"stratify": np.arange(N) // 2 % 5, "units": np.arange(N) // 2},
    "stratify by several": {"stratify": several(np.arange(N))},
    "stratify units by several": {"stratify": several(np.arange(N) // 2), "units": np.arange(N) // 2},
    "by time": {"time": (np.arange(N) * 37 % 101).astype(float)},
    "by time of units": {
        "time": np.repeat(np.arange(N // 2) * 37 % 101, 2).astype(float),
        "units": np.arange(N) // 2,
    },
}


def attempt(n: int, held: dict[str, float], seed: int, **rule: Any) -> tuple[dict[str, Rows], str]:
    """The splits, or why there are none."""
    try:
        return make_splits({}, n, held, seed, **rule), ""
    except UserError as error:
        return {}, str(error)


def as_lists(splits: dict[str, Rows]) -> dict[str, list[int]]:
    return {name: part.tolist() for name, part in splits.items()}


@pytest.mark.parametrize("rule", RULES)
def test_a_validation_split_leaves_the_test_split_as_it_is(rule: str) -> None:
    without = make_splits({}, N, {"test": 0.2}, 3, **RULES[rule])
    splits = make_splits({}, N, {"validation": 0.1, "test": 0.2}, 3, **RULES[rule])
    assert list(splits) == ["train", "validation", "test"]
    assert splits["test"].tolist() == without["test"].tolist()
    assert sorted(np.concatenate(list(splits.values()))) == list(range(N))
    assert abs(len(splits["test"]) - 0.2 * N) <= 4
    assert abs(len(splits["validation"]) - 0.1 * N) <= 4


@pytest.mark.parametrize("rule", RULES)
def test_splits_are_a_function_of_the_seed_alone(rule: str) -> None:
    held = {"validation": 0.1, "test": 0.2}
    one, again, other = (as_lists(make_splits({}, N, held, seed, **RULES[rule])) for seed in (3, 3, 4))
    assert one == again
    assert (one == other) == rule.startswith("by time")  # which has nothing to draw


@pytest.mark.parametrize("rule", [rule for rule in RULES if "units" in RULES[rule]])
def test_rows_of_a_unit_stay_together(rule: str) -> None:
    splits = make_splits({}, N, {"validation": 0.1, "test": 0.2}, 0, **RULES[rule])
    for part in splits.values():
        assert set(part ^ 1) == set(part)  # units are the pairs (0, 1), (2, 3), ...


@pytest.mark.parametrize("rule", RULES)
def test_given_splits_are_kept_whatever_the_rule(rule: str) -> None:
    given = {"train": rows(0, 180), "test": rows(180, N)}
    splits = make_splits(given, N, {"validation": 0.1}, 0, **RULES[rule])
    assert splits["test"].tolist() == list(range(180, N))
    assert sorted([*splits["train"], *splits["validation"]]) == list(range(180))
    assert abs(len(splits["validation"]) - 18) <= 4


# --- groups -----------------------------------------------------------------------------------------------

FRACTIONS = st.floats(0.05, 0.45)


@given(
    codes=st.lists(st.integers(0, 30), min_size=8, max_size=150),
    test=FRACTIONS,
    validation=FRACTIONS,
    seed=st.integers(0, 99),
)
def test_no_group_is_on_two_sides(codes: list[int], test: float, validation: float, seed: int) -> None:
    group = np.array(codes)
    n_groups, largest = len(set(codes)), np.bincount(group).max()
    held = {"validation": validation, "test": test}
    splits, refused = attempt(len(codes), held, seed, group=group)
    if refused:
        assert refused == (f"group: {count(n_groups)} for validation {validation:g} and test {test:g}")
        assert (test + validation) * len(codes) > len(codes) - 2 * largest
        return
    sides = [set(group[part]) for part in splits.values()]
    assert sum(map(len, sides)) == n_groups
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(codes)))
    for name, fraction in held.items():  # the cut nearest to the fraction, if that is a group at least
        off = abs(len(splits[name]) - fraction * len(codes))
        assert off <= (largest / 2 if len(set(group[splits[name]])) > 1 else largest)


def count(n_groups: int) -> str:
    return f"{n_groups} groups are too few" if n_groups > 1 else "1 group is too little"


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(UserError) as caught:
        make_splits({}, 9, {"test": 0.3}, 0, group=np.zeros(9, np.int64))
    assert str(caught.value) == "group: 1 group is too little for test 0.3"


def test_rows_that_belong_together_in_two_groups() -> None:
    with pytest.raises(UserError) as caught:
        make_splits({}, 6, {"test": 0.3}, 0, group=np.array([0, 0, 1, 2, 3, 3]), units=np.array([9, 9, 4, 4, 1, 1]),
                    place=lambda row: f"f.csv:row {row}")  # fmt: skip
    assert str(caught.value) == "group: f.csv:row 2 and f.csv:row 3 belong together, but are in two groups"


@pytest.mark.parametrize("what", ["id", "group"])
def test_ids_on_two_sides(what: str) -> None:
    codes = np.array([0, 1, 2, 3, 1, 2, -1, -1])
    names = ("img_0", "img_1", "img_2", "img_3")
    splits = {"train": rows(0, 4), "validation": np.array([6]), "test": np.array([4, 5, 7])}
    with pytest.raises(UserError) as caught:
        check_apart(codes, splits, names, what, path=("group",))
    assert str(caught.value) == f"group: 2 {what}s are in both train and test, first 'img_1'"
    with pytest.raises(UserError) as caught:
        check_apart(codes, {"train": rows(0, 2), "test": np.array([4, 5])}, names, what)
    assert str(caught.value) == f"1 {what} is in both train and test, first 'img_1'"
    check_apart(codes, {"train": rows(0, 4), "test": np.array([6, 7])}, names, what)  # none is no id


# --- strata -----------------------------------------------------------------------------------------------


@given(
    strata=st.lists(st.integers(-1, 12), min_size=4, max_size=120),
    test=FRACTIONS,
    validation=FRACTIONS,
    seed=st.integers(0, 99),
)
def test_each_class_has_its_share_of_each_split(
    strata: list[int], test: float, validation: float, seed: int
) -> None:
    codes, n = np.array(strata), len(strata)
    held = {"validation": validation, "test": test}
    assume(min(test, validation) * n >= 0.5 and sum(int(f * n + 0.5) for f in held.values()) < n)
    splits = make_splits({}, n, held, seed, stratify=codes)
    plain = make_splits({}, n, held, seed)
    assert {name: len(part) for name, part in splits.items()} == {k: len(part) for k, part in plain.items()}
    assert sorted(np.concatenate(list(splits.values()))) == list(range(n))
    for code in set(strata):
        size = strata.count(code)
        for name in held:
            share = size * len(plain[name]) / n
            assert abs(np.count_nonzero(codes[splits[name]] == code) - share) < 2
        assert abs(np.count_nonzero(codes[splits["test"]] == code) - size * len(plain["test"]) / n) < 1


def test_classes_of_one_row_leave_no_split_empty() -> None:
    """The class whose only row is in test has none to give to validation."""
    splits = make_splits({}, 3, {"validation": 0.4, "test": 0.4}, 0, stratify=np.arange(3))
    assert [len(part) for part in splits.values()] == [1, 1, 1]


def test_an_exact_share_is_met_exactly() -> None:
    codes = np.repeat([0, 1, 2], [100, 50, 10])
    splits = make_splits({}, 160, {"validation": 0.1, "test": 0.2}, 5, stratify=codes)
    counts = {name: np.bincount(codes[part]).tolist() for name, part in splits.items()}
    assert counts == {"train": [70, 35, 7], "validation": [10, 5, 1], "test": [20, 10, 2]}


# --- time -------------------------------------------------------------------------------------------------


@given(
    when=st.lists(st.integers(-50, 50), min_size=6, max_size=100),
    test=FRACTIONS,
    validation=FRACTIONS,
    gap=st.integers(0, 12),
)
def test_time_flows_from_train_to_test(when: list[int], test: float, validation: float, gap: int) -> None:
    time, n = np.array(when, dtype=np.float64), len(when)
    splits, refused = attempt(n, {"validation": validation, "test": test}, 0, time=time, gap=float(gap))
    if refused:
        assert "is empty" in refused
        return
    parts = [time[splits[name]] for name in NAMES]
    for earlier, later in pairwise(parts):
        assert earlier.max() < later.min()
        assert earlier.max() + gap < later.min() or gap == 0
    left_out = np.setdiff1d(np.arange(n), np.concatenate(list(splits.values())))
    for row in left_out:  # only within a gap
        assert any(0 < part.min() - time[row] <= gap for part in parts[1:])
    assert len(splits["test"]) >= int(test * n + 0.5)  # all rows of one time are on one side
    assert np.count_nonzero(time[splits["test"]] > parts[2].min()) < int(test * n + 0.5)


def test_splits_from_a_moment_on() -> None:
    time = np.arange(10, dtype=np.float64)[::-1].copy()
    splits = make_splits({}, 10, {}, 0, time=time, test_from=7.0, validation_from=4.0, gap=1.0)
    assert {name: sorted(time[part]) for name, part in splits.items()} == {
        "train": [0, 1, 2],
        "validation": [4, 5],
        "test": [7, 8, 9],
    }
    mixed = make_splits({}, 10, {"validation": 0.3}, 0, time=time, test_from=7.0)
    assert {name: sorted(time[part]) for name, part in mixed.items()} == {
        "train": [0, 1, 2, 3],
        "validation": [4, 5, 6],
        "test": [7, 8, 9],
    }


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"test_from": 99.0}, "test_from: split 'test' is empty: no row is that late"),
        (
            {"test_from": 3.0, "validation_from": 5.0},
            "validation_from: split 'validation' is empty: no row is from then on and earlier than test and its gap",
        ),
        (
            {"test_from": 3.0, "held_out": {"validation": 0.1}, "gap": 9.0},
            "validation: split 'validation' is empty: no row is earlier than test and its gap",
        ),
        (
            {"test_from": 0.0},
            "by_time: split 'train' is empty: no row is earlier than what is held out and its gap; hold out less",
        ),
        (
            {"held_out": {"test": 0.01}},
            "test: split 'test' is empty (10 rows x 0.01); write test: 0.1 or more",
        ),
    ],
)
def test_times_that_leave_a_split_empty(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as caught:
        make_splits({}, 10, asked.pop("held_out", {}), 0, time=np.arange(10.0), **asked)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(("missing", "more"), [([4], ""), ([4, 2, 5], ", and 2 more rows")])
def test_a_row_without_a_time(missing: list[int], more: str) -> None:
    time = np.arange(10.0)
    time[missing] = np.nan
    with pytest.raises(UserError) as caught:
        make_splits({}, 10, {"test": 0.2}, 0, time=time, place=lambda row: f"f.csv:row {row}")
    assert str(caught.value) == f"f.csv:row {min(missing)}: by_time: has no time{more}"
    given = {"train": np.setdiff1d(np.arange(9), missing), "test": np.array([*missing, 9])}
    make_splits(given, 10, {"validation": 0.3}, 0, time=time)  # rows of a given split need none


# --- a column of words ------------------------------------------------------------------------------------


def codes_of(words: list[str]) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    names = tuple(sorted({word for word in words if word}))
    return np.array([names.index(word) if word else -1 for word in words]), names


PLACE: Callable[[int], str] = "f.csv:row {}".format


def test_words_for_splits() -> None:
    """Every word that is known, and none twice."""
    assert set(CALLED) | set(NAMES) == {
        "train",
        "training",
        "validation",
        "val",
        "valid",
        "dev",
        "test",
        "testing",
    }
    words = ["train", "Val", "dev", "TEST", " valid ", "training", "testing", "validation", "", "train"]
    given = given_by_column(*codes_of(words), place=PLACE)
    assert as_lists(given) == {"train": [0, 5, 9], "validation": [1, 2, 4, 7], "test": [3, 6]}


@pytest.mark.parametrize("word", ["holdout", "trian", "0", "train2"])
def test_another_word_is_refused_with_its_row(word: str) -> None:
    with pytest.raises(UserError) as caught:
        given_by_column(*codes_of(["train", "test", word, word]), place=PLACE)
    assert str(caught.value) == f"f.csv:row 2: column: '{word}' is none of train, validation, test"


def test_no_row_says_train() -> None:
    with pytest.raises(UserError) as caught:
        given_by_column(*codes_of(["test", "dev", ""]), place=PLACE)
    assert str(caught.value) == "column: split 'train' is empty: no row says train"
