"""Columns of times as seconds since 1970."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest

from mtl.data.columns.times import times
from mtl.data.files.table import MemoryTable
from mtl.errors import UserError

FILE = MemoryTable(pa.table({"v": [0]}))
NAN = float("nan")
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array(["2024-03-01", None]), [datetime(2024, 3, 1, tzinfo=UTC), None]),
        (pa.array(["2024-03-01T12:00:00", "2024-03-01 12:00:00.5"]), [NOON, NOON + timedelta(seconds=0.5)]),
        (pa.array(["2024-03-01T14:00:00+02:00", "2024-03-01T12:00:00Z"]), [NOON, NOON]),
        (pa.array(["2024-03-01T14:00:00+02:00", " 2024-03-01T12:00:00 ", None]), [NOON, NOON, None]),
        (pa.array([datetime(2024, 3, 1, 14, tzinfo=EAST), None], pa.timestamp("ns", "Europe/Berlin")), [NOON, None]),
        *((pa.array([datetime(2024, 3, 1, 12), None], pa.timestamp(u)), [NOON, None]) for u in ("s", "ms", "us")),
        (pa.array([date(2024, 3, 1), None]), [datetime(2024, 3, 1, tzinfo=UTC), None]),
        (pa.array([date(2024, 3, 1)], pa.date64()), [datetime(2024, 3, 1, tzinfo=UTC)]),
        (pa.array([datetime(1950, 1, 1)]), [datetime(1950, 1, 1, tzinfo=UTC)]),
    ],
)  # fmt: skip
def test_times(array: pa.Array, expected: list[datetime | None]) -> None:
    seconds = [NAN if moment is None else moment.timestamp() for moment in expected]
    np.testing.assert_array_equal(times(FILE, "v", 0, array), seconds)


def test_times_without_a_zone_are_utc_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        mixed = pa.array(["2024-03-01T14:00:00+02:00", "2024-03-01T12:00:00"])
        found = times(FILE, "v", 0, mixed).tolist(), times(FILE, "v", 0, mixed.slice(1)).tolist()
    time.tzset()
    assert found == ([NOON.timestamp()] * 2, [NOON.timestamp()])


@pytest.mark.parametrize("array", [pa.array(["3", "1.5", None]), pa.array([3, 1.5, None])])
def test_numbers_are_times(array: pa.Array) -> None:
    np.testing.assert_array_equal(times(FILE, "v", 0, array), [3, 1.5, NAN])


def test_far_dates_do_not_overflow() -> None:
    far = pa.array([2**31 - 1, -(2**31)], pa.int32()).cast(pa.date32())
    np.testing.assert_array_equal(times(FILE, "v", 0, far), np.array([2**31 - 1, -(2**31)]) * 86_400.0)
    far = pa.array([2**62], pa.int64()).cast(pa.timestamp("s"))
    np.testing.assert_array_equal(times(FILE, "v", 0, far), [2.0**62])


@pytest.mark.parametrize("text", ["2024-13-01", "yesterday", "01.03.2024", ""])
def test_no_time(text: str) -> None:
    with pytest.raises(UserError) as caught:
        times(FILE, "v", 100, pa.array(["2024-03-01", None, text]))
    assert str(caught.value) == (
        f"table:row 102, column 'v': {text!r} is no date such as 2024-03-01 or 2024-03-01T12:00:00"
    )


@pytest.mark.parametrize("bad", ["2024-03-01", "yesterday", "n/a"])
def test_the_first_value_decides_which_one_is_bad(bad: str) -> None:
    seconds = pa.array([None, *(str(1_700_000_000 + i) for i in range(500)), bad])
    with pytest.raises(UserError) as caught:
        times(FILE, "v", 1, seconds)
    assert str(caught.value) == (
        f"table:row 502, column 'v': {bad!r} is not a number; if it stands for a missing value, add it to na_values"
    )
    with pytest.raises(UserError) as caught:
        times(FILE, "v", 1, pa.array([None, "2024-03-01", "1700000000"]))
    assert str(caught.value) == (
        "table:row 3, column 'v': '1700000000' is no date such as 2024-03-01 or 2024-03-01T12:00:00"
    )


@pytest.mark.parametrize("array", [pa.nulls(2), pa.nulls(2, pa.string()), pa.nulls(2, pa.timestamp("us"))])
@pytest.mark.parametrize("dates", [None, True, False])
def test_a_batch_without_a_time_says_nothing(array: pa.Array, dates: bool | None) -> None:
    np.testing.assert_array_equal(times(FILE, "v", 0, array, dates), [NAN, NAN])
