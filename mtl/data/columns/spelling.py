"""One value has one spelling, whichever file it comes from: `1`, `1.0` and `1.00` are one number, `True` is `true`.

A program writes a column of whole numbers as `1.0` once a value is missing, and Parquet, arrays and data frames hold
no text at all. Two rules keep values equal:

- Within a column (`merged`): if all its values are numbers, each is written in one way; if all are truth values, in
  lower case; other columns stay as they are, since `1.10` may be a version, and `01067` is a postal code.
- Between a list of known values and a new one (`Known.find`): the same text, else the same number or truth value, if
  only one known value is equal to it. 1 and 0 are `true` and `false` where the known values are nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

NUMBER = re.compile(r"(-?)(0|[1-9]\d{0,39})(?:\.(\d{0,40}))?(?:[eE]([+-]?\d{1,3}))?", re.ASCII)
"""A number as programs write it. Text with a zero in front, such as `01067`, is a name."""
LONGEST = 40
"""A number with more digits than this before or after its point is written with an exponent."""
TRUTHS, BITS = ("false", "true"), ("0", "1")


def number(text: str) -> str | None:
    """The one spelling of a number, or None for other text: no point without a fraction, no zeros at its end.

    The digits stay as they are, so that ids of twenty digits keep their last one.
    """
    if text.isdecimal() and text.isascii() and (text[0] != "0" or text == "0") and len(text) <= LONGEST:
        return text
    found = NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    sign, whole, fraction, exponent = found.groups()
    digits = (whole + (fraction or "")).lstrip("0")
    point = int(exponent or 0) - len(fraction or "")
    stripped = digits.rstrip("0")
    if not stripped:
        return "0"
    point += len(digits) - len(stripped)
    if point >= 0 and len(stripped) + point <= LONGEST:
        return sign + stripped + "0" * point
    if -LONGEST <= point < 0:
        padded = stripped.rjust(1 - point, "0")
        return f"{sign}{padded[:point]}.{padded[point:]}"
    return f"{sign}{stripped}e{point}"


def truth(text: str) -> str | None:
    """The one spelling of a truth value, `true` or `false`, or None for other text."""
    lower = text.strip().lower()
    return lower if lower in TRUTHS else None


def merged(texts: Iterable[str]) -> dict[str, str]:
    """Each distinct value of a column -> its spelling."""
    distinct = list(texts)
    for spell in (number, truth):
        if (spelled := _each(distinct, spell)) is not None:
            return spelled
    return dict(zip(distinct, distinct, strict=True))


def _each(texts: Iterable[str], spell: Callable[[str], str | None]) -> dict[str, str] | None:
    found = {}
    for text in texts:
        spelled = spell(text)
        if spelled is None:
            return None
        found[text] = spelled
    return found


def together(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The values of several lists as one list, where each value has the spelling of the first list that has it."""
    found: list[str] = []
    for values in lists:
        known = Known(found)
        found += [value for value in values if known.find(value) is None]
    return tuple(found)


class Known:
    """A fixed list of values, among which other spellings are found too.

    Args:
        values: the values, all different.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self.position = {value: i for i, value in enumerate(values)}
        self.equal: dict[str, int | None] = {}
        for value, i in self.position.items():
            spelled = number(value) or truth(value)
            if spelled is not None:
                self.equal[spelled] = None if spelled in self.equal else i
        for truths, bits in ((TRUTHS, BITS), (BITS, TRUTHS)):
            if self.equal and set(self.equal) <= set(truths) and len(self.equal) == len(self.position):
                pairs = zip(truths, bits, strict=True)
                self.equal |= {bit: self.equal[one] for one, bit in pairs if one in self.equal}
                break

    def position_of(self, text: str) -> int:
        """The position of a value that is in the list."""
        found = self.find(text)
        assert found is not None
        return found

    def find(self, text: str) -> int | None:
        """The position of a value; None if it is not in the list, or equal to several values."""
        found = self.position.get(text)
        if found is None:
            spelled = number(text) or truth(text)
            found = self.equal.get(spelled) if spelled is not None else None
        return found
