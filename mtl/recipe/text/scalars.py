"""Reads one scalar: its text becomes a number, a truth value, null or text, by the core schema of YAML 1.2."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from mtl.errors import Place, UserError, quoted

MAX_TEXT = 4096
MAX_DIGITS = 20

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SPELLINGS: tuple[tuple[re.Pattern[str], str, Callable[[str], object]], ...] = (
    (re.compile(r"[-+]?0[0-9]+"), "the leading zero of {} is ambiguous", int),
    (
        re.compile(r"[-+]?[0-9]+_[0-9_]*(\.[0-9_]*)?"),
        "{} has an underscore",
        lambda text: text.replace("_", ""),
    ),
    (re.compile(r"[-+]?0(x[0-9a-fA-F]+|o[0-7]+|b[01]+)"), "{} is not decimal", lambda text: int(text, 0)),
    (
        re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"),
        "{} may be a time or a number",
        lambda _: "a number",
    ),
)
"""Texts that YAML 1.1 and 1.2 read differently: their form, what is wrong, what the user may mean."""
_AMBIGUOUS = frozenset({"yes", "no", "on", "off", "y", "n", "true", "false"})
_SURROGATE = re.compile("[\ud800-\udfff]")


def scalar(text: str, place: Place, *, plain: bool) -> str | float | bool | None:
    """The value of one scalar.

    Args:
        text: the text without quotes.
        place: its place in the file.
        plain: whether it was written without quotes; only then it may be a number, a truth value or null.

    Raises:
        UserError: the text is ambiguous, not finite or too long.
    """
    if len(text) > MAX_TEXT:
        raise UserError(place, f"value is longer than {MAX_TEXT} characters")
    if _SURROGATE.search(text):
        raise UserError(place, "half a surrogate pair is no character", "write the character itself")
    if not plain:
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    word = text.lower()
    if word in _AMBIGUOUS or word == "null":
        right = "null" if word == "null" else "true/false"
        raise UserError(place, f"ambiguous word {quoted(text)}: write {right}, or quote it to mean text")
    return _number(text, place) if text[0] in "+-.0123456789" else text


def _number(text: str, place: Place) -> str | float:
    """The number that a plain scalar means in the core schema; text that means no number stays text."""
    for pattern, what, meant in _SPELLINGS:
        if pattern.fullmatch(text):
            right = meant(text) if len(text) <= MAX_DIGITS else "it in decimal"
            todo = f"write {right}, or quote it to mean text"
            raise UserError(place, what.format(quoted(text)), todo)
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-")) > MAX_DIGITS:
            raise UserError(place, "whole number with too many digits", f"at most {MAX_DIGITS}")
        return int(text)
    if _NOT_FINITE.fullmatch(text):
        raise UserError(place, "infinite and NaN values are not allowed")
    if not _FLOAT.fullmatch(text):
        return text
    number = float(text)
    if math.isinf(number):
        raise UserError(place, f"{quoted(text)} is too large")
    return number


def plain_text(text: str) -> bool:
    """Whether a recipe may hold the text without quotes, and reads it back as the same text."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./\-]*( [A-Za-z0-9_./\-]+)*", text):
        return False
    try:
        return scalar(text, Place(""), plain=True) == text
    except UserError:
        return False
