"""Canonical JSON for writing, and strict JSON for reading."""

from __future__ import annotations

import json
import math
from typing import Any

from mtl.errors import quoted

MAX_DIGITS = 1000
"""A whole number with more of them is beyond any float."""


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and without infinite numbers: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def strict_json(data: bytes) -> Any:
    """Parse JSON that has no NaN, no infinity, no number too large for a float, and no key twice.

    Raises:
        ValueError: the bytes are no such JSON.
    """

    def finite(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"{text[:40]} is too large")
        return value

    def short(text: str) -> int:
        if len(text) > MAX_DIGITS:
            raise ValueError(f"a number of {len(text)} digits is too large")
        return int(text)

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a key is given twice")
        return values

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not allowed")

    text = data.decode("utf-8")
    return json.loads(
        text, object_pairs_hook=distinct, parse_constant=refuse, parse_float=finite, parse_int=short
    )


def shown(text: str) -> str:
    """The text of a parser; it is quoted if it is long or unprintable."""
    return text if text.isprintable() and len(text) <= 200 else quoted(text)
