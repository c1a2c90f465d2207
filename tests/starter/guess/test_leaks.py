"""Columns that give a label away are found, and columns that merely predict it well are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.data.files.table import TableFile
from mtl.starter.guess.leaks import find_leaks
from mtl.starter.look.columns import look
from tests.support.columns import write_csv

N = 300
RNG = np.random.default_rng(0)
CLASSES = [["a", "b", "c"][i] for i in RNG.integers(0, 3, N)]
YES = ["yes" if x < 0.3 else "no" for x in RNG.random(N)]
RARE = ["Y" if i in (7, 90, 130, 222) else "N" for i in range(N)]
AMOUNT = RNG.gamma(2, 100, N).round(2)
X = RNG.standard_normal(N).round(3)
HALF = [v if i % 2 else "" for i, v in enumerate(YES)]

LEAKS: dict[str, tuple[list[Any], list[Any], str]] = {
    "a copy": (YES, YES, "each value stands for one of 'label'"),
    "a flag": (["x" if v == "yes" else "" for v in YES], YES, "each value stands for one of 'label'"),
    "other words": ([int(v == "yes") for v in YES], YES, "each value stands for one of 'label'"),
    "a copy of a rare class": ([int(v == "Y") for v in RARE], RARE, "each value stands for one of 'label'"),
    "a finer value": ([v + str(i % 2) for i, v in enumerate(CLASSES)], CLASSES, "each value tells that of 'label'"),
    "a coarser value": ([v == "a" for v in CLASSES], CLASSES, "its value follows from that of 'label'"),
    "a logarithm": (np.log(AMOUNT).tolist(), AMOUNT.tolist(), "its order is that of 'label'"),
    "another currency": ((-0.9 * AMOUNT).round(2).tolist(), AMOUNT.tolist(), "its order is that of 'label'"),
    "a band": ((AMOUNT // 100).tolist(), AMOUNT.tolist(), "its order is that of 'label'"),
    "above a threshold": (AMOUNT.tolist(), [int(v > 200) for v in AMOUNT], "it separates the values of 'label'"),
    "present or not": (
        [f"2024-01-{1 + i % 28:02d} {i}" if v == "yes" else "" for i, v in enumerate(YES)],
        YES,
        "whether it is missing tells the value of 'label'",
    ),
    "a copy of labels that are missing at times": (YES, HALF, "each value stands for one of 'label'"),
}  # fmt: skip

KEPT: dict[str, tuple[list[Any], list[Any]]] = {
    "nothing in common": (X.tolist(), YES),
    "a copy with one fault": ([*YES[:5], "yes", *YES[6:]], [*YES[:5], "no", *YES[6:]]),
    "a number near the class": ([round("abc".index(v) + x / 5, 3) for v, x in zip(CLASSES, X, strict=True)], CLASSES),
    "a number near the amount": ((AMOUNT + X).round(2).tolist(), AMOUNT.tolist()),
    "few rows": (["a", "b", "a", "c", "b", "d"], ["x", "y", "x", "x", "y", "y"]),
    "nearly a name for each row": ([f"n{i // 2}" for i in range(20)], [["x", "y"][i // 2 % 2] for i in range(20)]),
    "missing here and there": (["" if x > 1 else x for x in X], YES),
    "the same amount throughout": (X.tolist(), [1.5] * N),
}  # fmt: skip


def found(folder: Path, column: list[Any], label: list[Any], yes: tuple[str, ...] = ()) -> dict[str, str]:
    other = np.random.default_rng(1).random(len(label)).round(4).tolist()
    file = TableFile(write_csv(folder / "t.csv", {"v": column, "other": other, "label": label}))
    return find_leaks(file, look(file), ["v", "other"], {"label": yes})


@pytest.mark.parametrize("case", LEAKS)
def test_a_column_that_gives_the_label_away(case: str, tmp_path: Path) -> None:
    column, label, how = LEAKS[case]
    assert found(tmp_path, column, label) == {"v": how}


@pytest.mark.parametrize("case", KEPT)
def test_a_column_that_does_not(case: str, tmp_path: Path) -> None:
    assert found(tmp_path, *KEPT[case]) == {}


def test_a_copy_of_a_label_of_several_spellings(tmp_path: Path) -> None:
    spelled = [["Y", "yes", "YES"][i % 3] if v == "yes" else ["N", "no"][i % 2] for i, v in enumerate(YES)]
    how = "each value stands for one of 'label'"
    assert found(tmp_path, YES, spelled, ("Y", "yes", "YES")) == {"v": how}


def test_labels_in_random_order_are_no_function_of_a_column(tmp_path: Path) -> None:
    """Of 2000 columns of two to twenty values, none gives a label away that it has nothing to do with."""
    rng = np.random.default_rng(3)
    columns = {f"c{i}": rng.integers(0, 2 + i % 19, 40).tolist() for i in range(2000)}
    file = TableFile(write_csv(tmp_path / "t.csv", {**columns, "label": [i % 2 for i in range(40)]}))
    assert find_leaks(file, look(file), list(columns), {"label": ()}) == {}


def test_copies_of_rows_are_no_evidence(tmp_path: Path) -> None:
    """Repeated rows agree in a label of many digits and in each input; that tells nothing of other rows."""
    rng = np.random.default_rng(4)
    x, z, yr = (rng.standard_normal(1000).round(6).tolist() for _ in range(3))
    columns = {"x": [*x, *x[:3]], "z": [*z, *z[:3]], "yr": [*yr, *yr[:3]]}
    file = TableFile(write_csv(tmp_path / "t.csv", columns))
    assert find_leaks(file, look(file), ["x", "z"], {"yr": ()}) == {}
    file = TableFile(write_csv(tmp_path / "copy.csv", {**columns, "z": columns["yr"]}))
    assert find_leaks(file, look(file), ["x", "z"], {"yr": ()}) == {"z": "its order is that of 'yr'"}


def test_few_rows_that_are_copied_often_are_few_rows(tmp_path: Path) -> None:
    """In ten rows a column may well fit a label by chance; thirty copies of each do not change that."""
    x, z = (np.random.default_rng(seed).random(10).round(6).tolist() for seed in (1, 2))
    label = [0, 1, 1, 0, 1, 0, 0, 1, 0, 1]
    columns = {"x": x * 30, "z": z * 30, "v": [["a", "b"][i] for i in label] * 30, "label": label * 30}
    file = TableFile(write_csv(tmp_path / "t.csv", columns))
    assert find_leaks(file, look(file), ["x", "z", "v"], {"label": ()}) == {}


def test_rows_of_one_person_are_no_evidence(tmp_path: Path) -> None:
    """Height and label of a person are those of each of the person's rows, while other columns differ."""
    rng = np.random.default_rng(4)
    rows = np.r_[np.arange(100), np.arange(30)]
    height, label = (rng.standard_normal(100).round(6)[rows].tolist() for _ in range(2))
    columns = {"height": height, "x": rng.random(130).tolist(), "label": label}
    file = TableFile(write_csv(tmp_path / "t.csv", columns))
    assert find_leaks(file, look(file), ["height", "x"], {"label": ()}) == {}


def test_a_leak_in_a_table_of_few_combinations(tmp_path: Path) -> None:
    """Three towns and two answers make six rows at most, so that equal rows are no copies."""
    columns = {"town": [["a", "b", "c"][i % 3] for i in range(N)], "v": YES, "label": YES}
    file = TableFile(write_csv(tmp_path / "t.csv", columns))
    how = "each value stands for one of 'label'"
    assert find_leaks(file, look(file), ["town", "v"], {"label": ()}) == {"v": how}
