from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data.columns import labels as module
from mtl.data.columns.labels import by_name, class_codes, found_classes, narrow, shown_value, written
from mtl.data.types import Labels
from mtl.errors import UserError


def labels(
    values: object, there: object = True, names: tuple[str, ...] | None = None, kind: type | None = None
) -> Labels:
    array = np.asarray(values, kind)
    present = np.broadcast_to(np.asarray(there, bool), array.shape)
    return Labels(array, present, names, names is not None, lambda row: f"t.csv:row {row + 2}")


# --- narrow ---


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 127, -128], np.int8), ([128], np.int16), ([-129], np.int16), ([32767], np.int16), ([32768], np.int32),
        ([-(2**31)], np.int32), ([2**31], np.int64),
    ],
)  # fmt: skip
def test_whole_numbers_take_the_smallest_type(values: list[int], kind: type) -> None:
    narrowed = narrow(np.array(values, np.int64))
    assert narrowed.dtype == kind
    assert narrowed.tolist() == values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, np.nan, np.inf], np.float32), ([0.1], np.float64), ([2.0**24, 1.0], np.float32),
        ([2.0**24 + 1], np.float64), ([1e300], np.float64), ([], np.float32),
    ],
)  # fmt: skip
def test_floats_stay_exact(values: list[float], kind: type) -> None:
    narrowed = narrow(np.array(values, np.float64))
    assert narrowed.dtype == kind
    np.testing.assert_array_equal(narrowed, values)


def test_what_is_not_narrowed() -> None:
    assert narrow(np.array([], np.int64)).dtype == np.int64
    assert narrow(np.array([True])).dtype == np.bool_
    assert narrow(np.array([2**63], np.uint64)).dtype == np.uint64


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_narrow_keeps_every_number(values: list[int]) -> None:
    assert narrow(np.array(values, np.int64)).tolist() == values


# --- classes ---


def test_classes_of_raw_values() -> None:
    codes = class_codes(labels([7, 5, 7, 300, 5]), {5: 0, 7: 1, 300: 2}, "5, 7, 300")
    assert codes.tolist() == [1, 0, 1, 2, 0]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.float32, np.float64])
def test_the_type_of_raw_values_does_not_matter(kind: type) -> None:
    """Nor that a class was never seen whose raw value the type cannot hold."""
    lookup = {300: 0, 1: 1, 2**40: 2, 3: 3}
    assert class_codes(labels([3, 1, 1], kind=kind), lookup, "").tolist() == [3, 1, 1]


@pytest.mark.parametrize("filler", [0, -1, np.nan, 99])
def test_a_missing_label_has_any_class(filler: float) -> None:
    codes = class_codes(labels([1, filler, 2], [True, False, True]), {1: 5, 2: 6}, "")
    assert codes[[0, 2]].tolist() == [5, 6]
    assert 0 <= codes[1] <= 6
    none = class_codes(labels([filler, filler], False), {1: 5}, "")
    assert none.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("values", "names", "lookup", "message"),
    [
        ([0, 9, 10, 11], None, {i: i for i in range(10)}, "t.csv:row 4: target: label 10, allowed X"),
        ([0, -1], None, {0: 0, 1: 1}, "t.csv:row 3: target: label -1, allowed X"),
        ([0.0, 1.5], None, {0: 0, 1: 1}, "t.csv:row 3: target: label 1.5, allowed X"),
        ([0.0, np.inf], None, {0: 0, 1: 1}, "t.csv:row 3: target: label inf, allowed X"),
        ([0, 2], ("a", "b", "c\n"), {0: 0, 1: 1}, "t.csv:row 3: target: label 'c\\n', allowed X"),
    ],
)  # fmt: skip
def test_a_label_without_a_class(
    values: list[float], names: tuple[str, ...] | None, lookup: Mapping[int, int], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        class_codes(labels(values, names=names), lookup, "X")
    assert str(caught.value) == message


def test_the_first_row_that_is_present_is_named() -> None:
    with pytest.raises(UserError, match=r"^t\.csv:row 4: target: label 8,"):
        class_codes(labels([9, 1, 8, 9], [False, True, True, True]), {1: 0}, "1")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(-5, 300), min_size=1, max_size=20), st.data())
def test_classes_as_a_dictionary_gives_them(values: list[int], data: st.DataObject) -> None:
    there = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    lookup = {value: code for code, value in enumerate(dict.fromkeys(values))}
    codes = class_codes(labels(values, there), lookup, "")
    assert [c for c, is_there in zip(codes.tolist(), there, strict=True) if is_there] == [
        lookup[v] for v, is_there in zip(values, there, strict=True) if is_there
    ]


# --- found classes ---


@pytest.mark.parametrize(
    ("values", "there", "classes"),
    [
        ([3, 1, 10, 3], True, ("1", "3", "10")),
        ([3, 1, 99, 3], [True, True, False, True], ("1", "3")),
        ([-1.0, np.nan, 2.0], [True, False, True], ("-1", "2")),
        ([BIG := 2**53 + 1, BIG + 1], True, ("9007199254740993", "9007199254740994")),
    ],
)
def test_found_classes(values: list[float], there: object, classes: tuple[str, ...]) -> None:
    assert found_classes(labels(values, there)) == classes


@pytest.mark.parametrize(
    ("values", "there", "message"),
    [
        ([1, 2, 1.5, 2.5], True, "t.csv:row 4: target: label 1.5 is not a whole number; use kind: regression for a "
         "quantity"),
        ([1, 2, np.inf], True, "t.csv:row 4: target: label inf is not a whole number; use kind: regression for a "
         "quantity"),
        ([4, 4], True, "target: the only class is 4: nothing to learn"),
        ([4, 5], False, "target: there is no label at all: nothing to learn"),
    ],
)  # fmt: skip
def test_no_classes(values: list[float], there: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        found_classes(labels(values, there))
    assert str(caught.value) == message


def test_too_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLASSES", 3)
    assert len(found_classes(labels([0, 1, 2]))) == 3
    with pytest.raises(UserError, match=r"^target: 4 distinct labels; at most 3 classes$"):
        found_classes(labels([0, 1, 2, 3]))


# --- words ---


def test_by_name() -> None:
    """Codes of the source -> classes of the task, which may be fewer and in another order."""
    assert by_name(("a", "b", "c"), ("c", "a")) == {0: 1, 2: 0}
    assert by_name((), ("c",)) == {}


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (False, "false"), (7, "7"), ("Yes", "Yes"), (1.5, "1.5")]
)
def test_written(value: object, text: str) -> None:
    assert written(value) == text


@pytest.mark.parametrize(
    ("values", "names", "shown"),
    [([7], None, "7"), ([1], ("no", "yes"), "'yes'"), ([5], ("no", "yes"), "5"), ([-1], ("no", "yes"), "-1")],
)
def test_shown_value(values: npt.ArrayLike, names: tuple[str, ...] | None, shown: str) -> None:
    assert shown_value(labels(values, names=names), 0) == shown
