from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from mtl.data.columns import inputs as table_inputs
from mtl.data.columns.inputs import KnownCodes, fit_layout, input_block
from mtl.data.columns.unseen import Unseen
from mtl.data.columns.values import Codes
from mtl.data.files.table import MemoryTable
from mtl.data.types import Layout
from mtl.errors import UserError

NAN = float("nan")
Float32 = npt.NDArray[np.float32]


def block(
    columns: Mapping[str, object], layout: Layout, coders: Mapping[str, Codes | KnownCodes], first: int = 0
) -> Float32:
    """The raw rows of one batch."""
    table = pa.table(dict(columns))
    (batch,) = table.to_batches()
    out = np.full((table.num_rows, layout.width), -99, np.float32)
    input_block(MemoryTable(table), batch, first, layout, coders, out)
    return out


def codes_of(values: tuple[str, ...]) -> KnownCodes:
    return KnownCodes(values, Unseen("c", ""))


def place(row: int) -> str:
    return f"t.csv:row {row + 2}"


def rows(*which: int) -> npt.NDArray[np.int64]:
    return np.array(which, np.int64)


# --- raw rows ---


def test_known_values() -> None:
    known = codes_of(("b", "a", "ä"))
    codes = known.add(pa.array(["a", "x", None, "b", "ä", ""]))
    assert codes.dtype == np.int32
    assert codes.tolist() == [1, -1, -1, 0, 2, -1]
    assert codes_of(()).add(pa.array(["a", None])).tolist() == [-1, -1]


def test_a_block() -> None:
    layout = Layout(("x", "y"), {"v": 2}, ("c", "d"))
    columns = {
        "d": [1.0, 2.0, None], "v": [[1, 2], [3, 4], [5, 6]], "y": ["7", None, "-8.5"], "c": ["b", "zz", "a"],
        "x": [True, False, None], "unused": [[]] * 3,
    }  # fmt: skip
    out = block(columns, layout, {"c": codes_of(("a", "b")), "d": codes_of(("1", "2"))})
    expected = [[1, 7, 1, 2, 2, 1], [0, NAN, 3, 4, 0, 2], [NAN, -8.5, 5, 6, 1, 0]]
    np.testing.assert_array_equal(out, np.array(expected, np.float32))


def test_a_value_first_seen_in_prediction_is_as_a_missing_one() -> None:
    """Nothing else of the row changes."""
    layout = Layout(("x",), categorical=("c",))
    coders = {"c": codes_of(("a", "b"))}
    np.testing.assert_array_equal(
        block({"x": [3], "c": ["new"]}, layout, coders),
        block({"x": [3], "c": pa.array([None], pa.string())}, layout, coders),
    )


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x", 1e39, "table:row 71, column 'x': the number is too large for float32; scale the column down"),
        ("y", -1e300, "table:row 71, column 'y': the number is too large for float32; scale the column down"),
        ("y", "z", "table:row 71, column 'y': 'z' is not a number"),
        ("v", [1, 2, 3], "table:row 71, column 'v': the vector has 3 numbers, the first one 2"),
        ("v", [1, 1e39], "table:row 71, column 'v': the vector holds a number that is not finite in float32"),
        ("c", "a" * 131_073, "table:row 71, column 'c': holds 131073 characters, at most 131072"),
    ],
)
def test_faults_of_a_block(column: str, value: object, message: str) -> None:
    sound: dict[str, object] = {
        "x": 1.0,
        "y": "1" if isinstance(value, str) else 1.0,
        "v": [1.0, 2.0],
        "c": "a",
    }
    columns = {name: [sound[name], value if name == column else sound[name]] for name in sound}
    with pytest.raises(UserError) as caught:
        block(columns, Layout(("x", "y"), {"v": 2}, ("c",)), {"c": Codes("c", 9)}, first=70)
    assert str(caught.value).startswith(message)


def test_the_length_of_a_text_is_that_of_its_characters() -> None:
    texts = ["ä" * 131_072, None, "b"]
    assert block({"c": texts}, Layout((), categorical=("c",)), {"c": Codes("c", 9)}).ravel().tolist() == [
        1,
        0,
        2,
    ]


def test_the_largest_float32_is_taken() -> None:
    largest = float(np.finfo(np.float32).max)
    assert block({"x": [largest, -largest]}, Layout(("x",)), {}).ravel().tolist() == [largest, -largest]


# --- what is learned of training rows ---

N = 211


def noisy(columns: int = 3, lacking: float = 0.2) -> Float32:
    """Numbers of several scales and offsets, some missing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, columns)) * 10.0 ** np.arange(columns) + 100 * np.arange(columns)
    x[rng.random((N, columns)) < lacking] = NAN
    return x.astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 10, 1 << 20])
@pytest.mark.parametrize("missing", ["mean", "median"])
def test_moments(missing: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As numpy's nanmean, nanstd and nanmedian over the training rows, however the rows are cut."""
    monkeypatch.setattr(table_inputs, "CHUNK", chunk)
    x = noisy()
    train = np.random.default_rng(1).permutation(N)[:150]
    layout = Layout(("a", "b", "c"), missing=missing, indicator=True)  # type: ignore[arg-type]
    before = x.copy()
    fitted, mean, std, fill, indicators = fit_layout(x, layout, train, np.arange(N), True, place)
    own = x[train].astype(np.float64)
    np.testing.assert_allclose(mean, np.nanmean(own, axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, np.nanstd(own, axis=0), rtol=1e-6)
    center = np.nanmean if missing == "mean" else np.nanmedian
    np.testing.assert_allclose(fill, center(own, axis=0), rtol=1e-6)
    assert {part.dtype for part in (mean, std, fill)} == {np.dtype(np.float32)}
    assert indicators == (0, 1, 2)
    assert fitted == layout
    np.testing.assert_array_equal(x, before)


def test_moments_of_a_far_offset() -> None:
    """Seconds since 1970: the sum of squares would leave no digits of a deviation of a day."""
    rng = np.random.default_rng(0)
    x = (1.7e9 + 86_400 * rng.normal(size=(N, 1))).astype(np.float32)
    _, mean, std, _, _ = fit_layout(x, Layout(("t",)), np.arange(N), np.arange(N), True, place)
    np.testing.assert_allclose(std, x.astype(np.float64).std(0), rtol=1e-6)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-40, -3e38, 1e7 / 3])
def test_a_constant_has_deviation_one(value: float) -> None:
    x = np.full((999, 1), value, np.float32)
    x[7] = NAN
    layout = Layout(("x",), missing="mean")
    _, mean, std, fill, _ = fit_layout(x, layout, np.arange(999), np.arange(999), True, place)
    assert std.tolist() == [1.0]
    assert mean.tolist() == fill.tolist() == [np.float32(value)]


def test_a_deviation_too_small_for_float32() -> None:
    """Not 0, which would make every input infinite."""
    x = np.zeros((1000, 1), np.float32)
    x[3] = np.float32(1e-45)
    _, _, std, _, _ = fit_layout(x, Layout(("x",)), np.arange(1000), np.arange(1000), True, place)
    assert std.tolist() == [1.0]


def test_extremes_do_not_overflow() -> None:
    largest = np.finfo(np.float32).max
    x = np.array([[largest], [-largest]], np.float32)
    _, mean, std, _, _ = fit_layout(x, Layout(("x",)), rows(0, 1), rows(0, 1), True, place)
    assert mean.tolist() == [0.0]
    assert std.tolist() == [float(largest)]


def test_without_scaling_the_fill_stays() -> None:
    x = np.array([[1.0], [NAN], [5.0]], np.float32)
    layout = Layout(("x",), missing="median")
    _, mean, std, fill, _ = fit_layout(x, layout, rows(0, 1, 2), rows(0, 1, 2), False, place)
    assert [mean.tolist(), std.tolist(), fill.tolist()] == [[0.0], [1.0], [3.0]]


def test_vectors_are_scaled_number_by_number() -> None:
    x = np.array([[1, 10, 3], [3, 30, 3], [5, 20, 3]], np.float32)
    layout = Layout(("a",), {"v": 2})
    _, mean, std, _, _ = fit_layout(x, layout, rows(0, 1), rows(0, 1, 2), True, place)
    assert mean.tolist() == [2, 20, 3]
    assert std.tolist() == [1, 10, 1]


@pytest.mark.parametrize(
    ("indicator", "train", "expected"),
    [(True, (0, 1, 2, 3), (1, 3)), (True, (0, 1), (3,)), (False, (0, 1, 2, 3), ())],
)
def test_indicators(indicator: bool, train: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Of those numbers alone that training rows lack: an indicator that is always 0 there teaches nothing."""
    x = np.ones((4, 4), np.float32)
    x[2, 1] = x[0, 3] = NAN
    layout = Layout(("a", "b", "c", "d"), missing="mean", indicator=indicator)
    *_, indicators = fit_layout(x, layout, rows(*train), np.arange(4), True, place)
    assert indicators == expected


def test_categories_of_training_rows() -> None:
    """Their values keep their order; those of other rows go where a value would that is first seen later."""
    known = ("10", "20", "30", "40")
    #                 number, code of c, code of d
    x = np.array([[0, 4, 1], [1, 2, 1], [2, 1, 2], [3, 0, 0], [4, 3, 1]], np.float32)
    layout = Layout(("x",), categorical=("c", "d"), values={"c": known, "d": ("p", "q")})
    fitted, *_ = fit_layout(x, layout, rows(0, 1, 3), np.arange(5), True, place)
    assert fitted.values == {"c": ("20", "40"), "d": ("p",)}
    assert x[:, 1].tolist() == [2, 1, 0, 0, 0]
    assert x[:, 2].tolist() == [1, 1, 0, 0, 1]
    assert replace(fitted, values=layout.values) == layout


@pytest.mark.parametrize("chunk", [1, 2, 1 << 20])
def test_a_missing_number_is_refused(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first in the order of rows, of the splits alone."""
    monkeypatch.setattr(table_inputs, "CHUNK", chunk)
    x = np.ones((6, 3), np.float32)
    x[0, 0] = x[3, 2] = x[4, 0] = NAN
    layout = Layout(("a",), {"v": 2})
    with pytest.raises(UserError) as caught:
        fit_layout(x, layout, rows(1, 2), rows(1, 2, 3, 4), True, place)
    assert str(caught.value) == (
        "t.csv:row 5, column 'v[1]': the value is missing; set inputs.missing: mean or median to fill it, "
        "or fill the file"
    )
    fit_layout(x, layout, rows(1, 2), rows(1, 2, 5), True, place)


def test_a_column_without_values_in_train() -> None:
    x = np.array([[1, NAN, 1], [2, NAN, 1], [3, 3, 2]], np.float32)
    layout = Layout(("a", "b"), categorical=("c",), values={"c": ("p", "q")}, missing="median")
    with pytest.raises(
        UserError, match=r"^column 'b' has no number in any training row; leave it out of the inputs$"
    ):
        fit_layout(x.copy(), layout, rows(0, 1), rows(0, 1, 2), True, place)
    x[:, 1:] = [[1, 0], [1, 0], [1, 1]]
    with pytest.raises(
        UserError, match=r"^column 'c' has no value in any training row; leave it out of the inputs$"
    ):
        fit_layout(x, layout, rows(0, 1), rows(0, 1, 2), True, place)
