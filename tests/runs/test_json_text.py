"""JSON comes back as it was, and what is no plain value is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.runs.json_text import canonical_json, strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_json_comes_back(value: Any) -> None:
    data = canonical_json(value)
    assert strict_json(data) == value
    assert canonical_json(strict_json(data)) == data
    assert data.endswith(b"\n")


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [math.nan], {"a": math.inf}])
def test_canonical_json_refuses_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"NaN", "NaN is not allowed"),
        (b"[-Infinity]", "-Infinity is not allowed"),
        (b'{"a": Infinity}', "Infinity is not allowed"),
        (b"1e999", "1e999 is too large"),
        (b"[-1e400]", "-1e400 is too large"),
        (b"[" + b"9" * 5000 + b"]", "a number of 5000 digits is too large"),
        (b'{"a": 1, "a": 1}', "a key is given twice"),
        (b'[{"b": {"a": 1, "a": 2}}]', "a key is given twice"),
        (b'{"a": 1, "\\u0061": 2}', "a key is given twice"),
        (b"{} {}", "Extra data"),
        (b"", "Expecting value"),
        (b"\xff", "invalid start byte"),
        (b"'a'", "Expecting value"),
    ],
)
def test_strict_json_refuses(text: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=re.escape(what)):
        strict_json(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_value_error(data: bytes) -> None:
    try:
        value = strict_json(data)
    except ValueError:
        return
    assert strict_json(canonical_json(value)) == value
