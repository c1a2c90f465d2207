from __future__ import annotations

import json

import numpy as np
import pytest

from mtl.data.learned import Learned, from_record
from mtl.data.types import Header, Layout

LAYOUT = Layout(
    ("x", "y"),
    {"v": 2},
    ("c", "ä\n"),
    {"c": ("a", "b"), "ä\n": ("1",)},
    missing="median",
    indicator=True,
    embedding=3,
)


def learned(layout: Layout | None, scaled: bool = True) -> Learned:
    ones = np.ones(4, np.float32)
    return Learned(
        outputs={"t": ("a", "b"), "u": ("value",)},
        constants={"t": {"threshold": (0.25,)}, "u": {"mean": (1.5,), "std": (0.1,)}},
        mean=2 * ones if scaled else None,
        std=3 * ones if scaled else None,
        layout=layout,
        fill=4 * ones if layout is not None else None,
        indicators=(0, 3) if layout is not None else (),
    )


@pytest.mark.parametrize("layout", [LAYOUT, Layout(("x", "y", "z", "w")), None])
def test_a_record_goes_through_json_and_back(layout: Layout | None) -> None:
    """All but the numbers that are buffers of the model, whose shapes come back."""
    before = learned(layout)
    text = json.dumps(before.record(Header((6,), {"t": None})), allow_nan=False)
    header, after = from_record(json.loads(text))
    assert header == Header((6,), {}, layout=layout)
    assert after.layout == before.layout
    assert (after.outputs, after.constants, after.indicators) == (
        before.outputs, before.constants, before.indicators,
    )  # fmt: skip
    assert after.mean is not None
    assert after.std is not None
    assert after.mean.tolist() == [0.0] * 4
    assert after.std.tolist() == [1.0] * 4
    assert {after.mean.dtype, after.std.dtype} == {np.dtype(np.float32)}
    assert (after.fill is None) == (layout is None)
    assert json.dumps(after.record(header)) == text


def test_inputs_that_are_taken_as_they_are() -> None:
    header, after = from_record(learned(None, scaled=False).record(Header((3, 8, 8), {})))
    assert header.input_shape == (3, 8, 8)
    assert (after.mean, after.std, after.fill, after.layout) == (None, None, None, None)


def test_the_values_of_a_layout_are_those_of_the_run() -> None:
    record = learned(LAYOUT).record(Header((6,), {}))
    assert record["layout"]["values"] == {"c": ("a", "b"), "ä\n": ("1",)}
    assert record["layout"]["embedding"] == 3
    assert record["scale_shape"] == [4]


def test_further_constants() -> None:
    before = learned(None)
    after = before.decided({"t": {"temperature": (2.0,)}, "u": {"std": (0.2,)}})
    assert after.constants == {
        "t": {"threshold": (0.25,), "temperature": (2.0,)},
        "u": {"mean": (1.5,), "std": (0.2,)},
    }
    assert before.constants["t"] == {"threshold": (0.25,)}
    assert before.decided({}).constants == before.constants
