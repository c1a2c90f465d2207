"""`mtl init` on tables as people have them: what the recipe says, what its reader then gives, and that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.data.types import Array
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.starter.write import write_starter
from tests.support.assertions import Capture, called
from tests.support.columns import cycle, floats, one_step, write_csv

N = 200
RNG = np.random.default_rng(7)
LABEL = RNG.integers(0, 2, N).tolist()


def written(
    folder: Path,
    columns: dict[str, Sequence[Any]],
    targets: Sequence[str] = ("label",),
    delimiter: str = ",",
    encoding: str = "utf-8",
    **options: Any,
) -> tuple[Recipe, str]:
    """The recipe for a table of these columns and a label, and its text."""
    path = write_csv(folder / "t.csv", {**columns, "label": LABEL}, delimiter, encoding)
    recipe = write_starter(str(path), list(targets), folder / "r.yaml", **options)
    return recipe, (folder / "r.yaml").read_text(encoding="utf-8")


def loaded(recipe: Recipe) -> Dataset:
    return load_dataset(recipe, header_of(recipe))


def labelled(recipe: Recipe) -> int:
    """The rows with a label of the recipe's one task."""
    (present,) = loaded(recipe).rows.present.values()
    return int(present.sum())


def inputs(recipe: Recipe, column: str) -> Array:
    """The values of a numeric column as the recipe's source reads them; NaN for a missing one."""
    rows = recipe.data.only.columns(0)
    assert rows.header is not None
    assert rows.header.layout is not None
    return rows.inputs[:, rows.header.layout.numeric.index(column)]


SLIPS = {"Total": "Total", "infinite": "inf", "beyond float64": "1e400"}


@pytest.mark.parametrize("case", SLIPS)
def test_one_slip_among_numbers_is_one_missing_cell(case: str, tmp_path: Path) -> None:
    values = [*range(N - 1), SLIPS[case]]
    recipe, text = written(tmp_path, {"v": values})
    shown = f'"{SLIPS[case]}"' if case == "beyond float64" else SLIPS[case]
    said = f"199 numbers and '{SLIPS[case]}' in row 201"
    assert f'      v: {{na_values: ["", {shown}]}}    # {said}\n' in text
    np.testing.assert_array_equal(inputs(recipe, "v"), [*range(N - 1), np.nan])
    one_step(recipe)


@pytest.mark.parametrize("case", SLIPS)
def test_one_slip_in_a_numeric_label_is_one_missing_label(case: str, tmp_path: Path) -> None:
    visits = [*(i % 9 for i in range(N - 1)), SLIPS[case]]
    recipe, _ = written(tmp_path, {"x": floats(N), "n_visits": visits}, ["n_visits"])
    assert recipe.tasks["n_visits"].kind == "regression"
    assert labelled(recipe) == N - 1
    one_step(recipe)


NUMBERS: dict[str, tuple[list[str], list[float], str]] = {
    "decimal comma": (["1,5", "-12,25", "7"], [1.5, -12.25, 7], '{decimal: ","}'),
    "thousands": (["1,234", "12,345,678.5", "7"], [1234, 12345678.5, 7], '{thousands: ","}'),
    "both": (["1.234,5", "12.345.678", "7"], [1234.5, 12345678, 7], '{decimal: ",", thousands: "."}'),
    "Swiss": (["1'234", "1\u2019234.5", "7"], [1234, 1234.5, 7], '{thousands: "\'"}'),
    "French": (["1\u202f234,5", "1\u00a0234", "7"], [1234.5, 1234, 7], '{decimal: ",", thousands: " "}'),
    "percent": (["12%", "7.5 %", "-3%"], [12, 7.5, -3], '{unit: "%"}'),
    "francs": (["CHF 1'234.50", "CHF 12", "CHF 7"], [1234.5, 12, 7], '{thousands: "\'", unit: CHF}'),
    "dollars": (["$1,234.50", "-$12", "$7"], [1234.5, -12, 7], '{thousands: ",", unit: "$"}'),
    "euros": (["1.234,50 €", "12 €", "7 €"], [1234.5, 12, 7], '{decimal: ",", thousands: ".", unit: "€"}'),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_are_read_as_people_write_them(case: str, tmp_path: Path) -> None:
    texts, values, form = NUMBERS[case]
    for target in ("label", "v"):
        recipe, text = written(tmp_path, {"x": floats(N), "v": cycle(*texts, n=N)}, [target])
        assert f"      v: {form}    # numbers with" in text
        if target == "label":
            np.testing.assert_allclose(inputs(recipe, "v"), cycle(*values, n=N), rtol=1e-7)
        else:
            assert recipe.tasks["v"].kind == "regression"
            one_step(recipe)


def test_points_between_thousands_in_a_file_with_commas(tmp_path: Path) -> None:
    texts, values = ["1.748", "345", "1.612", "-12.250", "7"], [1748, 345, 1612, -12250, 7]
    _, text = written(tmp_path, {"x": floats(N), "v": cycle(*texts, n=N)}, ["v"])
    form = '      v: {decimal: ",", thousands: "."}    # numbers with a decimal comma and points between thousands; '
    why = "each point stands before three digits and is read as a thousands sign; "
    todo = "if it is the decimal sign, remove the column from data.source.formats\n"
    assert form + why + todo in text
    recipe, _ = written(tmp_path, {"v": cycle(*texts, n=N)})
    np.testing.assert_array_equal(inputs(recipe, "v"), cycle(*values, n=N))


AS_DECIMALS = {
    "no number without a point": (["1.748", "2.612"], [1.748, 2.612], True),
    "a whole number above 999": (["1.748", "345", "1612"], [1.748, 345, 1612], True),
    "in few rows": (["1.748", *["2.500"] * 10, "345"], [1.748, *[2.5] * 10, 345], True),
    "a number below 1": (["1.748", "345", "0.612"], [1.748, 345, 0.612], False),
    "two decimals": (["1.748", "345", "1.61"], [1.748, 345, 1.61], False),
    "whole numbers": (["1748", "345"], [1748, 345], False),
}


@pytest.mark.parametrize("case", AS_DECIMALS)
def test_points_that_are_decimal_signs(case: str, tmp_path: Path) -> None:
    texts, values, doubt = AS_DECIMALS[case]
    said: list[str] = []
    recipe, text = written(tmp_path, {"v": cycle(*texts, n=N)}, note=said.append)
    np.testing.assert_allclose(inputs(recipe, "v"), cycle(*values, n=N), rtol=1e-6)
    assert "formats" not in text
    line = (
        "column 'v': each point stands before three digits and is read as the decimal sign; if it is a thousands sign, "
        'write {decimal: ",", thousands: "."} for the column in data.source.formats; an example is \'1.748\''
    )
    assert (line in said) == doubt


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_any_encoding(encoding: str, delimiter: str, tmp_path: Path) -> None:
    towns = cycle("Zürich", "Bâle", "Genève", n=N)
    recipe, text = written(
        tmp_path, {"größe": floats(N), "ort": towns}, delimiter=delimiter, encoding=encoding
    )
    named = {"cp1252": "cp1252", "latin-1": "cp1252", "utf-16": "utf-16", "utf-8-sig": None}[encoding]
    assert (f"encoding: {named}" in text) if named else ("encoding" not in text)
    layout = loaded(recipe).learned.layout
    assert layout is not None
    assert (layout.numeric, layout.values["ort"]) == (("größe",), ("Bâle", "Genève", "Zürich"))


def test_na_is_missing_among_numbers_and_a_country_among_words(tmp_path: Path) -> None:
    columns = {
        "income": cycle("1.5", "NA", "2.5", "3.5", n=N),
        "country": cycle("NA", "ZA", "US", "CH", "DE", n=N),
        "continent": RNG.permutation(cycle("NA", "AF", "EU", n=N)).tolist(),
    }
    recipe, text = written(tmp_path, columns, ["continent"])
    assert 'na_values: ["", NA]' in text.split("formats:")[1].split("inputs:")[0]
    assert "na_values" not in text.split("formats:")[0]
    data = loaded(recipe)
    assert data.learned.outputs["continent"] == ("AF", "EU", "NA")
    assert data.learned.layout is not None
    assert data.learned.layout.values["country"] == ("CH", "DE", "NA", "US", "ZA")
    assert np.isnan(inputs(recipe, "income")).sum() == N // 4


def test_one_line_says_what_is_missing_in_most_columns(tmp_path: Path) -> None:
    """A table that R wrote has NA in each column of numbers; the columns of text keep it as a value."""
    columns: dict[str, Sequence[Any]] = {f"c{i}": cycle("NA", *range(9), n=N) for i in range(30)}
    recipe, text = written(tmp_path, {**columns, "country": cycle("NA", "ZA", n=N)})
    assert '    na_values: ["", NA]    # seen in columns that else hold numbers\n' in text
    assert '    formats:\n      country: {na_values: [""]}\n    inputs:' in text
    data = loaded(recipe)
    assert data.learned.layout is not None
    assert data.learned.layout.values["country"] == ("NA", "ZA")
    assert np.isnan(inputs(recipe, "c7")).sum() == N // 10


def test_a_column_of_splits(tmp_path: Path) -> None:
    part = cycle("Train", "train", "Val", "test", n=N)
    recipe, text = written(tmp_path, {"x": floats(N), "part": part})
    assert "  split: {column: part}" in text
    assert {name: len(rows) for name, rows in loaded(recipe).splits.items()} == {
        "train": 100,
        "validation": 50,
        "test": 50,
    }
    recipe, text = written(tmp_path, {"x": floats(N), "part": cycle("train", "dev", n=N)})
    assert "  split: {column: part, test: 0.2}" in text
    one_step(recipe)


def test_spellings_of_yes_and_no_are_two_classes(tmp_path: Path) -> None:
    answers = RNG.permutation(cycle("yes", "Y", "YES", "no", "N", "No", n=N)).tolist()
    recipe, _ = written(tmp_path, {"x": floats(N), "answer": answers}, ["answer"])
    data = loaded(recipe)
    assert data.learned.outputs["answer"] == ("no", "yes")
    one_step(recipe)


def test_codes_with_leading_zeros(tmp_path: Path) -> None:
    recipe, text = written(tmp_path, {"x": floats(N), "zip": cycle("01067", "02150", "80331", n=N)})
    assert "categorical: [zip]" in text
    assert "# zip is a category: 3 codes with leading zeros" in text
    data = loaded(recipe)
    assert data.learned.layout is not None
    assert data.learned.layout.values["zip"] == ("01067", "02150", "80331")


DATES: dict[str, tuple[list[str], str]] = {
    "ISO": (["2023-03-04", "2024-12-31"], ""),
    "German": (["04.03.2023", "31.12.2024"], "%d.%m.%Y"),
    "German without zeros": (["4.3.2023", "31.12.2024"], "%d.%m.%Y"),
    "American": (["03/04/2023", "12/31/2024"], "%m/%d/%Y"),
    "British with short years": (["04/03/23", "31/12/24"], "%d/%m/%y"),
    "with names of months": (["04 Mar 2023", "31 Dec 2024"], "%d %b %Y"),
    "with hours": (["04.03.2023 12:30", "31.12.2024 00:00"], "%d.%m.%Y %H:%M"),
}


@pytest.mark.parametrize("case", DATES)
def test_dates_become_features(case: str, tmp_path: Path) -> None:
    texts, form = DATES[case]
    recipe, text = written(tmp_path, {"day": cycle(*texts, n=N)})
    assert "      dates: [day]" in text
    assert (f'day: {{date_format: "{form}"}}' in text) if form else ("formats" not in text)
    parts = recipe.data.only.columns(0).inputs[:2]
    np.testing.assert_array_equal(parts[:, :3], [[2023, 3, 5], [2024, 12, 1]])  # a Saturday and a Tuesday
    one_step(recipe)


def test_dates_of_which_some_are_missing(tmp_path: Path) -> None:
    recipe, text = written(tmp_path, {"day": cycle("04.03.2023", "31.12.2024", "n/a", "", n=N)})
    assert "missing: mean     # 1 column has missing numbers, day most of all (50%)" in text
    one_step(recipe)


def test_rows_are_held_out_by_dates_of_any_form(tmp_path: Path) -> None:
    days = [f"{1 + i // 12:02d}.{1 + i % 12:02d}.2023" for i in range(N)]
    recipe, text = written(tmp_path, {"x": floats(N), "day": days}, time="day")
    assert 'day: {date_format: "%d.%m.%Y"}' in text
    assert "by_time: day" in text
    data = loaded(recipe)
    months = np.array([int(day[3:5]) for day in days])
    assert months[data.splits["test"]].min() >= months[data.splits["train"]].max()


def test_the_index_of_pandas_is_left_out(tmp_path: Path) -> None:
    columns = {"": range(N), "x": floats(N)}
    recipe, _ = written(tmp_path, columns)
    assert loaded(recipe).header.columns == ("x", "label")
    recipe, text = written(tmp_path, {"Unnamed: 0": range(N), "x": floats(N)})
    assert "# left out: Unnamed: 0 (the number of each row, which pandas writes)" in text
    assert "id:" not in text


@pytest.mark.parametrize("value", ["x", "1"])
def test_an_empty_cell_beside_one_value_says_no(value: str, tmp_path: Path) -> None:
    said: list[str] = []
    recipe, text = written(tmp_path, {"x": floats(N), "flag": cycle(value, "", "", n=N)}, note=said.append)
    why = f"'{value}' or empty, which says no"
    assert f"      categorical: [flag]\n      # flag is a category: {why}\n" in text
    assert said == [f"column 'flag': its values are categories: {why}"]
    rows = recipe.data.only.columns(0)
    np.testing.assert_array_equal(rows.inputs[:, 1], cycle(1, 0, 0, n=N))
    data = loaded(recipe)
    assert data.learned.layout is not None
    assert data.learned.layout.values["flag"] == (value,)
    one_step(recipe)


def test_a_rare_class_gets_a_comment(tmp_path: Path) -> None:
    fraud = ["yes" if i % 40 == 7 else "no" for i in range(N)]
    plan = [["a", "b", "ultra"][2 if i in (3, 90) else i % 2] for i in range(N)]
    _, text = written(tmp_path, {"x": floats(N), "fraud": fraud, "plan": plan}, ["fraud", "plan"])
    lines = text.splitlines()
    assert (
        "  # yes has 5 of 200 rows: try positive_weight: balanced, and stratify: fraud in data.split" in lines
    )
    assert (
        "  # ultra has 2 of 200 rows: try class_weights: balanced, and stratify: plan in data.split" in lines
    )
    _, text = written(tmp_path, {"x": floats(N), "fraud": fraud}, ["fraud"])
    assert "  # yes has 5 of 200 rows: try positive_weight: balanced\n" in text
    _, text = written(tmp_path, {"x": floats(N)})
    assert " rows: try " not in text.split("tasks:")[1]


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_list_of_labels(empty: str, tmp_path: Path) -> None:
    tags = RNG.permutation(cycle("a|b", "a", empty, "b", n=N)).tolist()
    recipe, text = written(tmp_path, {"x": floats(N), "tags": tags}, ["tags"])
    assert "  # 25% of cells are empty: write empty: missing if that means" in text
    assert labelled(recipe) == N
    one_step(recipe)


def test_notes_go_to_stderr(tmp_path: Path, capsys: Capture) -> None:
    table = write_csv(tmp_path / "t.csv", {"v": [*range(N - 1), "Total"], "label": LABEL})
    done = called(capsys, "init", table, "--targets", "label", "-o", tmp_path / "r.yaml")
    assert done.returncode == 0
    assert (
        done.stderr
        == "note: column 'v': 199 numbers and 'Total' in row 201; it is taken for a missing value\n"
    )
    assert (
        done.stdout
        == f"{tmp_path / 'r.yaml'}: 1 task; look through it, then: mtl run {tmp_path / 'r.yaml'}\n"
    )
    load_recipe(str(tmp_path / "r.yaml"))
