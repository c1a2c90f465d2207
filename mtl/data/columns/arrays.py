"""Turns the arrays of a file into inputs, labels and further columns, in the types that tasks and splits take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.data import room
from mtl.data.columns.labels import narrow, whole_numbers
from mtl.data.columns.spelling import merged
from mtl.data.iso_time import iso_seconds
from mtl.data.types import Array, How, Mask, Rows, stable_order
from mtl.errors import KeyPath, UserError, quoted

BLOCK = 1 << 16
"""Rows that are converted to float64 at once."""
KINDS = {"U": "text", "S": "text", "c": "complex numbers", "M": "times", "m": "durations", "V": "raw bytes"}
KEPT = ("u1", "i1", "i2", "f2", "f4")
"""Types of inputs that are kept, because every device computes with them."""


def input_rows(file: str, name: str, values: Array) -> tuple[Array, str]:
    """Inputs in a type that every device has (float32 unless they are smaller), and a warning, or "" if there is none.

    Raises:
        UserError: the array holds no rows, or something else than numbers.
    """
    require_numbers(file, name, values.dtype)
    if len(values) == 0:
        raise UserError(file, "no rows")
    if values.dtype.kind == "b":
        return _as_type(values, np.uint8), ""
    if values.dtype.str[1:] in KEPT:
        return values, ""
    short = _as_type(values, np.float32)
    row = _inexact_row(values) if values.dtype.itemsize > 2 else None
    what = f"array {quoted(name)}: float32 cannot hold this row's whole numbers exactly"
    return short, "" if row is None else f"{file}:row {row}, {what}; are they ids rather than quantities?"


def _as_type(values: Array, dtype: npt.DTypeLike) -> Array:
    found = room.zeros(values.shape, dtype)
    with np.errstate(over="ignore"):
        for start in range(0, len(values), BLOCK):
            found[start : start + BLOCK] = values[start : start + BLOCK]
    return found


def require_numbers(file: str, name: str, dtype: np.dtype[np.generic], path: KeyPath = ()) -> None:
    """Refuse an array whose type holds something else than real numbers.

    Raises:
        UserError: the type is no type of real numbers.
    """
    if dtype.kind not in "biuf":
        what = f"array {quoted(name)} holds {KINDS.get(dtype.kind, dtype)}, not real numbers"
        raise UserError(file, what, path=path)


def _inexact_row(values: Array) -> int | None:
    """The first row that holds a whole number which float32 cannot hold."""
    for start in range(0, len(values), BLOCK):
        part = values[start : start + BLOCK]
        x = part.astype(np.float64).reshape(len(part), -1)
        with np.errstate(over="ignore", invalid="ignore"):
            short = x.astype(np.float32)
            wrong = (np.abs(x) > 2**24) & np.isfinite(short) & (x == np.floor(x)) & (short != x)
        if wrong.any():
            return start + int(np.argmax(wrong.any(axis=1)))
    return None


def label_column(
    file: str, name: str, values: Array, how: How = "classes"
) -> tuple[Array, Mask, tuple[str, ...] | None]:
    """Labels as numbers or codes in the smallest type, which rows have one, and the names of the codes.

    NaN and empty text are missing labels. Text becomes whole numbers if all of it is, as in a table; fractions become
    the names of classes, unless they are wanted as numbers.

    Raises:
        UserError: a row holds something else than one number, truth value or text.
    """
    require_one_each(file, name, values)
    fractions = values.dtype.kind == "f" and not (np.isnan(values) | (values == np.floor(values))).all()
    if how == "numbers" and values.dtype.kind in "US":
        values = number_column(file, name, values)
    elif values.dtype.kind in "US" or (fractions and how == "classes"):
        codes, names = coded(file, name, values)
        if (whole := whole_numbers(names)) is not None:
            return narrow(np.append(whole, 0)[codes]), codes >= 0, None
        return narrow(codes), codes >= 0, names
    require_numbers(file, name, values.dtype)
    if values.dtype.kind == "b":
        return values.astype(np.int8), np.ones(len(values), dtype=bool), ("false", "true")
    if values.dtype.kind == "f":
        return narrow(values.astype(np.float64)), ~np.isnan(values), None
    if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
        row = int(np.argmax(values))
        raise UserError(f"{file}:row {row}", f"array {quoted(name)} holds {values[row]}, at most 2^63 - 1")
    return narrow(values), np.ones(len(values), dtype=bool), None


def require_one_each(file: str, name: str, values: Array, n: int | None = None) -> None:
    """Refuse an array that holds something else than one value per row.

    Raises:
        UserError: the shape is not (n,).
    """
    if values.ndim != 1:
        raise UserError(
            file, f"array {quoted(name)} has shape {values.shape}, a column is (n,)",
            "save each column as an array of its own",
        )  # fmt: skip
    if n is not None and len(values) != n:
        raise UserError(file, f"array {quoted(name)} has {counted(len(values), 'row')}, the inputs have {n}")


def coded(file: str, name: str, values: Array) -> tuple[Rows, tuple[str, ...]]:
    """Codes of the values, in the order of their texts; NaN and empty text get -1. Also the text of each code.

    Raises:
        UserError: bytes are not UTF-8 text.
    """
    distinct, position = np.unique(values, return_inverse=True)
    called = _texts(file, name, values, distinct)
    missing = [text == "" or (distinct.dtype.kind == "f" and text == "nan") for text in called]
    spelled = merged(text for text, is_missing in zip(called, missing, strict=True) if not is_missing)
    names = stable_order(spelled.values())
    place = {text: code for code, text in enumerate(names)}
    codes = [-1 if gone else place[spelled[text]] for text, gone in zip(called, missing, strict=True)]
    return np.array(codes, dtype=np.int64)[position], names


def _texts(file: str, name: str, values: Array, distinct: Array) -> list[str]:
    if distinct.dtype.kind != "S":
        return [str(text) for text in distinct.astype(str).tolist()]
    texts = []
    for value in distinct.tolist():
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError:
            row = int(np.flatnonzero(values == value)[0])
            raise UserError(
                f"{file}:row {row}", f"array {quoted(name)} holds {quoted(value)}, which is not UTF-8 text"
            ) from None
    return texts


def number_column(file: str, name: str, values: Array) -> npt.NDArray[np.float64]:
    """Numbers, with NaN for a missing one; texts are read as numbers.

    Raises:
        UserError: a value is no number; the message names the first such row.
    """
    if values.dtype.kind not in "US":
        require_numbers(file, name, values.dtype)
        return values.astype(np.float64)
    codes, names = coded(file, name, values)
    return _each(file, name, codes, names, float, "a number")


def time_column(file: str, name: str, values: Array) -> npt.NDArray[np.float64]:
    """Seconds since 1970, in UTC unless a text names a zone; numbers stay as they are, and a missing time is NaN.

    Raises:
        UserError: a value is no number, date or time; the message names the first such row.
    """
    if values.dtype.kind == "M":
        micro = values.astype("datetime64[us]")
        return np.where(np.isnat(micro), np.nan, micro.astype(np.int64) / 1e6)
    if values.dtype.kind not in "US":
        return number_column(file, name, values)
    codes, names = coded(file, name, values)
    return _each(file, name, codes, names, _seconds, "a number or a date such as 2024-03-01")


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return iso_seconds(text.strip())


def _each(
    file: str, name: str, codes: Rows, names: tuple[str, ...], read: Callable[[str], float], wanted: str
) -> npt.NDArray[np.float64]:
    """Read each distinct text once. The code -1 reads the last place of the table, which is NaN."""
    found = np.full(len(names) + 1, np.nan)
    wrong = []
    for code, text in enumerate(names):
        try:
            found[code] = read(text)
        except ValueError:
            wrong.append(code)
    if wrong:
        row = int(np.flatnonzero(np.isin(codes, wrong))[0])
        raise UserError(
            f"{file}:row {row}", f"array {quoted(name)} holds {quoted(names[codes[row]])}, not {wanted}"
        )
    return found[codes]
