"""Arrays of every type numpy has: converted without loss, or refused by name."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from mtl.data.columns.arrays import (
    BLOCK,
    coded,
    input_rows,
    label_column,
    number_column,
    require_one_each,
    time_column,
)
from mtl.data.types import Array
from mtl.errors import UserError

BOOLS, SMALL, LARGE = "?", ["u1", "i1", "i2", "f2", "f4"], ["u2", "i4", "u4", "i8", "u8", "f8", "g"]
NO_NUMBERS = {
    "U3": "text",
    "S3": "text",
    "c8": "complex numbers",
    "M8[s]": "times",
    "m8[s]": "durations",
    "V4": "raw bytes",
}
N = 5


def fault(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(UserError) as caught:
        call("a.npz", "x", *arguments)
    return str(caught.value)


def of_type(dtype: str) -> Array:
    return np.zeros(N, dtype) if dtype == "V4" else np.arange(N).astype(dtype)


def test_every_numpy_type_is_one_or_the_other() -> None:
    known = {np.dtype(t).kind for t in (BOOLS, *SMALL, *LARGE, *NO_NUMBERS)}
    assert known | {"O"} == {np.dtype(t).kind for t in np.sctypeDict.values()}


@pytest.mark.parametrize("dtype", [BOOLS, *SMALL, *LARGE])
def test_inputs_keep_their_values_in_a_type_that_every_device_has(dtype: str) -> None:
    values = np.arange(6).reshape(3, 2).astype(dtype)
    rows, notice = input_rows("a.npz", "x", values)
    assert rows.dtype == {"?": np.uint8, **{t: np.dtype(t) for t in SMALL}}.get(dtype, np.float32)
    np.testing.assert_array_equal(rows.astype(np.float64), values.astype(np.float64))
    assert notice == ""


@pytest.mark.parametrize("dtype", NO_NUMBERS)
def test_what_is_no_number(dtype: str) -> None:
    text = f"a.npz: array 'x' holds {NO_NUMBERS[dtype]}, not real numbers"
    assert fault(input_rows, of_type(dtype).reshape(N, 1)) == text
    if np.dtype(dtype).kind not in "US":
        assert fault(label_column, of_type(dtype)) == text
        assert fault(number_column, of_type(dtype)) == text
    if dtype == "m8[s]":
        assert fault(time_column, of_type(dtype)) == text


def test_no_rows() -> None:
    assert fault(input_rows, np.zeros((0, 3))) == "a.npz: no rows"


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8", "f8"])
def test_whole_numbers_beyond_float32_are_told_once_with_their_first_row(dtype: str) -> None:
    values = np.zeros((BLOCK + 5, 2), dtype)
    values[BLOCK + 3, 1] = 2**24 + 1
    values[BLOCK + 4, 0] = 2**24 + 3
    rows, notice = input_rows("a.npz", "x", values)
    assert notice == (
        f"a.npz:row {BLOCK + 3}, array 'x': float32 cannot hold this row's whole numbers exactly; "
        "are they ids rather than quantities?"
    )
    assert rows[BLOCK + 3, 1] == 2**24
    values[BLOCK + 3 :] = 2**24 + 2  # even numbers have a float32
    assert input_rows("a.npz", "x", values)[1] == ""


def test_values_beyond_float32_become_infinite_and_are_left_to_the_check_of_used_rows() -> None:
    rows, notice = input_rows("a.npz", "x", np.array([[1.5e300], [2.5]]))
    assert rows.tolist() == [[np.inf], [2.5]]
    assert notice == ""


@pytest.mark.parametrize("dtype", [*SMALL, *LARGE])
def test_labels_of_every_numeric_type(dtype: str) -> None:
    values, there, names = label_column("a.npz", "x", of_type(dtype))
    assert values.tolist() == [0, 1, 2, 3, 4]
    assert values.dtype == (np.float32 if np.dtype(dtype).kind == "f" else np.int8)
    assert there.all()
    assert names is None


def test_labels_that_are_missing() -> None:
    values, there, _ = label_column("a.npz", "x", np.array([1.0, np.nan, 0.0]))
    assert there.tolist() == [True, False, True]
    assert values[there].tolist() == [1, 0]
    codes, there, names = label_column("a.npz", "x", np.array(["b", "", "a", "NA", "nan"]))
    assert names == ("NA", "a", "b", "nan"), "NA and nan are texts like any other"
    assert codes.tolist() == [2, -1, 1, 0, 3]
    assert there.tolist() == [True, False, True, True, True]


def test_labels_of_truth_values_and_bytes() -> None:
    values, there, names = label_column("a.npz", "x", np.array([True, False]))
    assert (values.tolist(), there.all(), names) == ([1, 0], True, ("false", "true"))
    codes, _, names = label_column("a.npz", "x", np.array(["é".encode(), b"", b"a"]))
    assert (codes.tolist(), names) == ([1, -1, 0], ("a", "é"))
    text = "a.npz:row 1: array 'x' holds b'\\xe9', which is not UTF-8 text"
    assert fault(label_column, np.array([b"a", b"\xe9", b"\xe9"])) == text


def test_labels_that_no_int64_holds() -> None:
    text = "a.npz:row 1: array 'x' holds 18446744073709551615, at most 2^63 - 1"
    assert fault(label_column, np.array([1, 2**64 - 1], np.uint64)) == text


def test_one_each() -> None:
    assert fault(label_column, np.zeros((4, 2))) == (
        "a.npz: array 'x' has shape (4, 2), a column is (n,); save each column as an array of its own"
    )
    assert "has shape (), a column" in fault(require_one_each, np.array(3))
    assert fault(require_one_each, np.zeros(3), 4) == "a.npz: array 'x' has 3 rows, the inputs have 4"
    require_one_each("a.npz", "x", np.zeros(4), 4)


def test_codes_are_in_the_order_of_texts_and_the_same_for_every_type_that_prints_alike() -> None:
    for values in (
        np.array([10, 9, 10, 1]),
        np.array(["10", "9", "10", "1"]),
        np.array([b"10", b"9", b"10", b"1"]),
    ):
        codes, names = coded("a.npz", "x", values)
        assert names == ("1", "9", "10")
        assert codes.tolist() == [2, 1, 2, 0]
        assert codes.dtype == np.int64
    codes, names = coded("a.npz", "x", np.array([2.5, np.nan, 1.0, np.nan]))
    assert (codes.tolist(), names) == ([1, -1, 0, -1], ("1", "2.5"))
    assert coded("a.npz", "x", np.array([], dtype="U1"))[1] == ()


def test_numbers() -> None:
    assert number_column("a.npz", "x", np.array([True, False])).tolist() == [1, 0]
    assert number_column("a.npz", "x", np.array(["1.5", "-2"])).tolist() == [1.5, -2]
    gaps = number_column("a.npz", "x", np.array(["1", "", "3"]))
    np.testing.assert_array_equal(gaps, [1, np.nan, 3])
    text = "a.npz:row 1: array 'x' holds 'two', not a number"
    assert fault(number_column, np.array(["1", "two", "a"])) == text


def test_times_are_seconds_since_1970() -> None:
    moment = datetime.datetime(2024, 3, 1, 12, tzinfo=datetime.UTC).timestamp()
    for unit in ("h", "s", "ms", "ns"):
        values = np.array(["2024-03-01T12", "NaT"], dtype=f"M8[{unit}]")
        np.testing.assert_array_equal(time_column("a.npz", "x", values), [moment, np.nan])
    texts = np.array(["2024-03-01T12:00:00", "", "2024-03-01T13:00:00+01:00", str(int(moment))])
    np.testing.assert_array_equal(time_column("a.npz", "x", texts), [moment, np.nan, moment, moment])
    assert time_column("a.npz", "x", np.array([3, 4])).tolist() == [3, 4]
    text = "a.npz:row 2: array 'x' holds 'soon', not a number or a date such as 2024-03-01"
    assert fault(time_column, np.array(["1", "2", "soon"])) == text


def test_labels_keep_every_value_whatever_their_type() -> None:
    for values in (
        np.array([0, 127, -128]), np.array([0, 128]), np.array([2**40, -(2**40)]), np.array([2**63 - 1], np.uint64),
        np.array([0.1, 1e300]), np.array([0.5, 3.0]),
    ):  # fmt: skip
        found, _, _ = label_column("a.npz", "x", values, "numbers")
        assert found.tolist() == values.tolist()
