from __future__ import annotations

import numpy as np
import pytest

from mtl.data.types import Columns, Header, Labels, Layout, row_number, stable_order


def test_the_raw_row_of_a_table() -> None:
    layout = Layout(("a", "b"), {"v": 3, "w": 1}, ("c", "d", "e"))
    assert (layout.n_numeric, layout.width) == (6, 9)
    assert [layout.numeric_name(i) for i in range(6)] == ["a", "b", "v[0]", "v[1]", "v[2]", "w[0]"]
    with pytest.raises(IndexError):
        layout.numeric_name(6)
    assert (Layout(()).n_numeric, Layout((), {}, ("c",)).width) == (0, 1)


@pytest.mark.parametrize(
    ("texts", "order"),
    [
        (["10", "9", "-1", "9"], ("-1", "9", "10")),
        (["1", "01", "001"], ("001", "01", "1")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["10", "9", ""], ("", "10", "9")),
        (["1.0", "10", "9"], ("1.0", "10", "9")),
        (["b", "B", "a", "ä"], ("B", "a", "b", "ä")),
        (["\u0663", "2"], ("2", "\u0663")),
        (["9" * 5000, "10"], ("10", "9" * 5000)),
        ([], ()),
    ],
)
def test_stable_order(texts: list[str], order: tuple[str, ...]) -> None:
    assert stable_order(texts) == order
    assert stable_order(reversed(texts)) == order


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (np.array([True, False]), [True, False]),
        (np.array([[True, False], [False, False]]), [True, False]),
        (np.array([[False, True], [True, True]]), [True, True]),
    ],
)
def test_any_present(present: np.ndarray, expected: list[bool]) -> None:
    assert Labels(np.zeros(present.shape), present).any_present().tolist() == expected


def test_a_row_has_a_name() -> None:
    columns = Columns(np.zeros((2, 1)), {}, {}, "")
    assert columns.place(1) == row_number(1) == "row 1"
    assert Labels(np.zeros(2), np.ones(2, bool)).place(0) == "row 0"


def test_defaults_are_not_shared() -> None:
    """Each mapping belongs to its own object."""
    one, other = Header((1,), {}), Header((1,), {})
    assert one == other
    assert one.row_counts is not other.row_counts
