"""Guesses the kind of task of a label column."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from mtl.console import counted
from mtl.data.columns.labels import NO_AND_YES
from mtl.errors import UserError, quoted
from mtl.starter.look.columns import MANY, Look
from mtl.starter.look.parsed import means_missing
from mtl.starter.words import CODED, COUNTED, NO, ORDERED, SCALES, YES

FEW = 20
"""Most distinct whole numbers that may be classes."""
FEW_CODES = 100
"""The same for a column whose name says that it holds codes."""
Kind = Literal["multiclass", "binary", "ordinal", "multilabel", "regression"]


def guess_kind(seen: Look) -> tuple[Kind, dict[str, Any], str]:
    """The kind of task for a label column, its options, and the reason.

    Raises:
        UserError: no kind fits.
    """
    what = f"column {quoted(seen.name)}"
    if not seen.there:
        raise UserError("--targets", f"{what} has no value")
    if seen.type == "texts":
        return "multilabel", {}, "holds lists of labels"
    if seen.type in ("vector", "other") or seen.dates:
        held = {"vector": "lists of numbers", "other": "values that are no labels", "time": "times"}
        raise UserError(
            "--targets", f"{what} holds {held.get(seen.type, 'dates')}: no kind of task is for it"
        )
    if seen.infinite_row:
        raise UserError(seen.infinite_row, "the label is an infinite number", "replace it by null")
    if seen.flag:
        raise UserError(
            "--targets",
            f"{what} has one value and empty cells",
            "if empty means no, fill them, such as by no",
        )
    if seen.distinct < 2:
        raise UserError("--targets", f"{what} has one value throughout: nothing to learn")
    if lists_labels(seen):
        return "multilabel", {}, "texts list several labels, separated by '|'"
    if seen.distinct == 2:
        return _binary(seen)
    if seen.numeric:
        return _numeric_kind(seen)
    yes = yes_values(seen.counts)
    if yes is not None:
        return "binary", {"positive": yes}, f"{seen.distinct} spellings of yes and no"
    order = _scale(seen)
    if order is not None:
        return "ordinal", {"order": order}, "the values have a usual order"
    if seen.mixture:
        raise UserError("--targets", f"{what}: {seen.mixture}", "write them alike in the file")
    if seen.distinct > MANY or seen.distinct > 0.5 * seen.there:
        raise UserError(
            "--targets",
            f"{what} holds text with {seen.many} distinct values in {counted(seen.there, 'row')}: "
            "no kind of task is for it",
        )
    why = "codes with leading zeros" if seen.padded else "text"
    return "multiclass", {}, f"{why} with {seen.distinct} distinct values"


def _numeric_kind(seen: Look) -> tuple[Kind, dict[str, Any], str]:
    if not seen.form.plain_numbers:
        unit = {"unit": seen.form.unit} if seen.form.unit else {}
        return "regression", unit, "numbers"
    if not seen.whole:
        return "regression", {}, "numbers"
    values = sorted(seen.counts, key=float)
    span = f"whole numbers {float(values[0]):.0f} to {float(values[-1]):.0f}"
    if seen.distinct <= FEW and seen.words & ORDERED:
        plain = all(_is_whole(value) for value in values)
        why = f"{span}, and the name speaks of an order"
        if plain or all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_ .\-]*", value) for value in values):
            return "ordinal", {} if plain else {"order": values}, why
    if seen.words & CODED and not seen.words & COUNTED and seen.distinct <= min(FEW_CODES, seen.there / 5):
        return "multiclass", {}, f"{seen.distinct} whole numbers, and the name speaks of codes"
    if seen.distinct <= FEW and seen.there >= 5 * seen.distinct and not seen.words & COUNTED:
        return (
            "multiclass",
            {},
            f"{seen.distinct} whole numbers; if they are ordered grades, write kind: ordinal; "
            "if they count something, regression",
        )
    return "regression", {}, f"whole numbers with {seen.many} distinct values"


def _is_whole(text: str) -> bool:
    """Whether a table reads the text as a whole number, not as a name."""
    return re.fullmatch(r"0|-?[1-9][0-9]{0,16}", text) is not None


def _binary(seen: Look) -> tuple[Kind, dict[str, Any], str]:
    values = sorted(seen.counts)
    if {value.lower() for value in values} in [set(pair) for pair in NO_AND_YES]:
        return "binary", {}, f"two values, {values[0]} and {values[1]}"
    spelled = yes_values(values)
    if seen.numeric and seen.form.plain_numbers and {float(v) for v in values} in ({0.0, 1.0}, {-1.0, 1.0}):
        yes, why = max(values, key=float), "the larger one"
    elif spelled is not None:
        yes, why = spelled[0], "the one that says yes"
    else:
        yes, why = min(values, key=lambda value: (seen.counts[value], value)), "the rarer one"
    positive: Any = int(yes) if all(_is_whole(value) for value in values) else yes
    return "binary", {"positive": positive}, f"two values; {why}, {yes}, is taken to be the positive one"


def yes_values(values: Iterable[str]) -> list[str] | None:
    """The values that say yes, if each value says yes or no in some spelling, and both occur; else None."""
    spelled = {value: value.strip().lower() for value in values}
    yes = sorted(value for value, word in spelled.items() if word in YES)
    no = [value for value, word in spelled.items() if word in NO]
    return yes if yes and no and len(yes) + len(no) == len(spelled) else None


def drop_markers(seen: Look) -> list[str]:
    """Take the words for a missing value out of a column that says yes or no; returns the words.

    In other columns of text, such a word is a class: `none` beside `mild`, or `NA`, North America.
    """
    words = [value for value in seen.counts if means_missing(value)]
    if not words or seen.type != "text" or yes_values(v for v in seen.counts if v not in words) is None:
        return []
    for word in words:
        seen.missing += seen.counts.pop(word)
    seen.form = replace(seen.form, na_values=("", *words))
    return words


def _scale(seen: Look) -> list[str] | None:
    """The values in their usual order, if they have one."""
    by_lower = {value.lower(): value for value in seen.counts}
    if len(by_lower) < seen.distinct or seen.distinct < 3:
        return None
    for scale in SCALES:
        if set(by_lower) <= set(scale):
            return [by_lower[word] for word in scale if word in by_lower]
    return None


def lists_labels(seen: Look) -> bool:
    """Whether texts of a column list several labels, as `art|music` does."""
    return seen.lists > 0.05 * seen.there and not seen.numeric
