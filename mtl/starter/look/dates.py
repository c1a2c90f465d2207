"""Finds how a column of text writes its dates."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from mtl.data.iso_time import iso_seconds

MOSTLY = 0.8
"""Least share of distinct texts that are dates in a column of dates; the others may mean missing values."""
ORDERS = (("%d", "%m"), ("%m", "%d"))
HOURS = ("", " %H:%M", " %H:%M:%S")
SHAPE = re.compile(r"[0-9]{1,4}([-/. ])([0-9]{1,2}|[A-Za-z]{3,9})\1([0-9]{1,4})( [0-9:]{4,8})?", re.ASCII)


def date_form(texts: Sequence[str]) -> tuple[str, str] | None:
    """The format of most of these texts in the signs of `strptime`, and what is in doubt; None if they are no dates.

    The format is empty for dates in ISO form. If every day could be a month, `03.04.2023` is 3 April, as in the
    countries that write points, and `03/04/2023` is 4 March, as pandas reads it; the doubt is said.

    Args:
        texts: distinct texts of a column.
    """
    needed = MOSTLY * len(texts)
    if not texts:
        return None
    if sum(reads_date(text, "") for text in texts) >= needed:
        return "", ""
    shapes = [SHAPE.fullmatch(text.strip()) for text in texts]
    signs = {shape[1] for shape in shapes if shape is not None}
    if len(signs) != 1 or sum(shape is not None for shape in shapes) < needed:
        return None
    (sign,) = signs
    fitting = {form: sum(reads_date(text, form) for text in texts) for form in _forms(sign)}
    best = max(fitting.values())
    if best < needed:
        return None
    forms = [form for form in fitting if fitting[form] == best]
    first = next((form for form in forms if form.startswith("%m")), forms[0]) if sign == "/" else forms[0]
    two = {form[:2] for form in forms} >= {"%d", "%m"}
    return first, _doubt(first) if two else ""


def _forms(sign: str) -> list[str]:
    days = [f"%Y{sign}%m{sign}%d"]
    days += [f"{one}{sign}{two}{sign}{year}" for year in ("%Y", "%y") for one, two in ORDERS]
    days += [f"%d{sign}%b{sign}%Y", f"%d{sign}%b{sign}%y", f"%d{sign}%B{sign}%Y"]
    return [day + hour for day in days for hour in HOURS]


def _doubt(form: str) -> str:
    first, second = ("day", "month") if form.startswith("%d") else ("month", "day")
    return f"no date has a number above 12 that tells the {first} from the {second}; the {first} is taken to be first"


def reads_date(text: str, form: str) -> bool:
    """Whether a text is a date in this form; ISO if the form is empty."""
    read: Callable[[], object] = (
        (lambda: iso_seconds(text.strip())) if not form else (lambda: datetime.strptime(text.strip(), form))
    )
    with suppress(ValueError, OverflowError):
        read()
        return True
    return False
