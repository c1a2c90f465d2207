"""The role that a data scientist would give an input column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtl.starter.guess.roles import guess_role, like_a_split, names_groups, splits_named
from mtl.starter.look.columns import Look
from tests.support.columns import N, cycle, floats, seen

ROLES: dict[str, tuple[list[Any], str, str]] = {
    "floats": (floats(), "v", "numeric"),
    "whole numbers": (cycle(*range(40)), "v", "numeric"),
    "numbers with blanks around": (cycle(" 1", "2 ", "3"), "v", "numeric"),
    "words": (cycle("a", "b", "c"), "v", "categorical"),
    "truth values": (cycle("true", "false"), "v", "categorical"),
    "an id": ([f"c{i}" for i in range(N)], "customer_id", "id"),
    "a whole id": (list(range(N)), "id", "id"),
    "an id of a camel": (list(range(N)), "userId", "id"),
    "an id in capitals": (list(range(N)), "ORDER_ID", "id"),
    "an id of two words": (list(range(N)), "User ID", "id"),
    "a title": (list(range(N)), "Customer_Id", "id"),
    "paid is no id": (list(range(N)), "paid", "numeric"),
    "PAID is no id": (list(range(N)), "PAID", "numeric"),
    "a grid is no id": (list(range(N)), "power_grid", "numeric"),
    "an id that comes again": (cycle(*range(100)), "user_id", "none"),
    "an id of many things that comes again": ([i % 3000 for i in range(6000)], "user_id", "none"),
    "an id of many things": (list(range(6000)), "user_id", "id"),
    "long numbers that come again": ([10**9 + 7 * (i % 3000) for i in range(6000)], "phone", "numeric"),
    "an id of few things": (cycle(*range(5)), "store_id", "categorical"),
    "long numbers, all different": ([10**9 + 7 * i for i in range(N)], "phone", "id"),
    "a constant": (["a"] * N, "v", "none"),
    "a flag": (cycle("x", "", ""), "v", "categorical"),
    "a flag of ones": (cycle("1", "NA", ""), "v", "categorical"),
    "a flag in few rows": ([*["x"] * 9, *[""] * (N - 9)], "v", "none"),
    "one date or none": (cycle("2024-01-01", ""), "v", "none"),
    "nothing": ([""] * N, "v", "none"),
    "nearly nothing": ([*range(5), *[""] * (N - 5)], "v", "none"),
    "free text": ([f"text {i}" for i in range(N)], "v", "none"),
    "pairs of rows": ([f"h{i // 2}" for i in range(N)], "household", "none"),
    "fifty towns": (cycle(*(f"t{i}" for i in range(50))), "v", "categorical"),
    "days": (cycle("2024-01-01", "2024-01-02", "2024-02-01"), "v", "dates"),
    "days of another form": (cycle("01/02/2024", "03/02/2024", "07/02/2024"), "v", "dates"),
    "postal codes": (cycle("01067", "02150", "80331"), "zip", "categorical"),
    "as many postal codes as rows": ([f"{i:05d}" for i in range(N)], "zip", "none"),
    "codes of industries": (cycle(*range(100, 140)), "industry_code", "categorical"),
    "many codes": (cycle(*range(100, 160)), "industry_code", "numeric"),
    "a count of stores": (cycle(*range(9)), "n_stores", "numeric"),
    "a number of stores": (cycle(*range(9)), "store", "categorical"),
    "rows of pandas": (list(range(N)), "Unnamed: 0", "none"),
    "rows of pandas in Parquet": (list(range(N)), "__index_level_0__", "none"),
    "another column without a name": (cycle(*range(40)), "Unnamed: 0", "categorical"),
    "sums of money": ([10 ** (1 + i % 8) + i for i in range(N)], "revenue", "numeric"),
    "long numbers of any size": ([10 ** (1 + i % 8) + i for i in range(N)], "v", "numeric"),
    "too large": (cycle("1e39", "1", "2"), "v", "none"),
    "images": ([f"img/{i}.png" for i in range(N)], "v", "image"),
    "vectors": (["[1, 2.5]", "[3, 4]", "[0, 1]"] * 20, "v", "vector"),
    "vectors of different lengths": (["[1, 2.5]", "[3]"] * 20, "v", "none"),
    "not finite": (cycle("inf", "1", "2"), "v", "categorical"),
}


@pytest.mark.parametrize("case", ROLES)
def test_the_role_of_an_input(case: str, tmp_path: Path) -> None:
    values, name, role = ROLES[case]
    found, why = guess_role(seen(tmp_path, values, name))
    assert found == role
    assert found == "numeric" or why


@pytest.mark.parametrize("name", ["", " ", "n" * 201])
def test_a_name_that_no_recipe_can_hold(name: str) -> None:
    assert guess_role(Look(name, "text", n=9, counts={"a": 5, "b": 4}))[0] == "none"


def test_the_reason_of_an_index(tmp_path: Path) -> None:
    assert (
        guess_role(seen(tmp_path, range(N), "Unnamed: 0"))[1] == "the number of each row, which pandas writes"
    )


SPLITS: dict[str, tuple[list[Any], set[str] | None, bool]] = {
    "all three": (cycle("train", "train", "validation", "test"), {"train", "validation", "test"}, False),
    "short and in capitals": (cycle("Train", "Val", "TEST "), {"train", "validation", "test"}, False),
    "no validation": (cycle("train", "test"), {"train", "test"}, False),
    "no test": (cycle("training", "dev"), {"train", "validation"}, False),
    "a row in no split": ([*cycle("train", "test"), ""], {"train", "test"}, False),
    "nothing but training": (cycle("train"), None, False),
    "no training": (cycle("val", "test"), None, False),
    "words that the reader lacks": (cycle("train", "eval", "holdout"), None, True),
    "trains and buses": (cycle("train", "bus"), None, False),
}


@pytest.mark.parametrize("case", SPLITS)
def test_a_column_that_names_splits(case: str, tmp_path: Path) -> None:
    values, splits, alike = SPLITS[case]
    found = seen(tmp_path, values, "part")
    assert (splits_named(found), like_a_split(found)) == (splits, alike)


def test_columns_that_name_groups(tmp_path: Path) -> None:
    for values, name, groups in (
        (cycle(*range(50)), "person", True),
        ([i % 3000 for i in range(6000)], "person", True),
        ([i % 3000 for i in range(6000)], "patient_id", True),
        (list(range(6000)), "patient_id", False),
        (cycle(*range(5)), "store_id", True),
        (cycle(*range(5)), "store", False),
        (cycle(*range(50)), "n_customers", False),
        (floats(), "person", False),
    ):
        assert names_groups(seen(tmp_path, values, name)) == groups
