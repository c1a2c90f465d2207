from __future__ import annotations

import datetime

import numpy as np

from mtl.data.columns.dates import date_parts
from mtl.data.types import DATE_PARTS


def test_the_parts_of_a_date_are_those_of_the_calendar() -> None:
    days = ["1969-12-31", "1970-01-01", "2000-02-29", "2023-03-04", "2024-12-31", "1900-01-01", "9999-12-31"]
    dates = [datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC) for day in days]
    parts = date_parts(np.array([date.timestamp() for date in dates]))
    assert parts.shape == (len(days), len(DATE_PARTS))
    epoch = datetime.date(1970, 1, 1)
    expected = [[d.year, d.month, d.weekday(), (d.date() - epoch).days] for d in dates]
    np.testing.assert_array_equal(parts, expected)


def test_a_missing_date_and_a_time_of_day() -> None:
    parts = date_parts(np.array([np.nan, 86_400 * 1.75, -1.0]))
    np.testing.assert_array_equal(parts[0], [np.nan] * 4)
    np.testing.assert_array_equal(parts[1], [1970, 1, 4, 1.75])
    np.testing.assert_array_equal(parts[2], [1969, 12, 2, -1 / 86_400])
