"""Rows of totals are found, words that merely look like one are not, and numbers far outside are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.starter.look.columns import look
from mtl.starter.look.opening import opening_of
from mtl.starter.look.outliers import Far, Total, far_outside, says_total, totals
from tests.support.columns import cycle, write_csv

N = 200
X = np.random.default_rng(0).integers(1, 100, N).tolist()
NAMES = [f"shop {i}" for i in range(N)]

TOTALS: dict[str, tuple[dict[str, list[Any]], list[Total]]] = {
    "the sum in the last row": ({"shop": [*NAMES, "Total"], "x": [*X, sum(X)]}, [Total(200, "shop", "Total")]),
    "the mean in the last row": ({"shop": [*NAMES, "Mean:"], "x": [*X, 50]}, [Total(200, "shop", "Mean:")]),
    "the sum in the first row": ({"shop": ["SUMME", *NAMES], "x": [sum(X), *X]}, [Total(0, "shop", "SUMME")]),
    "an empty cell": (
        {"shop": [*NAMES, "Grand-Total", "last"], "town": [*cycle("a", "b", n=N), "", "a"], "x": [*X, 5, 7]},
        [Total(200, "shop", "Grand-Total")],
    ),
    "an index of numbers": ({"i": [*range(N), "Total"], "x": [*X, sum(X)]}, [Total(200, "i", "Total")]),
    "more names than are counted": (
        {"shop": [*(f"n{i}" for i in range(3000)), "total"], "x": [*cycle(*X, n=3000), 3]},
        [Total(3000, "shop", "total")],
    ),
    "two": (
        {"shop": ["Subtotal", *NAMES, "Total"], "x": [9e5, *X, 1e6]},
        [Total(0, "shop", "Subtotal"), Total(201, "shop", "Total")],
    ),
    "a slip among numbers": ({"v": [*range(N), "Total"], "x": [*X, 5]}, []),
    "a word in the middle": ({"shop": ["Total", *NAMES], "x": [5, *X]}, []),
    "an answer of many rows": ({"rating": cycle("poor", "average", n=N), "x": X}, []),
    "a company": ({"shop": [*NAMES, "Total Energies"], "x": [*X, 10**6]}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", TOTALS)
def test_rows_of_totals(case: str, tmp_path: Path) -> None:
    columns, found = TOTALS[case]
    opening = opening_of(write_csv(tmp_path / "t.csv", columns))
    looks = look(opening.table())
    written = opening.table({name: seen.form for name, seen in looks.items()})
    assert totals(opening.table(), written, looks) == found


def test_words_for_a_total() -> None:
    for text in ("Total", " total ", "Grand Total", "Sum:", "Gesamt", "(Sub-total)", "Durchschnitt"):
        assert says_total(text)
    for text in ("", "Total Energies", "total 5", "summer", "mean value"):
        assert not says_total(text)


FAR: dict[str, tuple[list[Any], list[Far]]] = {
    "a slip of the point": ([*X, 123456789], [Far("v", 200, 123456789.0)]),
    "a negative one": ([-1e6, *X], [Far("v", 0, -1e6)]),
    "among missing values": ([*X, *[""] * 50, 1e6], [Far("v", 250, 1e6)]),
    "a long tail": ([*X, 9e4], []),
    "mostly zero": ([*[0] * N, 5], []),
    "many of them": ([*X, *[1e6] * 9], []),
}


@pytest.mark.parametrize("case", FAR)
def test_numbers_far_outside(case: str, tmp_path: Path) -> None:
    values, found = FAR[case]
    columns = {"v": values, "x": range(len(values))}
    assert far_outside(opening_of(write_csv(tmp_path / "t.csv", columns)).table(), ["v", "x"]) == found
