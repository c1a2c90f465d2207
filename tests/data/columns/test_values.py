from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data.columns.numbers import inexact, inexact_row, numbers
from mtl.data.columns.times import times
from mtl.data.columns.values import Codes, lists_of_text, texts, vectors
from mtl.data.files.table import MemoryTable
from mtl.errors import UserError

FILE = MemoryTable(pa.table({"v": [0]}))
NAN = float("nan")
BIG = 2**53 + 1


def message(read: object, array: pa.Array, *more: object) -> str:
    with pytest.raises(UserError) as caught:
        read(FILE, "v", 100, array, *more)  # type: ignore[operator]
    return str(caught.value)


def half(values: list[float]) -> pa.Array:
    return pa.array(np.array(values, np.float16))


# --- numbers ---


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array(["1", "-2.5", " 3e2 ", "+4", ".5", "5.", None, "1e-400"]), [1, -2.5, 300, 4, 0.5, 5, NAN, 0]),
        (pa.array(["1", None], pa.large_string()), [1, NAN]),
        (pa.array(["1", None], pa.string_view()), [1, NAN]),
        (pa.array([b"1", b"2"]), [1, 2]),
        (pa.array(["7", "8", "7"]).dictionary_encode(), [7, 8, 7]),
        (pa.array([7, None, 7]).dictionary_encode(), [7, NAN, 7]),
        (pa.array([1, None, 255], pa.uint8()), [1, NAN, 255]),
        (pa.array([BIG, -BIG], pa.int64()), [2.0**53, -(2.0**53)]),
        (pa.array([2**64 - 1], pa.uint64()), [2.0**64]),
        (pa.array([True, False, None]), [1, 0, NAN]),
        (pa.array([1.5, NAN, None]), [1.5, NAN, NAN]),
        (pa.array([0.1], pa.float32()), [float(np.float32(0.1))]),
        (half([1.5, -2]), [1.5, -2]),
        (pa.array([Decimal("1.25"), None]), [1.25, NAN]),
        (pa.array([Decimal("1e30")], pa.decimal256(50, 2)), [1e30]),
        (pa.nulls(2), [NAN, NAN]),
        (pa.array([], pa.string()), []),
        (pa.array(["9", "1", "2", "9"]).slice(1, 2), [1, 2]),
    ],
)  # fmt: skip
def test_numbers(array: pa.Array, expected: list[float]) -> None:
    found = numbers(FILE, "v", 0, array)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "text", ["abc", "1,5", "1_0", "0x1F", "1 2", "--1", "", " ", "1e", "\u0661", "1.2.3"]
)
def test_no_number(text: str) -> None:
    """The first of several; its row is that of the file."""
    expected = (
        f"table:row 103, column 'v': {text!r} is not a number; if it stands for a missing value, add it"
    )
    assert message(numbers, pa.array(["1", None, "2", text, "4", "x", "5"])).startswith(expected)


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e999"])
def test_a_text_that_is_not_finite(text: str) -> None:
    assert message(numbers, pa.array(["1", None, text])).startswith(
        f"table:row 102, column 'v': {text!r} is not a finite number; if it stands for a missing value, add it to"
    )


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_an_infinite_number(kind: pa.DataType) -> None:
    array = pa.array(np.array([1, NAN, -np.inf], kind.to_pandas_dtype()), from_pandas=False)
    assert message(numbers, array) == "table:row 102, column 'v': -inf is not a finite number"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**25), 10**25), max_size=5)
)
def test_numbers_as_python_reads_them(values: list[float]) -> None:
    found = numbers(FILE, "v", 0, pa.array([repr(value) for value in values], pa.string()))
    np.testing.assert_array_equal(found, np.array([float(repr(value)) for value in values]))


@pytest.mark.parametrize(
    ("values", "largest", "expected"),
    [
        ([1, 2**24, -(2**24)], np.inf, None),
        ([1, 2**24 + 1, 2**24 + 3], np.inf, 1),
        ([2**24 + 2, -(2**24) - 1], np.inf, 1),
        ([NAN, 1e300, 16777217.5], np.inf, 1),
        ([NAN, 1e300, 16777217.5], 2.0**53, None),
        ([2.0**53 - 1], 2.0**53, 0),
        ([2.0**60], np.inf, None),
        ([], np.inf, None),
    ],
)
def test_inexact(values: list[float], largest: float, expected: int | None) -> None:
    assert inexact(np.array(values, np.float64), largest) == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, 2**24, 2**24 + 1]), 2),
        (pa.array([2**53, BIG]), 1),  # float64 makes them the same, and float32 holds it
        (pa.array(["9007199254740992", None, " +9007199254740993 "]), 2),
        (pa.array(["-9007199254740993", "16777217"]), 0),
        (pa.array(["16777217", "-9007199254740993"]), 0),
        (pa.array(["9.007199254740992e15", "1180591620717411303424"]), None),  # 2^70
        (pa.array([2**64 - 1, 2**63], pa.uint64()), 0),
        (pa.array([2**63], pa.uint64()), None),
        (pa.array([2.0**53, 2.0**70 + 2.0**30]), None),
        (pa.array([2.0**24 + 1]), 0),
        (pa.nulls(2, pa.string()), None),
    ],
)
def test_a_whole_number_is_compared_as_it_is_written(array: pa.Array, expected: int | None) -> None:
    assert inexact_row(FILE, "v", 100, array) == expected


# --- texts ---


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array(["a", "", None, "NA", "ä\n"]), ["a", "", None, "NA", "ä\n"]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array([b"a", "ä".encode(), None]), ["a", "ä", None]),
        (pa.array([b"ab"], pa.binary(2)), ["ab"]),
        (pa.array(["b", "a", None]).dictionary_encode(), ["b", "a", None]),
        (pa.array([7, -7, None]), ["7", "-7", None]),
        (pa.array([BIG]), ["9007199254740993"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([7.0, 7.5, NAN, None, -0.0, 1e300]), ["7", "7.5", None, None, "0", "1e+300"]),
        (pa.array([1e7, 2.0**53 - 1, -123456789012.0]), ["10000000", "9007199254740991", "-123456789012"]),
        (pa.array([0.1, 3.0, 2.0**25], pa.float32()), ["0.1", "3", "33554432"]),
        (half([1.5, 2]), ["1.5", "2"]),
        (pa.array([Decimal("7.00"), Decimal("7.50"), None]), ["7", "7.50", None]),
        (pa.array([Decimal("100")]), ["100"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([date(2024, 3, 1)]), ["2024-03-01"]),
        (pa.nulls(1), [None]),
    ],
)
def test_texts(array: pa.Array, expected: list[str | None]) -> None:
    found = texts(FILE, "v", 0, array)
    assert found.type == pa.string()
    assert found.to_pylist() == expected


def test_a_number_has_one_text_whatever_stands_around_it() -> None:
    """A class must not change its name because another batch of the file has a fraction in it."""
    alone = texts(FILE, "v", 0, pa.array([7.0, 8.0])).to_pylist()
    beside = texts(FILE, "v", 0, pa.array([7.0, 8.0, 8.5, 1e300])).to_pylist()
    assert alone == beside[:2] == ["7", "8"]


@pytest.mark.parametrize(
    ("array", "held"),
    [
        (pa.array([[1]]), "list"),
        (pa.array([[1]], pa.list_(pa.int8(), 1)), "fixed_size_list"),
        (pa.array([{"\x1b": 1}]), "struct"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), "map"),
        (pa.array([timedelta(1)]), "duration"),
    ],
)
def test_compound_values(array: pa.Array, held: str) -> None:
    """The name of a type does not hold the names of its fields, which are the user's."""
    where = "table:row 100, column 'v'"
    assert message(texts, array) == f"{where}: holds {held} values, not single ones"
    assert message(numbers, array) == f"{where}: holds {held} values, not numbers"
    assert message(times, array) == f"{where}: holds {held} values, not numbers"


def test_text_that_is_no_utf_8() -> None:
    array = pa.array([b"a"] * 70 + [b"\xff", b"b", b"\xfe"])
    assert message(texts, array) == "table:row 170, column 'v': not UTF-8 text"


# --- vectors ---


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["[1, 2.5]", " [-3,4e0] "]),
        pa.array(["[1, 2.5]", "[-3, 4]"], pa.large_string()),
        pa.array([[1, 2.5], [-3, 4]]),
        pa.array([[1, 2.5], [-3, 4]], pa.large_list(pa.float32())),
        pa.array([[1, 2.5], [-3, 4]], pa.list_(pa.float16(), 2)),
        pa.array([[Decimal("1.0"), Decimal("2.5")], [Decimal("-3.0"), Decimal("4.0")]]),
        pa.array([[9, 9], [1, 2.5], [-3, 4]]).slice(1),
        pa.array([[9, 9], [1, 2.5], [-3, 4]], pa.list_(pa.float64(), 2)).slice(1),
    ],
)
@pytest.mark.parametrize("width", [None, 2])
def test_vectors(array: pa.Array, width: int | None) -> None:
    found = vectors(FILE, "v", 0, array, width)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1, 2.5], [-3, 4]])


def test_a_batch_without_rows_of_vectors() -> None:
    assert vectors(FILE, "v", 0, pa.array([], pa.string()), 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 2", "'1 2' is not a list of numbers such as [1, 2.5]"),
        ("{}", "'{}' is not a list of numbers such as [1, 2.5]"),
        ("[1, null]", "'[1, null]' is not a list of numbers such as [1, 2.5]"),
        ('["1", 2]', "'[\"1\", 2]' is not a list of numbers such as [1, 2.5]"),
        (f"[{'9' * 400}, 1]", f"'[{'9' * 34}...' is not a list of numbers such as [1, 2.5]"),
        (f"[{'9' * 5000}, 1]", f"'[{'9' * 34}...' is not a list of numbers such as [1, 2.5]"),
        ("[" * 100_000, "'" + "[" * 35 + "...' is not a list of numbers such as [1, 2.5]"),
        ("[NaN, 1]", "the vector holds a number that is not finite in float32"),
        ("[1e400, 1]", "the vector holds a number that is not finite in float32"),
        ("[1e39, 1]", "the vector holds a number that is not finite in float32"),
        ("[1]", "the vector has 1 number, the first one 2"),
        ("[]", "the vector has 0 numbers, the first one 2"),
        (None, "the vector is missing; remove the row or fill it"),
    ],
)
def test_no_vector(text: str | None, what: str) -> None:
    assert message(vectors, pa.array(["[1, 2]", text, "x"][: 3 if text == "1 2" else 2]), None) == (
        f"table:row 101, column 'v': {what}"
    )


@pytest.mark.parametrize(("value", "what"), [(None, "missing"), (NAN, "not finite in float32")])
def test_a_vector_with_a_hole(value: float | None, what: str) -> None:
    array = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, value], [None, None]])
    assert (
        message(vectors, array, 2) == f"table:row 102, column 'v': the vector holds a number that is {what}"
    )


# --- lists of labels ---


@pytest.mark.parametrize(
    ("array", "separator", "expected"),
    [
        (pa.array(["a|b", "", None, " c | |a", "a|a"]), "|", [["a", "b"], [], None, ["c", "a"], ["a", "a"]]),
        (pa.array(["a, b", "c"]), ",", [["a", "b"], ["c"]]),
        (pa.array(["a.b", "axb"]), ".", [["a", "b"], ["axb"]]),
        (pa.array(["a::b"]), "::", [["a", "b"]]),
        (pa.array([["a", None, "b|c"], [], None, [""]]), "|", [["a", "b|c"], [], None, []]),
        (pa.array([[1, 2], [3]]), "|", [["1", "2"], ["3"]]),
        (pa.array([[1.0, 2.5], [3.0]], pa.large_list(pa.float64())), "|", [["1", "2.5"], ["3"]]),
        (pa.array([["a", "b"], None, ["c", "a"]], pa.list_(pa.string(), 2)), "|", [["a", "b"], None, ["c", "a"]]),
        (pa.array([["x"], ["a"], None, ["b", "c"]]).slice(1), "|", [["a"], None, ["b", "c"]]),
        (pa.array([["x", "y"], ["a", "b"]], pa.list_(pa.string(), 2)).slice(1), "|", [["a", "b"]]),
        (pa.array([True, None]), "|", [["true"], None]),
        (pa.nulls(2), "|", [None, None]),
        (pa.array([], pa.string()), "|", []),
    ],
)  # fmt: skip
def test_lists_of_text(array: pa.Array, separator: str, expected: list[list[str] | None]) -> None:
    there, rows, labels = lists_of_text(FILE, "v", 0, array, separator, "none")
    found: list[list[str] | None] = [[] if is_there else None for is_there in there.tolist()]
    for row, label in zip(rows.tolist(), labels.to_pylist(), strict=True):
        own = found[row]
        assert own is not None
        own.append(label)
    assert found == expected


# --- codes ---


@pytest.mark.parametrize(
    ("batches", "names"),
    [
        ([["b", None, "a"], ["c", "b"]], ("a", "b", "c")),
        ([["10", "9"], ["-1", "09", "9"]], ("-1", "09", "9", "10")),
        ([["10", "9"], ["x"]], ("10", "9", "x")),
        ([["10", "9.5"]], ("10", "9.5")),
        ([["Z", "a", "ä", "A"]], ("A", "Z", "a", "ä")),
        ([["-", "1"]], ("-", "1")),
        ([["²", "1"]], ("1", "²")),
        ([["9" * 5000, "1"]], ("1", "9" * 5000)),
        ([[None, None]], ()),
    ],
)
def test_codes(batches: list[list[str | None]], names: tuple[str, ...]) -> None:
    """The stable order, and codes that lead back to the values."""
    codes = Codes("v", 100)
    parts = [codes.add(pa.array(batch, pa.string())) for batch in batches]
    found, renumbered = codes.finish()
    assert found == names
    values = [found[renumbered[code]] if code >= 0 else None for part in parts for code in part.tolist()]
    assert values == [value for batch in batches for value in batch]


def test_the_order_of_values_does_not_depend_on_that_of_rows() -> None:
    found = set()
    for rows in (["b", "a", "c"], ["c", "b", "a"], ["a", "b", "c"]):
        codes = Codes("v", 3)
        codes.add(pa.array(rows))
        found.add(codes.finish()[0])
    assert found == {("a", "b", "c")}


def test_too_many_values() -> None:
    codes = Codes("v", 3)
    codes.add(pa.array(["a", "b", "c"]))
    codes.add(pa.array(["c", None, "b"]))
    with pytest.raises(UserError) as caught:
        codes.add(pa.array(["d"]))
    assert str(caught.value) == (
        "column 'v' has more than 3 distinct values; is it an id, a number or free text?"
    )
