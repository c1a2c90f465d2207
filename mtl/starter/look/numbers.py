"""Finds how a column of text writes its numbers: decimal sign, thousands sign and unit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from math import inf

from mtl.data.files.formats.form import ColumnForm
from mtl.starter.words import CURRENCIES, MEASURES

SAMPLE = 300
"""Most distinct texts by which the form of a column is chosen."""
MOSTLY = 0.8
"""Least share of distinct texts that are numbers in a column of numbers; the others may mean missing values."""
SIGNS = ((".", ""), (",", ""), (".", ","), (",", "."), (".", "'"), (",", "'"), (".", " "), (",", " "))
"""Decimal and thousands signs, the usual ones first: of two that fit as well, the first is taken."""
ENOUGH = 20
"""Fewest rows with a point, and without one, by which points are thousands signs."""
POINTED = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")
WHOLE = re.compile(r"[+-]?[0-9]+")
SPACE, APOSTROPHE = "[ \u00a0\u202f]", "['\u2019]"
NUMBER = r"[+-]?[0-9][0-9.,'\u2019 \u00a0\u202f]*(?:[eE][+-]?[0-9]+)?|[+-]?[.,][0-9]+"
WITH_UNIT = re.compile(rf"([+-]?)([^\s0-9+-]*?)\s*({NUMBER})\s*([^\s0-9+-]*)")


def number_form(values: Iterable[str], comma: bool | None = None) -> tuple[ColumnForm, str] | None:
    """How most of these texts write a number, and why another reading is possible; None if they are no numbers.

    `1,234` alone may be 1234 or 1.234. It is taken for 1234 unless the table writes a decimal comma.

    Args:
        values: distinct texts of a column, without those that mean a missing value.
        comma: whether other columns of the table write a decimal comma; None if none tells.
    """
    texts = [text.strip() for text in islice(values, SAMPLE)]
    unit = _unit(texts)
    if unit:
        texts = [_bare(text, unit) for text in texts]
    needed = MOSTLY * len(texts)
    if not texts or sum(text[:2].lstrip("+-.,")[:1].isdigit() for text in texts) < needed:
        return None
    first, best = SIGNS[0], 0
    for pair in SIGNS:
        fitting = _fits(texts, *pair)
        if fitting > best:
            first, best = pair, fitting
        if best == len(texts):
            break
    if best < needed:
        return None
    decimal, thousands = first
    other = {(",", ""): (".", ","), (".", ""): (",", ".")}.get(first)
    doubt = ""
    if other is not None and any(decimal in text for text in texts) and _fits(texts, *other) == best:
        # each number with this sign has groups of three digits
        usual = other if (decimal == ",") != (comma is True) else first
        if comma is None and decimal == ",":
            doubt = "the comma could be the decimal sign too"
        decimal, thousands = usual
    return ColumnForm(decimal=decimal, thousands=thousands, unit=unit), doubt


def points_in_thousands(counts: Mapping[str, int], form: ColumnForm) -> tuple[ColumnForm, str]:
    """How a column is read whose every point stands before three digits, as in `1.748`; the form as it is for others.

    Such a number may be 1748 or 1.748. It is taken for 1748 if `ENOUGH` rows have a point and as many have a whole
    number below 1000 without one: a program that cuts zeros off decimals leaves fewer than three of them at times.

    Args:
        counts: distinct text -> rows.
        form: how the column is read by the first look.

    Returns:
        the form, and why another one is possible; "" if none is.
    """
    if (form.decimal, form.thousands) != (".", ""):
        return form, ""
    pointed, short = 0, 0.0
    number = _number(".", "")
    for text, rows in counts.items():
        bare = _bare(text.strip(), form.unit) if form.unit else text.strip()
        if not number.fullmatch(bare):
            continue
        if POINTED.fullmatch(bare):
            pointed += rows
        elif WHOLE.fullmatch(bare):
            short += rows if len(bare.lstrip("+-")) <= 3 else -inf
        else:
            return form, ""
    if not pointed:
        return form, ""
    in_thousands = replace(form, decimal=",", thousands=".")
    if min(pointed, short) >= ENOUGH:
        return in_thousands, (
            "each point stands before three digits and is read as a thousands sign; "
            "if it is the decimal sign, remove the column from data.source.formats"
        )
    return form, (
        "each point stands before three digits and is read as the decimal sign; "
        'if it is a thousands sign, write {decimal: ",", thousands: "."} for the column in data.source.formats'
    )


def tells_comma(values: Iterable[str]) -> bool:
    """Whether the numbers of a column can only be read with a decimal comma."""
    texts = list(islice(values, SAMPLE))
    if not any("," in text for text in texts):
        return False
    found = number_form(texts, comma=False)
    return found is not None and found[0].decimal == "," and number_form(texts, comma=True) == found


def _fits(texts: Sequence[str], decimal: str, thousands: str) -> int:
    """How many texts are numbers with these signs."""
    number = _number(decimal, thousands)
    return sum(number.fullmatch(text) is not None for text in texts)


@cache
def _number(decimal: str, thousands: str) -> re.Pattern[str]:
    """A number with these signs."""
    point = re.escape(decimal)
    between = {" ": SPACE, "'": APOSTROPHE}.get(thousands, re.escape(thousands))
    groups = rf"[1-9][0-9]{{0,2}}({between}[0-9]{{3}})+|" if thousands else ""
    return re.compile(rf"[+-]?(({groups}[0-9]+)({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?")


def _unit(texts: Sequence[str]) -> str:
    """The one unit that most of the texts have, or no text."""
    found: dict[str, int] = {}
    for text in texts:
        parts = WITH_UNIT.fullmatch(text)
        if parts is None or bool(parts[2]) == bool(parts[4]):
            continue
        unit = parts[2] or parts[4]
        if _is_currency(unit) or (parts[4] and unit in MEASURES):
            found[unit] = found.get(unit, 0) + 1
    best = max(found, key=lambda unit: found[unit], default="")
    return best if best and found[best] >= MOSTLY * len(texts) else ""


def unit_of(text: str) -> str | None:
    """The unit of a number in any way of writing, "" if it has none; None if the text is no such number."""
    text = text.strip()
    parts = WITH_UNIT.fullmatch(text)
    if parts is None:
        return None
    unit = parts[2] or parts[4]
    if unit and (bool(parts[2] and parts[4]) or not (_is_currency(unit) or (parts[4] and unit in MEASURES))):
        return None
    bare = _bare(text, unit) if unit else text
    return unit if any(_number(*pair).fullmatch(bare) for pair in SIGNS) else None


def _bare(text: str, unit: str) -> str:
    """A text without its unit; its sign may stand before the unit."""
    sign = text[0] if text[:1] in ("+", "-") else ""
    rest = text.removeprefix(sign).strip()
    return sign + rest.removeprefix(unit).removesuffix(unit).strip()


def _is_currency(text: str) -> bool:
    return text in CURRENCIES or (len(text) == 1 and unicodedata.category(text) == "Sc")


def described(form: ColumnForm) -> str:
    """How numbers are written, in words, for a comment."""
    parts = []
    if form.decimal == ",":
        parts.append("a decimal comma")
    if form.thousands:
        between = {",": "commas", ".": "points", "'": "apostrophes", " ": "spaces"}[form.thousands]
        parts.append(f"{between} between thousands")
    if form.unit:
        parts.append(f"the unit {form.unit}")
    return " and ".join(", ".join(parts).rsplit(", ", 1))
