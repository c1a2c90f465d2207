"""Reads the values of a table's column as times. A column holds either dates or numbers."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mtl.data.columns.numbers import MISSING, numbers
from mtl.data.columns.values import plain, shown, texts
from mtl.data.files.column_types import first_bad, type_name
from mtl.data.files.table import Table
from mtl.data.iso_time import iso_seconds
from mtl.errors import UserError, quoted

SECONDS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def times(
    file: Table, column: str, first: int, array: pa.Array, dates: bool | None = None
) -> npt.NDArray[np.float64]:
    """(n,) seconds since 1970, in UTC unless a zone is named; numbers stay as they are, and a missing time is NaN.

    Args:
        file: the table; it names the row in messages.
        column: the name of the column.
        first: the number of the first of these rows in the file.
        array: the n values.
        dates: whether earlier values were dates, so that these must be dates too; None: these values decide.

    Raises:
        UserError: a value is no number, date or time; the message names its row.
    """
    array = plain(file, column, first, array)
    if array.null_count == len(array):
        return np.full(len(array), np.nan)
    if file.of(column).date_format:
        return _in_format(file, column, first, array)
    if not (are_dates(file, column, first, array) if dates is None else dates):
        return numbers(file, column, first, array)
    if type_name(array.type) == "time":
        return _seconds(array)
    if not pa.types.is_string(array.type):
        what = f"holds {shown(array.type)} values, where the rows before hold dates"
        raise UserError(file.where(column, first), what)
    for zone in (None, "UTC"):
        with suppress(pa.ArrowInvalid):
            return _seconds(pc.cast(array, pa.timestamp("us", zone)))
    values = np.full(len(array), np.nan)
    for k, text in enumerate(array.to_pylist()):
        if text is None:
            continue
        try:
            values[k] = iso_seconds(text.strip())
        except ValueError:
            what = f"{quoted(text)} is no date such as 2024-03-01 or 2024-03-01T12:00:00"
            raise UserError(file.where(column, first + k), what) from None
    return values


def _in_format(file: Table, column: str, first: int, array: pa.Array) -> npt.NDArray[np.float64]:
    """Seconds of texts in the form that the column says; a column of times is read as it is."""
    if type_name(array.type) == "time":
        return _seconds(array)
    form = file.of(column).date_format

    def read(part: pa.Array) -> pa.Array:
        return pc.strptime(pc.utf8_trim_whitespace(part), form, "s")

    written = texts(file, column, first, array)
    try:
        return _seconds(read(written))
    except pa.ArrowInvalid:
        k = first_bad(written, read)
        what = f"{quoted(written[k].as_py())} is no date in the form {form}"
        raise UserError(file.where(column, first + k), what, MISSING) from None


def are_dates(file: Table, column: str, first: int, array: pa.Array) -> bool | None:
    """Whether a column of times holds dates rather than numbers; None if every value is missing.

    The first present value decides. A wrong value further down is then the one that the error names.
    """
    array = plain(file, column, first, array)
    if array.null_count == len(array):
        return None
    if file.of(column).date_format:
        return True
    if not pa.types.is_string(array.type):
        return type_name(array.type) == "time"
    with suppress(UserError):
        numbers(file, column, first, array.drop_null().slice(0, 1))
        return False
    return True


def _seconds(array: pa.Array) -> npt.NDArray[np.float64]:
    """Seconds of dates and timestamps, computed in float64: whole microseconds of a far date would overflow."""
    kind = array.type
    if pa.types.is_date32(kind):
        count, per_second = array.cast(pa.int32()), 1 / 86_400
    else:
        count, per_second = array.cast(pa.int64()), SECONDS["ms" if pa.types.is_date64(kind) else kind.unit]
    return np.asarray(count.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)) / per_second
