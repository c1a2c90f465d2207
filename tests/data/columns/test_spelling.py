from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data.columns.spelling import Known, merged, number, together, truth


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("1", "1"), ("1.0", "1"), ("1.", "1"), ("1.00", "1"), (" 1 ", "1"), ("-3.0", "-3"), ("0", "0"), ("0.0", "0"),
        ("-0.0", "0"), ("1.50", "1.5"), ("0.10", "0.1"), ("-0.050", "-0.05"), ("1e3", "1000"), ("1E-2", "0.01"),
        ("1.5e+1", "15"), ("12e-1", "1.2"), ("100", "100"), ("12345678901234567890.0", "12345678901234567890"),
        ("1e300", "1e300"), ("10e299", "1e300"), ("1.0e-300", "1e-300"), ("0.30000000000000004", "0.30000000000000004"),
        ("01067", None), ("00", None), ("-01", None), ("", None), ("x", None), ("1,5", None), ("+1", None),
        ("nan", None),
        ("1e", None), ("0x1", None), ("1.2.3", None), ("²", None), ("1" * 41, None), ("1e9999", None),
    ],
)  # fmt: skip
def test_one_spelling_of_a_number(text: str, spelled: str | None) -> None:
    assert number(text) == spelled


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70))
def test_a_number_keeps_its_value_and_is_spelled_once(value: float) -> None:
    spelled = number(repr(value))
    assert spelled is not None
    assert float(spelled) == float(value)
    assert number(spelled) == spelled
    if float(value).is_integer() and abs(value) < 1e15:
        assert spelled == str(int(value))


@pytest.mark.parametrize(
    ("text", "spelled"), [("True", "true"), ("FALSE", "false"), (" true", "true"), ("1", None), ("yes", None)]
)
def test_one_spelling_of_a_truth_value(text: str, spelled: str | None) -> None:
    assert truth(text) == spelled


def test_a_column_is_numbers_or_truth_values_as_a_whole() -> None:
    assert merged(["1.0", "1", "2.50"]) == {"1.0": "1", "1": "1", "2.50": "2.5"}
    assert merged(["True", "false"]) == {"True": "true", "false": "false"}
    for names in (["1.10", "1.1", "1.10.2"], ["01067", "1067", "1067.0"], ["True", "true", "maybe"], []):
        assert merged(names) == {name: name for name in names}


def test_a_value_among_known_ones() -> None:
    known = Known(("1", "x", "2.5", "True"))
    found = [known.find(text) for text in ("1", "1.0", "2.50", "true", "x", "X", "3", "")]
    assert found == [0, 0, 2, 3, 1, None, None, None]
    assert known.position_of("1.0") == 0
    versions = Known(("1.1", "1.10"))  # two names; a third spelling is neither
    assert [versions.find(text) for text in ("1.1", "1.10", "1.100")] == [0, 1, None]
    postal = Known(("01067", "1067"))
    assert [postal.find(text) for text in ("01067", "1067", "1067.0", "001067")] == [0, 1, 1, None]


def test_zero_and_one_are_truth_values_where_nothing_else_is_known() -> None:
    assert [Known(("false", "true")).find(t) for t in ("0", "1.0", "2", "True")] == [0, 1, None, 1]
    assert [Known(("0", "1")).find(t) for t in ("False", "true")] == [0, 1]
    assert Known(("true",)).find("0") is None
    assert Known(("0", "1", "2")).find("true") is None
    assert Known(("false", "true", "maybe")).find("1") is None


def test_lists_of_several_sources() -> None:
    assert together([("0", "1", "2"), ("0.0", "2.0", "3.0"), ()]) == ("0", "1", "2", "3.0")
    assert together([("1.0", "x"), ("1", "y")]) == ("1.0", "x", "y")
    assert together([]) == ()
