"""Reads the values of a table's column as numbers, in the way in which the column writes them."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mtl.data.columns.values import plain, shown, texts
from mtl.data.files.column_types import first_bad, type_name
from mtl.data.files.formats.form import ColumnForm
from mtl.data.files.table import Table
from mtl.errors import UserError, quoted

MISSING = "if it stands for a missing value, add it to na_values"
EXACT = 2.0**53
"""float64 holds every whole number up to this one, but not the next."""
WHOLE = re.compile(r"[+-]?\d{1,400}", re.ASCII)
LIKE = {" ": "[ \u00a0\u202f]", "'": "['\u2019]"}
"""A sign between thousands -> the signs that look like it."""


def numbers(
    file: Table, column: str, first: int, array: pa.Array, todo: str = MISSING
) -> npt.NDArray[np.float64]:
    """(n,) numbers; NaN for a missing one, 0 and 1 for truth values. `todo` is the advice on a text.

    Raises:
        UserError: a value is not a finite number; the message names its row.
    """
    array = plain(file, column, first, array)
    kind = array.type
    text = pa.types.is_string(kind)
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    if not text and type_name(kind) not in ("integer", "boolean", "number"):
        raise UserError(file.where(column, first), f"holds {shown(kind)} values, not numbers")
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), None, array)
    form = file.of(column)
    source = as_written(array, form) if text else array

    def as_numbers(part: pa.Array) -> pa.Array:
        return pc.cast(part, pa.float64(), safe=False)

    try:
        cast = as_numbers(source)
    except pa.ArrowInvalid:
        k = first_bad(source, as_numbers)
        value = quoted(array[k].as_py())
        what = f"{value} is not a number{described(form)}"
        raise UserError(file.where(column, first + k), what, todo) from None
    values: npt.NDArray[np.float64] = cast.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    there = cast.is_valid().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~np.isfinite(values) & there)
    if wrong.size:
        k = int(wrong[0])
        what = f"{quoted(array[k].as_py())} is not a finite number"
        raise UserError(file.where(column, first + k), what, MISSING if text else "")
    return values


def as_written(array: pa.StringArray, form: ColumnForm) -> pa.StringArray:
    """The texts of numbers as programs write them, without unit and without signs between thousands.

    A text that is no number in this form becomes `?`, which no reader takes for a number: with a decimal comma,
    `1.234` is not 1.234, and with commas between thousands, `1,23` is not 123.
    """
    array = pc.utf8_trim_whitespace(array)
    if form.plain_numbers:
        return array
    if form.unit:
        unit = re.escape(form.unit)
        array = pc.replace_substring_regex(array, rf"^(-?)\s*{unit}\s*", r"\1")
        array = pc.replace_substring_regex(array, rf"\s*{unit}$", "")
    between = LIKE.get(form.thousands, re.escape(form.thousands))
    point = re.escape(form.decimal)
    groups = rf"|[0-9]{{1,3}}({between}[0-9]{{3}})+" if form.thousands else ""
    pattern = rf"^-?(([0-9]+{groups})({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?$"
    fits = pc.match_substring_regex(array, pattern)
    if form.thousands:
        array = pc.replace_substring_regex(array, between, "")
    if form.decimal != ".":
        array = pc.replace_substring(array, form.decimal, ".")
    return pc.if_else(pc.or_kleene(fits, pc.is_null(array)), array, "?")


def described(form: ColumnForm) -> str:
    """How the numbers of a column are written, as the end of a message; "" for the plain way."""
    parts = [
        f"decimal {form.decimal!r}" if form.decimal != "." else "",
        f"thousands {form.thousands!r}" if form.thousands else "",
        f"unit {form.unit!r}" if form.unit else "",
    ]
    said = ", ".join(part for part in parts if part)
    return f" with {said}" if said else ""


def inexact_row(file: Table, column: str, first: int, array: pa.Array) -> int | None:
    """The first row, counted from `first`, whose whole number float32 cannot hold exactly; it may be an id."""
    values = numbers(file, column, first, array)
    if not file.of(column).plain_numbers:
        return None  # grouped by thousands or with a unit, it is a quantity
    if type_name(array.type) == "number":
        return inexact(values, EXACT)  # a larger number is a quantity, not an id
    row = inexact(values)
    rounded = np.flatnonzero(np.abs(values[:row]) >= EXACT)
    written = texts(file, column, first, array.take(pa.array(rounded))).to_pylist()
    for k, text in zip(rounded.tolist(), written, strict=True):
        digits = text.strip()
        if WHOLE.fullmatch(digits) and int(digits) != int(np.float32(values[k])):
            return int(k)
    return row


def inexact(values: npt.NDArray[np.float64], largest: float = np.inf) -> int | None:
    """The position of the first whole number up to `largest` that float32 cannot hold exactly, or None."""
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.abs(values)
        wrong = (size > 2**24) & (size <= largest) & (values == np.floor(values))
        wrong &= values.astype(np.float32) != values
    return int(np.argmax(wrong)) if wrong.any() else None
