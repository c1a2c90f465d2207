"""Guesses the purpose of a table's columns: the kind of task of a label, the role of an input."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import numpy as np

from mtl.console import counted
from mtl.data.columns.labels import NO_AND_YES
from mtl.errors import UserError, quoted
from mtl.starter.look import MANY, Look

FEW = 20
"""Most distinct whole numbers that may be classes, and fewest values that a column should have."""
LONGEST = 200
"""Most characters of a column's name in a recipe."""
SCALES = (
    ("very low", "low", "medium", "high", "very high"),
    ("none", "mild", "moderate", "severe", "critical"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("very poor", "poor", "fair", "good", "very good", "excellent"),
    ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
    ("xs", "s", "m", "l", "xl", "xxl"),
    ("low", "mid", "high"),
    ("small", "medium", "large"),
)
ORDERED = frozenset(
    ("rating", "stars", "star", "grade", "level", "severity", "stage", "score", "rank", "priority", "risk")
)
COUNTED = frozenset(
    (
        "n",
        "num",
        "number",
        "count",
        "counts",
        "total",
        "age",
        "years",
        "days",
        "visits",
        "amount",
        "price",
        "quantity",
    )
)
"""Words in a column's name that tell whether its whole numbers are grades or quantities."""
Kind = Literal["multiclass", "binary", "ordinal", "multilabel", "regression"]
Role = Literal["numeric", "categorical", "vector", "image", "id", "none"]


def is_time(seen: Look) -> bool:
    """Whether the values can be read as times: as dates in ISO form, or as numbers."""
    return seen.type == "time" or (seen.numeric and seen.numbers > 0) or _dates(seen.counts, _iso)


def _dates(values: Iterable[str], test: Any) -> bool:
    some = list(values)[:200]
    return bool(some) and all(test(value) for value in some)


def _iso(text: str) -> bool:
    with suppress(ValueError):
        datetime.fromisoformat(text.strip())
        return True
    return False


def _like_a_date(text: str) -> bool:
    return _iso(text) or re.match(r"\s*\d{1,4}([-/.])\d{1,2}\1\d{1,4}(\D|$)", text) is not None


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
    if seen.type in ("vector", "other", "time"):
        held = {"vector": "lists of numbers", "time": "times"}.get(seen.type, "values that are no labels")
        raise UserError("--targets", f"{what} holds {held}: no kind of task is for it")
    if seen.distinct < 2:
        raise UserError("--targets", f"{what} has one value throughout: nothing to learn")
    if seen.lists > 0.05 * seen.there and not seen.numeric:
        empty = {"empty": "missing"} if seen.missing else {}
        return "multilabel", empty, "texts list several labels, separated by '|'"
    if seen.distinct == 2:
        return _binary(seen)
    if seen.numeric:
        return _numeric_kind(seen)
    order = _scale(seen)
    if order is not None:
        return "ordinal", {"order": order}, "the values have a usual order"
    if seen.distinct > MANY or seen.distinct > 0.5 * seen.there:
        raise UserError(
            "--targets",
            f"{what} holds text with {seen.many} distinct values in {counted(seen.there, 'row')}: "
            "no kind of task is for it",
        )
    return "multiclass", {}, f"text with {seen.distinct} distinct values"


def _numeric_kind(seen: Look) -> tuple[Kind, dict[str, Any], str]:
    if not seen.whole:
        return "regression", {}, "numbers"
    values = sorted(seen.counts, key=float)
    span = f"whole numbers {float(values[0]):.0f} to {float(values[-1]):.0f}"
    if seen.distinct <= FEW and seen.words & ORDERED:
        plain = all(_is_whole(value) for value in values)
        why = f"{span}, and the name speaks of an order"
        if plain or all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_ .\-]*", value) for value in values):
            return "ordinal", {} if plain else {"order": values}, why
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
    if seen.numeric and {float(value) for value in values} in ({0.0, 1.0}, {-1.0, 1.0}):
        yes, why = max(values, key=float), "the larger one"
    else:
        yes, why = min(values, key=lambda value: (seen.counts[value], value)), "the rarer one"
    positive: Any = int(yes) if all(_is_whole(value) for value in values) else yes
    return "binary", {"positive": positive}, f"two values; {why}, {yes}, is taken to be the positive one"


def _scale(seen: Look) -> list[str] | None:
    """The values in their usual order, if they have one."""
    by_lower = {value.lower(): value for value in seen.counts}
    if len(by_lower) < seen.distinct or seen.distinct < 3:
        return None
    for scale in SCALES:
        if set(by_lower) <= set(scale):
            return [by_lower[word] for word in scale if word in by_lower]
    return None


def guess_role(seen: Look) -> tuple[Role, str]:
    """The role of an input column, and the reason."""
    unfit = _unfit(seen)
    if unfit is not None:
        return "none", unfit
    if seen.type == "vector":
        return "vector", "lists of numbers"
    if _is_id(seen):
        if seen.distinct >= min(seen.there, MANY):
            return "id", "a different value in each row"
        if seen.distinct > 50:
            return (
                "none",
                "the name is that of an id; --group keeps rows of one value on one side of the split",
            )
        return "categorical", f"{seen.distinct} values"
    if seen.numeric:
        return "numeric", ""
    if all(value.lower().endswith((".png", ".jpg", ".jpeg")) for value in list(seen.counts)[:100]):
        return "image", "paths of images"
    if _dates(seen.counts, _like_a_date):
        return "none", "dates; --time holds out the latest rows"
    if seen.distinct > min(MANY, 0.5 * seen.there, max(FEW, 0.2 * seen.there)):
        return "none", f"text with {seen.many} distinct values in {counted(seen.there, 'row')}"
    return "categorical", f"{seen.distinct} values"


def _unfit(seen: Look) -> str | None:
    """The reason why a column cannot be an input, or None if it can."""
    if not seen.name.strip() or len(seen.name) > LONGEST:
        return f"its name has {counted(len(seen.name), 'character')}, at most {LONGEST}"
    if not seen.there:
        return "no value"
    if seen.type == "texts":
        return "lists of text"
    if seen.type == "time":
        return "times are not read as they are; --time holds out the latest rows"
    if seen.type == "other":
        return "neither numbers nor text"
    if seen.type == "vector":
        if seen.missing:
            return f"{counted(seen.missing, 'list is', 'lists are')} missing"
        return "lists of different lengths" if len(seen.widths) > 1 or 0 in seen.widths else None
    if seen.distinct < 2:
        return "one value throughout"
    if seen.there < FEW and seen.there <= 0.4 * seen.n + 1:
        return f"only {counted(seen.there, 'value')}"
    if seen.numeric and seen.largest > float(np.finfo(np.float32).max):
        return "numbers too large for float32"
    return None


def _is_id(seen: Look) -> bool:
    if seen.name.lower() in ("id", "uuid", "guid", "key", "index", "row", "unnamed: 0"):
        return True
    if re.search(r"([_\W][iI][dD]|[a-z](Id|ID))$", seen.name):
        return True
    return seen.numeric and seen.whole and seen.largest > 2**24 and seen.distinct >= min(seen.there, MANY)
