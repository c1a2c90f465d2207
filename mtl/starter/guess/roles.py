"""Guesses the role of an input column."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mtl.console import counted
from mtl.data.rows.splits import CALLED, NAMES
from mtl.errors import quoted
from mtl.starter.look.columns import MANY, Look
from mtl.starter.words import CODED, COUNTED, PERSONS, SPLITS, UNNAMED

FEW = 20
"""Fewest values that a column should have."""
FEW_CODES = 50
"""Most whole numbers that may be codes rather than quantities."""
FEW_FLAGS = 10
"""Fewest rows with the one value of a column whose other cells are empty."""
DIGITS = 10
"""The largest of a column's long numbers is less than so many times the smallest if they are ids."""
LONGEST = 200
"""Most characters of a column's name in a recipe."""
MOST_MISSING = 0.1
"""Largest share of rows that may lack a word for their split."""
Role = Literal["numeric", "categorical", "vector", "dates", "image", "id", "none"]


def is_time(seen: Look) -> bool:
    """Whether the values can be read as times: as dates, or as numbers."""
    return seen.dates or seen.numeric


def guess_role(seen: Look) -> tuple[Role, str]:
    """The role of an input column, and the reason."""
    unfit = _unfit(seen)
    if unfit is not None:
        return "none", unfit
    if seen.type == "vector":
        return "vector", "lists of numbers"
    if seen.flag:
        return "categorical", f"{quoted(next(iter(seen.counts)))} or empty, which says no"
    if seen.name.strip().lower() in UNNAMED and seen.whole and seen.all_different:
        return "none", "the number of each row, which pandas writes"
    if _is_id(seen):
        if seen.all_different:
            return "id", "a different value in each row"
        if seen.distinct > 50:
            return "none", "the name is that of an id"
        return "categorical", f"{seen.distinct} values"
    if seen.numeric:
        if seen.whole and seen.words & CODED and not seen.words & COUNTED and _few(seen):
            return "categorical", f"{seen.distinct} whole numbers, and the name speaks of codes"
        return "numeric", ""
    if seen.dates:
        return "dates", "each date gives its year, month, weekday and days"
    if all(value.lower().endswith((".png", ".jpg", ".jpeg")) for value in list(seen.counts)[:100]):
        return "image", "paths of images"
    what = "codes with leading zeros" if seen.padded else "text"
    if seen.distinct > min(MANY, 0.5 * seen.there, max(FEW, 0.2 * seen.there)):
        if seen.mixture:
            return "none", seen.mixture
        return "none", f"{what} with {seen.many} distinct values in {counted(seen.there, 'row')}"
    return "categorical", f"{seen.distinct} {what if seen.padded else 'values'}"


def _few(seen: Look) -> bool:
    """Whether there are so few whole numbers, each so often, that they may be codes."""
    return seen.distinct <= min(FEW_CODES, seen.there / 5)


def _unfit(seen: Look) -> str | None:
    """The reason why a column cannot be an input, or None if it can."""
    if not seen.name.strip() or len(seen.name) > LONGEST:
        return f"its name has {counted(len(seen.name), 'character')}, at most {LONGEST}"
    if not seen.there:
        return "no value"
    if seen.type == "texts":
        return "lists of text"
    if seen.type == "other":
        return "neither numbers nor text"
    if seen.infinite_row:
        return f"an infinite number in {seen.infinite_row}; replace it by null to use the column"
    if seen.type == "vector":
        if seen.missing:
            return f"{counted(seen.missing, 'list is', 'lists are')} missing"
        return "lists of different lengths" if len(seen.widths) > 1 or 0 in seen.widths else None
    if seen.flag:
        return None if seen.there >= FEW_FLAGS else f"one value, in {counted(seen.there, 'row')}"
    if seen.distinct < 2:
        return "one value throughout"
    if seen.there < FEW and seen.there <= 0.4 * seen.n + 1:
        return f"only {counted(seen.there, 'value')}"
    if seen.numeric and seen.largest > float(np.finfo(np.float32).max):
        return "numbers too large for float32"
    return None


def _is_id(seen: Look) -> bool:
    if seen.called_id:
        return True
    if seen.parsed is None or not seen.whole or not seen.form.plain_numbers or seen.words & COUNTED:
        return False
    # numbers of things have as many digits as each other; sums of money have not
    alike = seen.parsed.largest < DIGITS * seen.parsed.smallest
    return alike and seen.largest > 2**24 and seen.all_different


def names_groups(seen: Look) -> bool:
    """Whether a column names people or things with several rows each: an id whose values come again, or `person`."""
    if (
        seen.type not in ("text", "integer", "number")
        or seen.dates
        or not 1 < seen.distinct <= seen.there / 2
    ):
        return False
    if seen.numeric and not seen.whole:
        return False
    if seen.called_id:
        return not seen.all_different
    person = bool({word.removesuffix("s") for word in seen.words} & PERSONS)
    return person and len(seen.words) == 1 and seen.distinct > FEW


def splits_named(seen: Look) -> set[str] | None:
    """The splits that the words of a column name; None if a word is none of them, or no row is for training."""
    if not seen.there or seen.distinct > 2 * len(CALLED) or seen.missing > MOST_MISSING * seen.n:
        return None
    words = {CALLED.get(word, word) for word in (value.strip().lower() for value in seen.counts)}
    return words if words <= set(NAMES) and "train" in words and len(words) > 1 else None


def like_a_split(seen: Look) -> bool:
    """Whether a column tells training rows from others in words that the reader does not know, such as `holdout`."""
    words = {value.strip().lower() for value in seen.counts} if seen.distinct <= FEW else set()
    known = words <= {*NAMES, *CALLED, *SPLITS} and bool(words & {"train", "training"})
    return known and len(words) > 1 and splits_named(seen) is None
