"""What a look at the first rows of a table finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.data.files.formats.form import ColumnForm
from mtl.data.files.table import TableFile
from mtl.errors import UserError
from mtl.starter.guess.kinds import guess_kind
from mtl.starter.guess.roles import guess_role
from mtl.starter.look.columns import MANY, look
from tests.support.columns import N, cycle, floats, seen, write_csv

# --- missing values ---


@pytest.mark.parametrize(
    "marker", ["NA", "NaN", "nan", "NULL", "None", "?", "-", "n/a", "unknown", "  ", " NA"]
)
def test_a_word_for_missing_among_numbers(marker: str, tmp_path: Path) -> None:
    found = seen(tmp_path, cycle("1.5", marker, "", "2.5"))
    assert (found.numeric, found.missing, found.there) == (True, N // 2, N // 2)
    assert set(found.counts) == {"1.5", "2.5"}
    assert found.form.na_values == ("", marker)
    assert guess_role(found)[0] == "numeric"


def test_a_word_for_missing_among_words_is_a_value(tmp_path: Path) -> None:
    found = seen(tmp_path, cycle("None", "some", "all"))
    assert (found.numeric, found.missing, found.form) == (False, 0, ColumnForm())
    assert guess_kind(found)[2] == "text with 3 distinct values"


def test_what_one_column_takes_for_missing_is_a_value_of_another(tmp_path: Path) -> None:
    a = ["NA" if i % 3 else i for i in range(60)]
    b = ["NA" if i % 2 else "u" for i in range(60)]
    found = look(TableFile(write_csv(tmp_path / "t.csv", {"a": a, "b": b})))
    assert {name: column.missing for name, column in found.items()} == {"a": 40, "b": 0}
    assert {name: column.form.na_values for name, column in found.items()} == {"a": ("", "NA"), "b": None}
    assert found["b"].counts == {"u": 30, "NA": 30}


SLIPS: dict[str, tuple[list[Any], bool]] = {
    "a sum below the rows": ([*range(200), "Total"], True),
    "infinite": ([*range(200), "inf"], True),
    "beyond float64": ([*range(200), "1e400"], True),
    "beyond float64, with a sign": ([*range(200), "-1e400"], True),
    "one in a hundred": (["see note", *[i % 70 for i in range(99)]] * 3, True),
    "two in a hundred": (["see note", "1", *[i % 70 for i in range(98)]] * 3 + ["see note"] * 3, False),
    "four different ones": ([*range(1000), "a", "b", "c", "d"], False),
    "one among nine": ([*range(9), "Total"], False),
    "one among ten": ([*range(10), "Total"], True),
    "a fifth infinite": (cycle("1", "2", "3", "4", "inf"), True),
    "a quarter infinite": (cycle("1", "2", "3", "inf"), False),
    "one size is a word": (cycle("36", "38", "40", "XL"), False),
}


@pytest.mark.parametrize("case", SLIPS)
def test_a_few_other_texts_leave_a_column_numeric(case: str, tmp_path: Path) -> None:
    values, numeric = SLIPS[case]
    found = seen(tmp_path, values)
    assert found.numeric is numeric
    assert bool(found.missing) is numeric


def test_the_row_of_a_slip(tmp_path: Path) -> None:
    for values in ([*range(200), "Total"], [i % 7 for i in range(200)] + ["Total"]):
        found = seen(tmp_path, values)
        assert found.parsed is not None
        assert (found.parsed.good, found.parsed.odd["Total"].rows, found.parsed.odd["Total"].first) == (
            200,
            1,
            200,
        )
        assert (found.form.na_values, found.whole, found.missing) == (("", "Total"), True, 1)


def test_a_slip_behind_more_values_than_are_counted(tmp_path: Path) -> None:
    found = seen(tmp_path, [*range(5000), "Total"])
    assert (found.numeric, found.missing, found.distinct) == (True, 1, MANY + 1)
    assert not seen(tmp_path, [*range(5000), "a", "b", "c", "d"]).numeric


def test_infinite_numbers_that_are_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [*map(float, range(50)), float("inf")]}), tmp_path / "t.parquet")
    found = look(TableFile(tmp_path / "t.parquet"))["v"]
    assert guess_role(found) == (
        "none",
        "an infinite number in t.parquet:row 50; replace it by null to use the column",
    )
    with pytest.raises(UserError) as caught:
        guess_kind(found)
    assert str(caught.value) == "t.parquet:row 50: the label is an infinite number; replace it by null"


# --- how numbers and dates are written ---


def test_the_form_of_a_column(tmp_path: Path) -> None:
    values = ["1.234,50 €", "12,25 €", "n/a", "0,99 €"] * 20
    found = seen(tmp_path, values)
    assert found.form == ColumnForm(na_values=("", "n/a"), decimal=",", thousands=".", unit="€")
    assert (found.largest, found.whole, found.missing) == (1234.5, False, 20)


def test_one_column_tells_how_another_is_read(tmp_path: Path) -> None:
    columns = {"a": ["1,234", "5,678"] * 9, "b": ["1.234", "5.678"] * 9, "c": ["0,5", "1,75"] * 9}
    found = look(TableFile(write_csv(tmp_path / "t.csv", columns)))
    assert {name: seen.form.decimal + seen.form.thousands for name, seen in found.items()} == {
        "a": ",",
        "b": ",.",
        "c": ",",
    }
    del columns["c"]
    found = look(TableFile(write_csv(tmp_path / "t.csv", columns)))
    assert {name: seen.form.decimal + seen.form.thousands for name, seen in found.items()} == {
        "a": ".,",
        "b": ".",
    }
    assert found["a"].doubt == "the comma could be the decimal sign too"
    found = look(TableFile(write_csv(tmp_path / "t.csv", columns, ";"), delimiter=";"))
    assert {name: seen.form.decimal + seen.form.thousands for name, seen in found.items()} == {
        "a": ",",
        "b": ".",
    }


def test_dates_among_which_some_are_missing(tmp_path: Path) -> None:
    found = seen(tmp_path, ["04.03.2023", "31.12.2024", "n/a", ""] * 20)
    assert found.form == ColumnForm(na_values=("", "n/a"), date_format="%d.%m.%Y")
    assert (found.dates, found.missing, found.counts) == (True, 40, {"04.03.2023": 20, "31.12.2024": 20})


def test_a_date_that_is_none_is_a_slip(tmp_path: Path) -> None:
    """A lenient parser takes 31 February for 3 March, and 23 for the year 23."""
    days = [f"{1 + i % 28:02d}.{1 + i % 12:02d}.2023" for i in range(400)]
    found = seen(tmp_path, [*days, "31.02.2023", "04.03.23"])
    assert found.dates
    assert found.form == ColumnForm(na_values=("", "31.02.2023", "04.03.23"), date_format="%d.%m.%Y")


def test_leading_zeros_make_codes(tmp_path: Path) -> None:
    found = seen(tmp_path, cycle("01067", "02150", "80331"))
    assert (found.numeric, found.padded) == (False, True)
    assert seen(tmp_path, [*range(10, 300), "05"]).numeric  # one is a slip


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
    "times": (pa.array(range(N), pa.timestamp("s")), None, "dates"),
    "days": (pa.array(range(N), pa.date32()), None, "dates"),
    "structs": (pa.array(cycle({"a": 1}, {"a": 2})), None, "none"),
    "bytes": (pa.array(cycle(b"a", b"b")), None, "none"),
    "numbers and NA": (pa.array(cycle("1.5", "NA", "2", "7")), ("regression", {}), "numeric"),
}  # fmt: skip


@pytest.mark.parametrize("case", PARQUET)
def test_columns_of_parquet(case: str, tmp_path: Path) -> None:
    array, kind, role = PARQUET[case]
    pq.write_table(pa.table({"v": array, "w": floats()}), tmp_path / "t.parquet")
    found = look(TableFile(tmp_path / "t.parquet"))
    assert found["v"].form.na_values == (("", "NA") if "NA" in case else None)
    assert guess_role(found["v"])[0] == role
    if kind is not None:
        assert guess_kind(found["v"])[:2] == kind
    else:
        with pytest.raises(UserError, match="no kind of task is for it"):
            guess_kind(found["v"])


def test_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"t\.csv: no rows"):
        look(TableFile(tmp_path / "t.csv"))
