"""What is said of a column that is mostly numbers, but cannot be read as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtl.starter.guess.roles import guess_role
from tests.support.columns import seen

N = 300
MIXTURES: dict[str, tuple[list[Any], str]] = {
    "negative numbers in brackets": (
        [f"({1000 + i:,})" if i % 3 == 0 else f"{1000 + i:,}" for i in range(N)],
        "200 numbers and 100 texts such as '(1,000)' are not read as numbers",
    ),
    "percents beside shares": (
        [f"{i / 7:.2f}%" if i % 3 == 0 else f"{i / 700:.4f}" for i in range(N)],
        "200 numbers and 100 texts such as '0.00%' are not read as numbers",
    ),
    "two currencies": (
        [f"€{i}.5" if i % 3 == 0 else f"${i}.5" for i in range(N)],
        "200 numbers with the unit $ and 100 texts such as '€0.5' are not read as numbers",
    ),
    "two decimal signs": (
        [f"{i},25" if i % 3 == 0 else f"{i}.5" for i in range(N)],
        "300 numbers written in several ways are not read as numbers",
    ),
    "more values than are counted": (
        [f"({i}.5)" if i % 3 == 0 else f"{i}.5" for i in range(6000)],
        "4,000 numbers and 2,000 texts such as '(0.5)' are not read as numbers",
    ),
    "words for missing are no texts": (
        ["NA" if i % 9 == 0 else f"({i})" if i % 3 == 0 else str(i) for i in range(N)],
        "200 numbers and 66 texts such as '(3)' are not read as numbers",
    ),
    "free text": ([f"text {i}" for i in range(N)], ""),
    "versions": ([f"1.{i}.2" for i in range(N)], ""),
    "dates of two forms": ([f"{1 + i % 28}.03.2023" if i % 2 else f"2023/3/{1 + i % 28}" for i in range(N)], ""),
    "sizes": ([["38", "40", "XL", "36"][i % 4] for i in range(N)], ""),
    "codes": ([f"{i:05d}" for i in range(N)], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", MIXTURES)
def test_a_mixture(case: str, tmp_path: Path) -> None:
    values, said = MIXTURES[case]
    found = seen(tmp_path, values)
    assert found.mixture == said
    if said:
        assert guess_role(found) == ("none", said)
