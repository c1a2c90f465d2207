"""Says what stands in a column of text that is mostly numbers, but cannot be read as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from mtl.console import counted
from mtl.errors import quoted
from mtl.starter.look.numbers import unit_of
from mtl.starter.look.parsed import means_missing

MOSTLY = 0.5
"""Least share of rows with a number, in any unit, in a column that may be meant to hold numbers."""
FEW = 10
"""Fewest distinct numbers; sizes such as 38, 40 and XL are categories."""


def mixture_of(counts: Mapping[str, int]) -> str:
    """`633 numbers and 267 texts such as '(1,234)' are not read as numbers`; "" if a column is not mostly numbers.

    Numbers with another unit than most of them are texts here, and so are numbers in brackets.

    Args:
        counts: distinct text -> rows.
    """
    units = {text: unit_of(text) for text in counts if not means_missing(text)}
    rows: Counter[str | None] = Counter()
    for text, unit in units.items():
        rows[unit] += counts[text]
    of_numbers = {unit: n for unit, n in rows.items() if unit is not None}
    if not of_numbers or sum(of_numbers.values()) < MOSTLY * rows.total():
        return ""
    usual = max(of_numbers, key=lambda unit: of_numbers[unit])
    if sum(unit == usual for unit in units.values()) < FEW:
        return ""
    others = [text for text, unit in units.items() if unit != usual]
    numbers = counted(rows[usual], "number") + (f" with the unit {usual}" if usual else "")
    if not others:
        return f"{numbers} written in several ways are not read as numbers"
    texts = counted(sum(counts[text] for text in others), "text")
    return f"{numbers} and {texts} such as {quoted(others[0])} are not read as numbers"
