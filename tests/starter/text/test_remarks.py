"""What `mtl init` says of its guesses, on stderr and in the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.starter.text.remarks import cut
from mtl.starter.write import Starter, starter_recipe
from tests.support.columns import cycle, floats, write_csv

N = 200
X = np.random.default_rng(0).standard_normal(N).round(6).tolist()
"""Numbers of so many digits that no two rows are equal."""
LABEL = np.random.default_rng(5).integers(0, 2, N).tolist()


def starter(
    folder: Path, columns: dict[str, Sequence[Any]], targets: Sequence[str] = ("label",), **options: Any
) -> Starter:
    """The recipe for a table of these columns, a number and a label."""
    plain = {"x": X, "label": LABEL, **columns}
    return starter_recipe(str(write_csv(folder / "t.csv", plain)), targets, folder, **options)


NOTES: dict[str, tuple[str, list[Any], str]] = {
    "a slip": (
        "v", [*range(N - 1), "Total"],
        "column 'v': 199 numbers and 'Total' in row 201; it is taken for a missing value",
    ),
    "an infinite number": (
        "v", ["1e400", *range(N - 1)],
        "column 'v': 199 numbers and '1e400' in row 2; it is taken for a missing value",
    ),
    "a slip and a word for missing": (
        "v", [*range(N - 3), "NA", "NA", "Total"],
        "column 'v': 197 numbers, 'NA' in 2 rows and 'Total' in row 201; these texts are taken for missing values",
    ),
    "dates": (
        "v", [*(f"{1 + i % 28}.05.2024" for i in range(N - 1)), "open"],
        "column 'v': 199 dates and 'open' in row 201; it is taken for a missing value",
    ),
    "two readings of numbers": (
        "v", cycle("12", "1,234", "5,678", n=N),
        "column 'v': the comma could be the decimal sign too; an example is '1,234'",
    ),
    "two readings of dates": (
        "v", [*cycle("03/04/2023", "05/06/2023", n=N - 1), ""],
        "column 'v': no date has a number above 12 that tells the month from the day; the month is taken to be first; "
        "an example is '03/04/2023'",
    ),
    "numbers without their unit": (
        "v", cycle("12%", "7%", "8%", "9%", "5", n=N),
        "column 'v': 40 numbers lack the unit % of the others; what counts is the number alone",
    ),
    "a word for missing among words": (
        "country", cycle("NA", "CH", "ZA", "DE", n=N),
        "column 'country': 'NA' in 50 rows is kept as a category; "
        "if that means a missing value, write na_values for the column in data.source.formats",
    ),
    "spellings of yes and no": (
        "v", cycle("yes", "Y", "no", "N", n=N),
        "column 'v': 4 spellings of yes and no are 4 values: 'yes', 'Y', 'no', 'N'; "
        "spell them alike in the table to make them two",
    ),
    "spellings of a town": (
        "v", cycle("Bern", "bern ", "Oslo", n=N),
        "column 'v': 'Bern', 'bern ' differ in case or spaces alone and are 2 values",
    ),
    "leading zeros": (
        "zip", cycle("01067", "02150", "80331", n=N),
        "column 'zip': its values are categories: 3 codes with leading zeros",
    ),
    "codes": (
        "industry_code", cycle(*range(100, 120), n=N),
        "column 'industry_code': its values are categories: 20 whole numbers, and the name speaks of codes",
    ),
    "a copy": (
        "v", [["no", "yes"][value] for value in LABEL],
        "column 'v' is left out, because it gives a label away: each value stands for one of 'label'",
    ),
    "splits": ("part", cycle("train", "test", n=N), "column 'part' names the split of each row: 'train', 'test'"),
    "splits that the reader lacks": (
        "part", cycle("train", "eval", n=N),
        "column 'part' seems to name splits, but 'train', 'eval' are not all of train, validation (val, valid, dev) "
        "and test; rename them to use the column",
    ),
    "dates of each row": (
        "the day", cycle("2023-03-04", "2023-03-05", n=N),
        "1 column holds dates: 'the day'; --time 'the day' holds out the latest rows",
    ),
    "persons": (
        "person", cycle(*range(50), n=N),
        "column 'person' has 50 values in 200 rows: --group person keeps rows of one on one side",
    ),
    "an outcome": ("fraud", floats(N), "1 input looks like a label: 'fraud'; take out what is known only afterwards"),
    "another of the label's kind": (
        "label_90_days", floats(N),
        "1 input looks like a label: 'label_90_days'; take out what is known only afterwards",
    ),
    "numbers and texts": (
        "v", [f"({i}.5)" if i % 4 == 0 else f"{i}.5" for i in range(N)],
        "column 'v' is left out: 150 numbers and 50 texts such as '(0.5)' are not read as numbers",
    ),
    "numbers and texts of few values": (
        "v", [f"({i % 20})" if i % 4 == 0 else str(i % 20) for i in range(N)],
        "column 'v': its values are categories: 150 numbers and 50 texts such as '(0)' are not read as numbers",
    ),
    "what is left out": (
        "note", [f"text {i}" for i in range(N)],
        "column 'note' is left out: text with 200 distinct values in 200 rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTES)
def test_what_is_said_of_a_column(case: str, tmp_path: Path) -> None:
    name, values, note = NOTES[case]
    assert starter(tmp_path, {name: values}).notes == (note,)


def test_nothing_is_said_of_a_plain_table(tmp_path: Path) -> None:
    assert starter(tmp_path, {"town": cycle("Bern", "Oslo", n=N), "n": range(N)}).notes == ()


def gaps(values: Sequence[Any], share: float, seed: int) -> list[Any]:
    """The values, some of them left out at random."""
    lacking = np.random.default_rng(seed).random(len(values)) < share
    return ["" if lacks else value for value, lacks in zip(values, lacking, strict=True)]


def test_inputs_with_gaps_like_the_labels_and_lists_of_labels_are_doubted(tmp_path: Path) -> None:
    columns = {
        "label": gaps(LABEL, 0.4, 1),
        "segment": gaps(cycle("a", "b", "c", n=N), 0.4, 2),
        "spend": gaps(X, 0.4, 3),
        "income": gaps(X[::-1], 0.12, 4),
        "likes": cycle("art|music", "art", "music", n=N),
    }
    assert starter(tmp_path, columns).notes == (
        "2 inputs have gaps like the labels: 'spend', 'segment'; are they labels, or known only later?",
        "1 input lists several values in a cell: 'likes'; is it a label, or known only later?",
    )


def test_what_is_said_of_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spelled = rng.permutation(cycle("yes", "Y", "no", "N", n=N)).tolist()
    answers = rng.permutation(cycle("yes", "no", "n/a", "no", n=N)).tolist()
    tags = rng.permutation(cycle("a|b", "a", "", "b", n=N)).tolist()
    found = starter(
        tmp_path, {"spelled": spelled, "answers": answers, "tags": tags}, ["spelled", "answers", "tags"]
    )
    assert found.notes == (
        "1 input looks like a label: 'label'; take out what is known only afterwards",
        "column 'spelled': 'Y', 'yes' mean yes, 'no', 'N' mean no: two classes",
        "column 'answers': 'n/a' is taken for a missing label, because the other values are yes and no",
        "column 'tags': 50 empty cells are taken to say that no label applies; "
        "if the labels are not known there, write empty: missing",
    )
    for line in (
        '  spelled: {kind: binary, target: spelled, positive: ["Y", "yes"]}    # 4 spellings of yes and no',
        "  answers: {kind: binary, target: answers, missing: mask}"
        "    # two values, no and yes; 25% of labels are missing",
        "  # 25% of cells are empty: write empty: missing if that means that the labels of a row are not known",
        "  tags: {kind: multilabel, target: tags, empty: none}    # texts list several labels, separated by '|'",
    ):
        assert line in found.text.splitlines()


def test_each_reason_to_leave_columns_out_is_one_line(tmp_path: Path) -> None:
    columns = {
        "a": ["s"] * N,
        "b": ["t"] * N,
        "patient_id": cycle(*range(60), n=N),
        "text": [f"t{i}" for i in range(N)],
    }
    assert starter(tmp_path, columns).notes == (
        "column 'patient_id' has 60 values in 200 rows: --group patient_id keeps rows of one on one side",
        "2 columns ('a', 'b') are left out: one value throughout",
        "column 'patient_id' is left out: the name is that of an id",
        "column 'text' is left out: text with 200 distinct values in 200 rows",
    )


def test_options_that_are_given_are_not_proposed(tmp_path: Path) -> None:
    columns = {"person": cycle(*range(50), n=N), "day": cycle("2023-03-04", "2023-03-05", "2023-03-09", n=N)}
    assert len(starter(tmp_path, columns).notes) == 2
    assert starter(tmp_path, columns, group="person").notes == ()
    assert starter(tmp_path, columns, time="day").notes == ()


def test_values_without_a_name(tmp_path: Path) -> None:
    line = "the first column has no name and is left out; its values are no row numbers: name it to use it"
    plain = {"x": X, "label": LABEL}
    for values, notes in (
        (range(N), ()),
        (range(1, N + 1), ()),
        ([*range(N - 1), 7], (line,)),
        (range(2, N + 2), (line,)),
        ([*range(N - 1), "x"], (line,)),
    ):
        path = write_csv(tmp_path / "t.csv", {"": values, **plain})
        found = starter_recipe(str(path), ["label"], tmp_path)
        assert found.notes == notes
        assert (f"    # {line}" in found.text.splitlines()) == bool(notes)


def test_a_screen_is_said_with_its_numbers(tmp_path: Path) -> None:
    columns = {f"c{i}": np.random.default_rng(i).random(N).tolist() for i in range(39)}
    assert starter(tmp_path, columns).notes == (
        "data.screen: 0.2 leaves out inputs that tell nothing of the labels, because there are 40 inputs for 200 rows",
    )


def test_a_total_is_said_first_and_in_the_recipe(tmp_path: Path) -> None:
    columns = {"shop": [*(f"n{i}" for i in range(N)), "Total"], "x": [*X, 1e6], "label": [*LABEL, 1]}
    found = starter_recipe(str(write_csv(tmp_path / "t.csv", columns)), ["label"], tmp_path)
    line = (
        "row 202 looks like a total ('Total' in column 'shop'): "
        "remove it from the file, or it is learned from as a row"
    )
    assert found.notes[:2] == (
        line,
        "column 'x': 1000000 in row 202 is more than 1000 times as large as 99% of its numbers; "
        "correct it in the file if it is a slip",
    )
    assert f"  # {line}" in found.text.splitlines()


def test_many_totals_take_four_lines(tmp_path: Path) -> None:
    columns = {"shop": ["Total" if i % 40 == 39 else f"n{i}" for i in range(N)], "x": X, "label": LABEL}
    columns["x"] = ["" if i % 40 == 39 else x for i, x in enumerate(X)]
    notes = starter_recipe(str(write_csv(tmp_path / "t.csv", columns)), ["label"], tmp_path).notes
    assert [note.split(" (")[0] for note in notes[:3]] == [
        f"row {row} looks like a total" for row in (41, 81, 121)
    ]
    assert notes[3] == "2 other rows look like a total: remove each from the file"


def test_copies_of_rows_are_said_first(tmp_path: Path) -> None:
    x, label = [*X, *X[:3]], [*LABEL, *LABEL[:3]]
    z = [value**2 for value in x]
    path = write_csv(tmp_path / "t.csv", {"x": x, "z": z, "label": label})
    found = starter_recipe(str(path), ["label"], tmp_path)
    line = "3 rows are exact copies of others; copies may be on both sides of the split"
    assert found.notes == (line,)
    assert f"  # {line}" in found.text.splitlines()
    path = write_csv(tmp_path / "t.csv", {"x": x[: N + 1], "z": z[: N + 1], "label": label[: N + 1]})
    assert (
        starter_recipe(str(path), ["label"], tmp_path)
        .notes[0]
        .startswith("1 row is an exact copy of another;")
    )


def test_two_columns_that_name_splits(tmp_path: Path) -> None:
    parts = {"part": cycle("train", "test", n=N), "fold": cycle("train", "train", "test", n=N)}
    found = starter(tmp_path, parts)
    assert "  split: {column: part, validation: 0.2}    # its words name the split of each row" in found.text
    assert found.notes == (
        "column 'part' names the split of each row: 'train', 'test'",
        "column 'fold' names splits too, and is left out",
    )
    grouped = starter(tmp_path, {**parts, "person": cycle(*range(50), n=N)}, group="person")
    assert "column: part" not in grouped.text
    assert "    # left out: part (it names the split of each row)" in grouped.text.splitlines()


def test_one_line_tells_of_many_columns(tmp_path: Path) -> None:
    columns = {f"c{i}": cycle("NA", *range(9), n=N) for i in range(3)}
    assert len(starter(tmp_path, columns).notes) == 3
    columns["c3"] = cycle("NA", "n/a", *range(8), n=N)
    assert starter(tmp_path, {**columns, "v": [*range(N - 1), "Total"]}).notes == (
        "4 columns of numbers or dates hold 'NA', 'n/a', which are taken for missing values: 'c0', 'c1', 'c2', 'c3'",
        "column 'v': 199 numbers and 'Total' in row 201; it is taken for a missing value",
    )


def test_the_encoding_is_said(tmp_path: Path) -> None:
    columns = {"x": floats(N), "stadt": cycle("Zürich", "Bâle", n=N), "label": LABEL}
    path = write_csv(tmp_path / "t.csv", columns, encoding="cp1252")
    note = "the file is not UTF-8 and is read as cp1252; if 'Zürich' looks wrong, write another encoding"
    found = starter_recipe(str(path), ["label"], tmp_path)
    assert found.notes == (note,)
    assert f"    encoding: cp1252    # {note}" in found.text.splitlines()


def test_rows_of_parquet_are_counted_from_zero(tmp_path: Path) -> None:
    table = {"x": floats(N), "v": [*map(str, range(N - 1)), "Total"], "label": LABEL}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    found = starter_recipe(str(tmp_path / "t.parquet"), ["label"], tmp_path)
    assert found.notes == ("column 'v': 199 numbers and 'Total' in row 199; it is taken for a missing value",)


def test_many_lines_are_cut() -> None:
    assert list(cut(["a", "b", "c"], 3)) == ["a", "b", "c"]
    assert list(cut(["a", "b", "c"], 2)) == ["a", "b", "... and 1 more"]
