"""Turns dates into numbers that a network can use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DAY = 86_400


def date_parts(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, 4) year, month, weekday and days of n times; NaN for a missing time.

    Args:
        seconds: (n,) seconds since 1970-01-01 in UTC; NaN for a missing one.
    """
    there = ~np.isnan(seconds)
    days = np.where(there, seconds, 0.0) / DAY
    whole = np.floor(days).astype(np.int64)
    months = whole.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    year, month = np.divmod(months, 12)
    parts = np.stack([year + 1970, month + 1, (whole + 3) % 7, days], axis=1).astype(np.float64)
    parts[~there] = np.nan
    return parts
