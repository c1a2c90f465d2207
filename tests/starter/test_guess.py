"""What a data scientist would take columns for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.data.files.table import TableFile
from mtl.errors import UserError
from mtl.starter.guess import guess_kind, guess_role
from mtl.starter.look import MANY, Look, look

N = 300


def seen(tmp_path: Path, values: list[Any], name: str = "v", na: tuple[str, ...] = ()) -> Look:
    """The column as `look` finds it in a CSV; the texts that it takes for missing must be `na`."""
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[name, "other"], *([value, i] for i, value in enumerate(values))])
    found = look(TableFile(path))
    assert found.na_values == na
    return found.columns[name]


def cycle(*values: Any, n: int = N) -> list[Any]:
    return [values[i % len(values)] for i in range(n)]


def floats(n: int = N) -> list[float]:
    return np.random.default_rng(0).standard_normal(n).round(4).tolist()


KINDS: dict[str, tuple[list[Any], str, str, dict[str, Any]]] = {
    "zero and one": (cycle(0, 0, 1), "churned", "binary", {}),
    "yes and no": (cycle("yes", "no"), "v", "binary", {}),
    "capital letters": (cycle("Yes", "No"), "v", "binary", {}),
    "truth values": (cycle("TRUE", "FALSE"), "v", "binary", {}),
    "y and n": (cycle("Y", "N"), "v", "binary", {}),
    "zero and one as floats": (cycle("0.0", "1.0", "1.0"), "v", "binary", {"positive": "1.0"}),
    "minus one and one": (cycle(-1, 1, 1), "v", "binary", {"positive": 1}),
    "one and two": (cycle(1, 1, 2), "v", "binary", {"positive": 2}),
    "two words": (cycle("good", "bad", "good"), "v", "binary", {"positive": "bad"}),
    "two floats": (cycle(0.5, 1.5, 1.5), "v", "binary", {"positive": "0.5"}),
    "five grades": (cycle(1, 2, 3, 4, 5), "rating", "ordinal", {}),
    "grades of a camel": (cycle(1, 2, 3), "riskLevel", "ordinal", {}),
    "grades as floats": (cycle("1.0", "2.0", "10.0"), "grade", "ordinal", {"order": ["1.0", "2.0", "10.0"]}),
    "a usual order": (cycle("high", "low", "medium"), "v", "ordinal", {"order": ["low", "medium", "high"]}),
    "a usual order in capitals": (cycle("L", "S", "M"), "v", "ordinal", {"order": ["S", "M", "L"]}),
    "four words": (cycle("a", "b", "c", "d"), "v", "multiclass", {}),
    "digits": (cycle(*range(10)), "digit", "multiclass", {}),
    "codes as floats": (cycle("1.0", "2.0", "3.0"), "v", "multiclass", {}),
    "an asterisk is no risk": (cycle(1, 2, 3), "asterisk", "multiclass", {}),
    "floats": (floats(), "v", "regression", {}),
    "exponents": (cycle("1e-3", "2.5e4", ".5", "+1."), "v", "regression", {}),
    "many whole numbers": (list(range(N)), "v", "regression", {}),
    "a count": (cycle(0, 1, 2, 3), "n_visits", "regression", {}),
    "an age": (cycle(20, 30, 40), "age", "regression", {}),
    "few rows of whole numbers": (cycle(3, 5, 8, 9, 11, 12, 20, 25, n=16), "v", "regression", {}),
    "lists of labels": (cycle("a|b", "a", "b|c"), "v", "multilabel", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_the_kind_of_a_label(case: str, tmp_path: Path) -> None:
    values, name, kind, options = KINDS[case]
    found = guess_kind(seen(tmp_path, values, name))
    assert found[:2] == (kind, options)
    assert found[2].isprintable()
    there = np.random.default_rng(1).random(len(values)) < 0.7
    half = [value if kept else "" for value, kept in zip(values, there, strict=True)]
    assert guess_kind(seen(tmp_path, half, name))[0] == kind  # some are missing


REFUSED: dict[str, tuple[list[Any], str]] = {
    "nothing": ([""] * N, "column 'v' has no value"),
    "a constant": (["a"] * N, "column 'v' has one value throughout: nothing to learn"),
    "free text": (
        [f"text number {i}" for i in range(N)],
        f"column 'v' holds text with {N} distinct values in {N} rows: no kind of task is for it",
    ),
    "vectors": (["[1, 2]", "[3, 4]"] * 30, "column 'v' holds lists of numbers: no kind of task is for it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_column_that_is_no_label(case: str, tmp_path: Path) -> None:
    values, text = REFUSED[case]
    with pytest.raises(UserError) as caught:
        guess_kind(seen(tmp_path, values))
    assert str(caught.value) == f"--targets: {text}"


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
    "an id of few things": (cycle(*range(5)), "store_id", "categorical"),
    "long numbers, all different": ([10**9 + 7 * i for i in range(N)], "phone", "id"),
    "a constant": (["a"] * N, "v", "none"),
    "nothing": ([""] * N, "v", "none"),
    "nearly nothing": ([*range(5), *[""] * (N - 5)], "v", "none"),
    "free text": ([f"text {i}" for i in range(N)], "v", "none"),
    "pairs of rows": ([f"h{i // 2}" for i in range(N)], "household", "none"),
    "fifty towns": (cycle(*(f"t{i}" for i in range(50))), "v", "categorical"),
    "days": (cycle("2024-01-01", "2024-01-02", "2024-02-01"), "v", "none"),
    "days of another form": (cycle("01/02/2024", "03/02/2024", "07/02/2024"), "v", "none"),
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


# --- missing values ---


@pytest.mark.parametrize("marker", ["NA", "NaN", "nan", "NULL", "None", "?", "-", "n/a"])
def test_a_word_for_missing_among_numbers(marker: str, tmp_path: Path) -> None:
    found = seen(tmp_path, cycle("1.5", marker, "", "2.5"), na=(marker,))
    assert (found.numeric, found.missing, found.there) == (True, N // 2, N // 2)
    assert set(found.counts) == {"1.5", "2.5"}
    assert guess_role(found)[0] == "numeric"


def test_a_word_for_missing_among_words_is_a_value(tmp_path: Path) -> None:
    found = seen(tmp_path, cycle("None", "some", "all"))
    assert (found.numeric, found.missing) == (False, 0)
    assert guess_kind(found)[2] == "text with 3 distinct values"


def test_what_one_column_takes_for_missing_is_so_in_all(tmp_path: Path) -> None:
    rows = [["a", "b"], *([("NA" if i % 3 else i), ("NA" if i % 2 else "u")] for i in range(60))]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    found = look(TableFile(tmp_path / "t.csv"))
    assert found.na_values == ("NA",)
    assert {name: column.missing for name, column in found.columns.items()} == {"a": 40, "b": 30}
    assert found.columns["b"].counts == {"u": 30}


def test_nothing_but_words_for_missing(tmp_path: Path) -> None:
    assert not seen(tmp_path, cycle("NA", "NA")).numeric


# --- counting ---


def test_counts_and_their_limit(tmp_path: Path) -> None:
    found = seen(tmp_path, [f"w{i % 2500}" for i in range(5000)])
    assert (found.n, found.missing, found.distinct) == (5000, 0, MANY + 1)
    assert found.many == f"more than {MANY}"
    few = seen(tmp_path, cycle("a", "b", "a"))
    assert few.counts == {"a": 200, "b": 100}
    assert few.many == "2"


PARQUET = {
    "truth": (pa.array(cycle(True, False, None)), ("binary", {}), "categorical"),
    "floats of zero and one": (pa.array(cycle(0.0, 1.0, None)), ("binary", {}), "numeric"),
    "whole": (pa.array(cycle(1, 2, 3), pa.int8()), ("multiclass", {}), "numeric"),
    "floats": (pa.array(floats()), ("regression", {}), "numeric"),
    "words": (pa.array(cycle("a", "b", "c")).dictionary_encode(), ("multiclass", {}), "categorical"),
    "decimals": (pa.array(floats()).cast(pa.decimal128(10, 4)), ("regression", {}), "numeric"),
    "labels": (pa.array(cycle(["a"], ["a", "b"], [])), ("multilabel", {}), "none"),
    "vectors": (pa.array(cycle([1.0, 2.0], [3.0, 4.0])), None, "vector"),
    "arrays": (pa.array(cycle([1.0, 2.0], [3.0, 4.0]), pa.list_(pa.float32(), 2)), None, "vector"),
    "ragged": (pa.array(cycle([1.0, 2.0], [3.0])), None, "none"),
    "some vectors": (pa.array(cycle([1.0, 2.0], None)), None, "none"),
    "times": (pa.array(range(N), pa.timestamp("s")), None, "none"),
    "structs": (pa.array(cycle({"a": 1}, {"a": 2})), None, "none"),
    "bytes": (pa.array(cycle(b"a", b"b")), None, "none"),
    "numbers and NA": (pa.array(cycle("1.5", "NA", "2", "7")), ("regression", {}), "numeric"),
}  # fmt: skip


@pytest.mark.parametrize("case", PARQUET)
def test_columns_of_parquet(case: str, tmp_path: Path) -> None:
    array, kind, role = PARQUET[case]
    pq.write_table(pa.table({"v": array, "w": floats()}), tmp_path / "t.parquet")
    found = look(TableFile(tmp_path / "t.parquet"))
    assert found.na_values == (("NA",) if "NA" in case else ())
    assert guess_role(found.columns["v"])[0] == role
    if kind is not None:
        assert guess_kind(found.columns["v"])[:2] == kind
    else:
        with pytest.raises(UserError, match="no kind of task is for it"):
            guess_kind(found.columns["v"])


def test_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"t\.csv: no rows"):
        look(TableFile(tmp_path / "t.csv"))
