"""Several sources as one: the same rows, classes and categories as one file of all their rows would give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtl.data.types import Columns, Header, Labels, Layout
from mtl.dataset.header import joined_header
from mtl.dataset.join import join
from mtl.errors import UserError

HEADER = Header((2,), {"x": None, "y": None})


def source(n: int = 3, **changes: Any) -> Columns:
    values: dict[str, Any] = {
        "inputs": np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        "labels": {},
        "splits": {},
        "fingerprint": "f" * 64,
    }
    return Columns(**{**values, **changes})


def with_text(column: str, codes: list[int], names: tuple[str, ...], **changes: Any) -> Columns:
    """A source whose column holds texts, as a table reads them: codes in their order, -1 for a missing one."""
    values = np.array(codes, np.int8)
    header = Header((2,), {column: names}, text=frozenset({column}))
    present = {} if (values >= 0).all() else {column: values >= 0}
    return source(len(codes), labels={column: values}, header=header, present=present, **changes)


def with_numbers(column: str, values: list[float], **changes: Any) -> Columns:
    array = np.array(values)
    present = {column: np.isfinite(array)} if array.dtype.kind == "f" else {}
    header = Header((2,), {column: None})
    return source(len(values), labels={column: array}, present=present, header=header, **changes)


def shown(labels: Labels) -> list[object]:
    """Each row's label as its user wrote it; None where it is missing."""
    values = labels.values.tolist()
    if labels.text:
        assert labels.names is not None
        values = [labels.names[code] if code >= 0 else None for code in values]
    return [value if there else None for value, there in zip(values, labels.present, strict=True)]


# --- rows -------------------------------------------------------------------------------------------------


def test_a_single_source_is_taken_as_it_is() -> None:
    only = source(splits={"train": np.arange(2), "test": np.array([2])})
    joined = join({"": only})
    assert joined.inputs is only.inputs
    assert joined.splits is only.splits
    assert joined.fingerprint == only.fingerprint
    assert joined.streams() == {"": range(3)}


def test_rows_stand_one_after_the_other() -> None:
    sources = {"a": source(3), "b": source(2), "c": source(4)}
    whole = np.concatenate([columns.inputs for columns in sources.values()])
    joined = join(sources)
    np.testing.assert_array_equal(joined.inputs, whole)
    assert joined.streams() == {"a": range(3), "b": range(3, 5), "c": range(5, 9)}
    assert joined.n_rows == 9


def test_inputs_are_held_once() -> None:
    sources = {"a": source(3), "b": source(2)}
    joined = join(sources)
    for name, rows in joined.streams().items():
        assert np.shares_memory(sources[name].inputs, joined.inputs)
        assert sources[name].inputs.base is joined.inputs
        np.testing.assert_array_equal(sources[name].inputs, joined.inputs[rows.start : rows.stop])


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [("uint8", "uint8", "uint8"), ("uint8", "float32", "float32"), ("float32", "float64", "float64")],
)
def test_inputs_of_several_types_keep_their_values(one: str, other: str, both: str) -> None:
    values = [np.array([[1, 250]], one), np.array([[3, 4]], other)]
    joined = join({"a": source(1, inputs=values[0]), "b": source(1, inputs=values[1])})
    assert joined.inputs.dtype == both
    assert joined.inputs.tolist() == [[1, 250], [3, 4]]


def test_rows_are_named_as_their_source_names_them() -> None:
    joined = join({"a": source(3, place="a.csv:row {}".format), "b": source(2), "c": source(2)})
    places = [joined.place(row) for row in (0, 2, 3, 4, 5)]
    assert places == [
        "a.csv:row 0",
        "a.csv:row 2",
        "source 'b', row 0",
        "source 'b', row 1",
        "source 'c', row 0",
    ]
    assert join({"": source(3)}).place(2) == "row 2"


def test_the_fingerprint_is_that_of_all_sources_by_name() -> None:
    one, two = source(), source(fingerprint="e" * 64)
    marks = [
        join(dict(sources)).fingerprint
        for sources in (
            {"a": one, "b": two},
            {"a": two, "b": one},
            {"a": one, "c": two},
            {"a": one, "b": one},
        )
    ]
    assert len(set(marks)) == 4
    assert join({"a": one, "b": two}).fingerprint == marks[0]


# --- splits -----------------------------------------------------------------------------------------------


def test_given_splits_are_shifted() -> None:
    one = source(3, splits={"train": np.array([0, 2]), "test": np.array([1])})
    two = source(4, splits={"train": np.array([0]), "validation": np.array([1]), "test": np.array([2, 3])})
    splits = join({"a": one, "b": two}).splits
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        "train": [0, 2, 3],
        "test": [1, 5, 6],
        "validation": [4],
    }


def test_rows_of_a_source_without_splits_are_for_training_where_others_have_some() -> None:
    one = source(3, splits={"train": np.array([0, 1]), "test": np.array([2])})
    tested = source(3, splits={"test": np.array([1])})
    splits = join({"a": source(2), "b": one, "c": tested}).splits
    assert {name: sorted(rows.tolist()) for name, rows in splits.items()} == {
        "train": [0, 1, 2, 3, 5, 7],
        "test": [4, 6],
    }
    assert join({"a": source(2), "b": source(3)}).splits == {}


# --- labels -----------------------------------------------------------------------------------------------


def test_a_label_is_missing_where_its_source_has_none() -> None:
    joined = join({"a": with_numbers("x", [5, 6]), "b": with_numbers("y", [1.5, np.nan, 2.5])})
    assert shown(joined.labels(["x"], None, HEADER)) == [5, 6, None, None, None]
    assert shown(joined.labels(["y"], None, HEADER)) == [None, None, 1.5, None, 2.5]
    both = joined.labels(["x", "y"], None, HEADER)
    assert both.values.shape == both.present.shape == (5, 2)
    assert both.present.tolist() == [[True, False]] * 2 + [[False, True], [False, False], [False, True]]
    assert both.place(3) == "source 'b', row 1"


def test_texts_of_several_sources_are_joined_in_their_stable_order() -> None:
    joined = join(
        {
            "a": with_text("x", [0, 1, -1], ("cat", "elk")),
            "b": with_text("x", [1, 0], ("bee", "cat")),
            "c": source(1),
        }
    )
    labels = joined.labels(["x"], None, HEADER)
    assert labels.names == ("bee", "cat", "elk")
    assert shown(labels) == ["cat", "elk", None, "cat", "bee", None]
    turned = join({name: joined.sources[name] for name in ("b", "c", "a")})
    assert turned.labels(["x"], None, HEADER).names == labels.names
    assert joined.called("x", None, HEADER) == (labels.names, True)


def test_whole_numbers_as_text_are_ordered_as_numbers() -> None:
    one = with_text("x", [0, 1], ("2", "10"))
    two = with_text("x", [0, 1], ("9", "100"))
    joined = join({"a": one, "b": two})
    assert joined.labels(["x"], None, HEADER).names == ("2", "9", "10", "100")


@pytest.mark.parametrize("numbers", [[7, 10, 7], [7.0, 10.0, np.nan]])
def test_numbers_in_one_source_and_text_in_another(numbers: list[float]) -> None:
    """A file in which every label happens to be a number is read as numbers; the column is text all the same."""
    joined = join({"a": with_numbers("x", numbers), "b": with_text("x", [0, 1], ("10", "?"))})
    labels = joined.labels(["x"], None, HEADER)
    assert labels.names == ("10", "7", "?")
    assert shown(labels) == ["7", "10", None if np.isnan(numbers[2]) else "7", "10", "?"]
    alone = joined.labels(["x"], "a", HEADER)
    assert (alone.names, alone.text) == (None, False)
    assert shown(alone)[:2] == [7, 10]
    assert shown(alone)[3:] == [None, None]


def test_a_source_in_which_all_labels_are_missing_says_nothing_of_the_others() -> None:
    joined = join({"a": with_text("x", [-1, -1], ()), "b": with_numbers("x", [3, 5])})
    labels = joined.labels(["x"], None, HEADER)
    assert (labels.names, labels.text) == (None, False)
    assert shown(labels) == [None, None, 3, 5]


def test_a_task_of_one_source_sees_no_other_source() -> None:
    joined = join({"a": with_text("x", [0, 1], ("cat", "elk")), "b": with_text("x", [0, 0], ("bee",))})
    for name, names, seen in (
        ("a", ("cat", "elk"), ["cat", "elk", None, None]),
        ("b", ("bee",), [None, None, "bee", "bee"]),
    ):
        labels = joined.labels(["x"], name, HEADER)
        assert labels.names == names
        assert shown(labels) == seen


def test_lists_of_labels_move_their_columns() -> None:
    one = with_text("x", [0, 0], ("film", "music"))
    two = with_text("x", [0], ("art", "music"))
    one = replace(one, labels={"x": np.array([[1, 0], [1, 1]], np.int8)})
    two = replace(two, labels={"x": np.array([[1, 1]], np.int8)})
    labels = join({"a": one, "b": two, "c": source(1)}).labels(["x"], None, HEADER)
    assert labels.names == ("art", "film", "music")
    assert labels.values.tolist() == [[0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0]]
    assert labels.present.tolist() == [[True] * 3] * 3 + [[False] * 3]
    single = with_text("x", [0], ("art",))
    with pytest.raises(UserError) as caught:
        join({"a": one, "b": single}).labels(["x"], None, HEADER)
    assert str(caught.value) == (
        "target: column 'x' lists labels in one source and holds single ones in another"
    )


def test_classes_that_sources_name_otherwise() -> None:
    """Raw values of which each source says what they are called: pooled, they would be mistaken."""
    named = [replace(source(2, labels={"x": np.array([0, 1])}), header=Header((2,), {"x": names}))
             for names in (("cat", "dog"), ("dog", "cat"), ("cat", "dog"))]  # fmt: skip
    joined = join({"a": named[0], "b": named[1]})
    with pytest.raises(UserError) as caught:
        joined.labels(["x"], None, HEADER)
    assert str(caught.value) == (
        "target: sources 'a' and 'b' have other classes in column 'x'; give each task the source that it learns from"
    )
    assert joined.labels(["x"], "b", HEADER).names == ("dog", "cat")
    assert join({"a": named[0], "c": named[2]}).labels(["x"], None, HEADER).names == ("cat", "dog")
    unknown = with_numbers("x", [0, 5])
    assert join({"a": named[0], "d": unknown}).labels(["x"], None, HEADER).names is None


def test_a_column_that_no_source_has() -> None:
    joined = join({"a": with_numbers("x", [1]), "b": source(1)})
    for of, text in ((None, "target: no column 'z'"), ("b", "target: no column 'z' in source 'b'")):
        with pytest.raises(UserError) as caught:
            joined.labels(["z"], of, HEADER)
        assert str(caught.value) == text
    with pytest.raises(UserError, match="no column 'z' in the data"):
        joined.extra("z")


# --- further columns --------------------------------------------------------------------------------------


def test_codes_of_several_sources_mean_the_same() -> None:
    one = source(3, extra={"who": np.array([0, 1, -1])}, extra_names={"who": ("ann", "bob")})
    two = source(2, extra={"who": np.array([0, 1])}, extra_names={"who": ("abe", "bob")})
    codes, names = join({"a": one, "b": two, "c": source(1)}).extra("who")
    assert names == ("abe", "ann", "bob")
    assert codes.tolist() == [1, 2, -1, 0, 2, -1]
    alone, names = join({"a": one}).extra("who")
    assert alone is one.extra["who"]
    assert names == ("ann", "bob")


def test_numbers_of_several_sources() -> None:
    one = source(2, extra={"w": np.array([1, 2], np.int8)})
    values, names = join({"a": source(1), "b": one}).extra("w")
    assert names is None
    np.testing.assert_array_equal(values, [np.nan, 1, 2])


def test_units_of_several_sources_are_kept_apart() -> None:
    """Whatever codes they have."""
    one = source(4, units=np.array([900, 7, 900, 0]))
    units = join({"a": one, "b": source(2), "c": one}).units()
    assert units is not None
    assert (units[:, np.newaxis] == units).sum(axis=1).tolist() == [2, 1, 2, 1, 1, 1, 2, 1, 2, 1]
    assert join({"a": source(2), "b": source(3)}).units() is None


# --- categories -------------------------------------------------------------------------------------------


def with_category(codes: list[int], values: tuple[str, ...]) -> Columns:
    layout = Layout(("u",), categorical=("c",), values={"c": values})
    inputs = np.column_stack([np.ones(len(codes)), codes]).astype(np.float32)
    return source(len(codes), inputs=inputs, header=Header((2,), {}, layout=layout))


def test_categories_of_several_sources_mean_the_same() -> None:
    joined = join({"a": with_category([1, 2, 0], ("p", "r")), "b": with_category([2, 1], ("q", "r"))})
    assert joined.layout is not None
    assert joined.layout.values == {"c": ("p", "q", "r")}
    assert joined.inputs[:, 1].tolist() == [1, 3, 0, 3, 2]
    numbers = join({"a": with_category([1], ("10",)), "b": with_category([1], ("9",))})
    assert numbers.layout is not None
    assert numbers.layout.values == {"c": ("9", "10")}


# --- headers ----------------------------------------------------------------------------------------------

TABLE = Layout(("u", "v"), categorical=("c",))


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (Header((4,), {}), "source 'b' gives inputs of shape (4,), source 'a' (3,)"),
        (Header((3,), {}), "source 'b' gives inputs of shape (3,), source 'a' (3,)"),
        (
            Header((3,), {}, layout=Layout(("u", "w"), categorical=("c",))),
            "source 'b' gives inputs.numeric 'u', 'w', source 'a' 'u', 'v'",
        ),
        (
            Header((3,), {}, layout=Layout(("u", "v", "c"))),
            "source 'b' gives inputs.numeric 'u', 'v', 'c', source 'a' 'u', 'v'",
        ),
        (
            Header((2,), {}, layout=Layout(("u", "v"))),
            "source 'b' gives inputs.categorical none, source 'a' 'c'",
        ),
        (
            Header((3,), {}, layout=replace(TABLE, missing="mean")),
            "source 'b' gives inputs.missing 'mean', source 'a' 'error'",
        ),
    ],
)
def test_sources_of_different_inputs(other: Header, text: str) -> None:
    with pytest.raises(UserError) as caught:
        joined_header({"a": Header((3,), {}, layout=TABLE), "b": other})
    assert str(caught.value) == f"data.sources.b: {text}: one network reads one kind of input"


def test_what_is_known_of_all_before_rows_are_read() -> None:
    one = Header((2,), {"x": ("p", "q"), "y": None, "z": ("0", "1")}, {"train": 5, "test": 2}, note="made up")
    two = Header(
        (2,), {"x": ("p", "q"), "y": ("n",), "w": None}, {"train": 3}, note="made up", columns=("x", "k")
    )
    three = Header((2,), {"z": ("0", "1", "2")}, note="other")
    header = joined_header({"a": one, "b": two, "c": three})
    assert header.labels == {"x": ("p", "q"), "y": None, "z": None, "w": None}
    assert header.row_counts == {"train": 8, "test": 2}
    assert header.note == "made up; other"
    assert header.columns == ("x", "y", "z", "k")
    assert header.of(None) is header
    assert (header.of("a"), header.of("b"), header.of("c")) == (one, two, three)
    assert joined_header({"a": one}) is one
    assert one.of("a") is one
